/*
 * The certificates of a server, which are the master's: it reads them before it gives its
 * privileges up, and tells the workers what is in them, so that those need not be allowed to read
 * the keys.
 *
 * They are read again on a reload and when a file changes, and are taken only when all of it fits
 * together. A certificate and its key are two files, which do not change at the same moment: what
 * does not fit is looked at once more after some seconds before it is complained of. Running
 * workers get the new ones as a message; workers that are forked later have them from the start.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "master/master_priv.h"
#include "master/startup.h"
#include "master/watch.h"
#include "net/addr.h"

enum { TLS_SETTLE_MS = 300, TLS_RETRY_MS = 3000 };

/* Whether an address speaks TLS, or may. */
static bool tls_is_bound(const struct stk_master *m)
{
    for (size_t i = 0; i < m->listeners.n; i++)
        if (strcmp(m->listeners.items[i]->scheme, "https") == 0 ||
            strcmp(m->listeners.items[i]->scheme, "auto") == 0)
            return true;
    return false;
}

/* Says what clients will stumble over. */
static void tls_warn(const struct stk_master *m, const struct stk_tls_store *store)
{
    for (const char *const *text = stk_tls_store_warnings(store); *text != NULL; text++)
        stk_log_warning("%s", *text);
    for (size_t i = 0; i < m->config->bind.n; i++) {
        STK_CLEANUP(stk_mem_freep) char *error = NULL;
        STK_CLEANUP(stk_addr_spec_deinit) struct stk_addr_spec spec = {0};

        if (stk_addr_spec_parse(m->config->bind.items[i], &spec, &error) == 0 &&
            strcmp(spec.scheme, "https") == 0 && spec.host != NULL &&
            strpbrk(spec.host, ":") == NULL && spec.host[strspn(spec.host, "0123456789.")] != 0 &&
            !stk_tls_store_covers(store, spec.host))
            stk_log_warning("no certificate of tls-cert is for %s, which --bind %s names",
                            spec.host, m->config->bind.items[i]);
    }
}

/* Sessions that the server before this one has begun are resumed here. */
static void tls_take_tickets(struct stk_master *m)
{
    const struct stk_startup *startup = m->params->startup;
    int r;

    if (startup == NULL || startup->predecessor == 0 || startup->tls_tickets < 0)
        return;
    r = stk_tls_tickets_load(m->tls.tickets, startup->tls_tickets);
    if (r < 0)
        stk_log_debug("the keys of TLS tickets of the old server are not taken: %s", strerror(-r));
}

/* Whether a path is what an option names, or in the directory that it names. */
static bool tls_is_named(const char *item, const char *path)
{
    size_t len = item != NULL ? strlen(item) : 0;

    return len > 0 && strncmp(path, item, len) == 0 &&
           (path[len] == '\0' || path[len] == '/' || item[len - 1] == '/');
}

/* Whether the configuration and some files agree on what there is to read. */
struct tls_agreement {
    const struct stk_config *config;
    const char *item; /* NULL: every file is to be named; else this is, by some file */
    bool agreed;
};

static void tls_compare(void *arg, const char *path)
{
    struct tls_agreement *a = arg;
    const struct stk_config *config = a->config;
    bool named = tls_is_named(config->tls_client_ca, path);

    for (size_t i = 0; i < config->tls_cert.n; i++)
        named = named || tls_is_named(config->tls_cert.items[i], path);
    for (size_t i = 0; i < config->tls_key.n; i++)
        named = named || tls_is_named(config->tls_key.items[i], path);
    if (a->item == NULL)
        a->agreed = a->agreed && named;
    else
        a->agreed = a->agreed || tls_is_named(a->item, path);
}

static bool tls_has_file(const struct stk_config *config, const struct stk_tls_files *files,
                         const char *item)
{
    struct tls_agreement a = {.config = config, .item = item, .agreed = item == NULL};

    stk_tls_files_each(files, tls_compare, &a);
    return a.agreed;
}

/* Whether files are those that the configuration names: all of them, and no others. */
static bool tls_fits(const struct stk_config *config, const struct stk_tls_files *files)
{
    bool fits =
        tls_has_file(config, files, NULL) &&
        (config->tls_client_ca == NULL || tls_has_file(config, files, config->tls_client_ca));

    for (size_t i = 0; i < config->tls_cert.n; i++)
        fits = fits && tls_has_file(config, files, config->tls_cert.items[i]);
    for (size_t i = 0; i < config->tls_key.n; i++)
        fits = fits && tls_has_file(config, files, config->tls_key.items[i]);
    return fits;
}

/* What the old server has read. False: it is not what the configuration names. */
static bool tls_take_files(struct stk_master *m)
{
    const struct stk_startup *startup = m->params->startup;
    struct stk_tls_files files = {0};

    if (startup == NULL || startup->predecessor == 0 || startup->tls_files < 0 ||
        stk_tls_files_load(startup->tls_files, &files) < 0)
        return false;
    if (!tls_fits(m->config, &files)) {
        stk_tls_files_deinit(&files);
        return false;
    }
    m->tls.files = files;
    return true;
}

/*
 * Reads the files; where this is the successor of a server that had other rights when it read them,
 * what it has read.
 */
static int tls_read_first(struct stk_master *m, char **ret_error)
{
    if (stk_tls_files_read(m->config, &m->tls.files, ret_error) == 0)
        return 0;
    if (!tls_take_files(m))
        return -1;
    stk_log_warning("%s: the certificates of the old server stay", *ret_error);
    free(stk_steal(ret_error));
    return 0;
}

char *stk_tls_hand_over(const struct stk_master *m, char *text)
{
    int tickets = -1, files = -1;
    char *more;

    if (m->tls.store == NULL || stk_tls_tickets_save(m->tls.tickets, &tickets) < 0 ||
        stk_fd_set_cloexec(tickets, false) < 0 || stk_tls_files_save(&m->tls.files, &files) < 0 ||
        stk_fd_set_cloexec(files, false) < 0)
        return text; /* it reads the files itself, and begins new sessions */
    more = stk_mem_printf("%s " STK_STARTUP_TLS_TICKETS "=%d " STK_STARTUP_TLS_FILES "=%d", text,
                          tickets, files);
    free(text);
    return more;
}

static int tls_open(struct stk_master *m)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    bool bound = tls_is_bound(m);
    int r;

    if (m->config->tls_cert.n == 0)
        return 0; /* cli/verify.c has seen to it that nothing needs one */
    r = stk_tls_tickets_new(&m->tls.tickets);
    if (r < 0) {
        stk_log_critical("the keys of TLS tickets cannot be made: %s", strerror(-r));
        return STK_MASTER_EXIT_CONFIG;
    }
    tls_take_tickets(m);
    if (tls_read_first(m, &error) != 0 ||
        stk_tls_store_new(&m->tls.store, &m->tls.files, m->config, m->tls.tickets, &error) != 0) {
        stk_log_critical("%s", error);
        return STK_MASTER_EXIT_CONFIG;
    }
    tls_warn(m, m->tls.store);
    if (!bound)
        stk_log_warning("tls-cert is given, but no --bind begins with https://");
    return 0;
}

int stk_tls_open(struct stk_master *m)
{
    struct stk_startup *startup = m->params->startup;
    int code = tls_open(m);

    if (startup != NULL && startup->predecessor != 0) { /* no child is to have them */
        stk_fd_close(&startup->tls_tickets);
        stk_fd_close(&startup->tls_files);
    }
    return code;
}

/* Sends them to every process that may serve or fork. */
static void tls_tell(struct stk_master *m)
{
    struct stk_message msg = {.type = STK_MESSAGE_CERTS, .fd = -1};
    int r = stk_tls_files_save(&m->tls.files, &msg.fd);

    if (r < 0) {
        stk_log_error("the new certificates reach no worker before the next reload: %s",
                      strerror(-r));
        return;
    }
    stk_list_for_each (it, &m->procs) {
        struct stk_proc *p = stk_container_of(it, struct stk_proc, link);

        if (p->channel.fd < 0 || p->state >= STK_PROC_STOPPING)
            continue;
        r = stk_channel_send(p->channel.fd, &msg);
        if (r < 0 && r != -EPIPE) {
            STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);

            stk_log_error("%s did not get the new certificates: %s", name, strerror(-r));
        }
    }
    stk_fd_close(&msg.fd);
}

/* Has one path watched, by its absolute form. */
static void tls_watch_path(void *arg, const char *path)
{
    struct stk_master *m = arg;
    char cwd[PATH_MAX] = "";
    STK_CLEANUP(stk_mem_freep) char *all = NULL;

    if (path[0] != '/' && getcwd(cwd, sizeof cwd) == NULL)
        return;
    all = path[0] == '/' ? stk_mem_strdup(path) : stk_mem_printf("%s/%s", cwd, path);
    stk_watch_add_touch(m->tls.watch, all);
}

/* The files that were read; and what was named, where that is a directory to which more may come.
 */
static void tls_watch_all(struct stk_master *m)
{
    if (m->tls.watch == NULL)
        return;
    stk_tls_files_each(&m->tls.files, tls_watch_path, m);
    for (size_t i = 0; i < m->config->tls_cert.n; i++)
        tls_watch_path(m, m->config->tls_cert.items[i]);
}

/* Reads them again. 0: they are taken, or are the same; -1 with *ret_error. */
static int tls_read_again(struct stk_master *m, char **ret_error)
{
    struct stk_tls_files files = {0};
    struct stk_tls_store *store;
    size_t n;

    if (stk_tls_files_read(m->config, &files, ret_error) != 0)
        return -1;
    if (stk_tls_files_eq(&files, &m->tls.files)) {
        stk_tls_files_deinit(&files);
        return 0;
    }
    if (stk_tls_store_new(&store, &files, m->config, m->tls.tickets, ret_error) != 0) {
        stk_tls_files_deinit(&files);
        return -1;
    }
    stk_tls_store_free(m->tls.store);
    m->tls.store = store;
    stk_tls_files_deinit(&m->tls.files);
    m->tls.files = files;
    tls_tell(m);
    tls_watch_all(m);
    tls_warn(m, store);
    n = stk_tls_store_count(store);
    stk_log_info("the TLS certificates have changed: %zu certificate%s for new connections", n,
                 n == 1 ? "" : "s");
    return 0;
}

void stk_tls_reload(struct stk_master *m)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;

    if (m->tls.store == NULL)
        return;
    stk_timer_stop(m->loop, &m->tls.settle);
    if (tls_read_again(m, &error) != 0)
        stk_log_error("the TLS certificates are not taken, the old ones stay: %s", error);
}

static void tls_on_settled(struct stk_timer *timer, void *who)
{
    struct stk_master *m = stk_container_of(timer, struct stk_master, tls.settle);
    STK_CLEANUP(stk_mem_freep) char *error = NULL;

    if (m->stopping != 0)
        return;
    if (m->tls.again) {
        stk_tls_reload(m);
    } else if (tls_read_again(m, &error) != 0) {
        m->tls.again = true;
        stk_timer_set(m->loop, timer, TLS_RETRY_MS);
    }
}

static void tls_on_change(void *arg, const char *path)
{
    struct stk_master *m = arg;

    m->tls.again = false;
    stk_timer_set(m->loop, &m->tls.settle, TLS_SETTLE_MS);
}

static void tls_on_rotate(struct stk_timer *timer, void *who)
{
    struct stk_master *m = stk_container_of(timer, struct stk_master, tls.rotate);
    int r = stk_tls_tickets_rotate(m->tls.tickets);

    if (r < 0)
        stk_log_error("there is no new key for TLS tickets: %s", strerror(-r));
    stk_timer_set(m->loop, timer, STK_TLS_TICKETS_ROTATE_MS);
}

int stk_tls_watch(struct stk_master *m)
{
    int r;

    if (m->tls.store == NULL)
        return 0;
    stk_timer_init(&m->tls.settle, tls_on_settled);
    stk_timer_init(&m->tls.rotate, tls_on_rotate);
    stk_timer_set(m->loop, &m->tls.rotate, STK_TLS_TICKETS_ROTATE_MS);
    r = stk_watch_new(m->loop, tls_on_change, m, &m->tls.watch);
    if (r < 0)
        return r;
    tls_watch_all(m);
    return 0;
}

void stk_tls_take(struct stk_master *m, int fd)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    struct stk_tls_files files = {0};
    struct stk_tls_store *store;

    if (stk_tls_files_load(fd, &files) == 0 &&
        stk_tls_store_new(&store, &files, m->config, m->tls.tickets, &error) == 0) {
        stk_tls_store_free(m->tls.store);
        m->tls.store = store;
    }
    stk_tls_files_deinit(&files);
}

void stk_tls_leave(struct stk_master *m)
{
    if (m->tls.watch != NULL)
        stk_watch_close(m->tls.watch);
    stk_tls_files_deinit(&m->tls.files);
}

void stk_tls_close(struct stk_master *m)
{
    m->tls.watch = stk_watch_free(m->tls.watch);
    m->tls.store = stk_tls_store_free(m->tls.store);
    stk_tls_files_deinit(&m->tls.files);
    m->tls.tickets = stk_tls_tickets_free(m->tls.tickets);
}
