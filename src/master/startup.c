/*
 * The start of the process.
 *
 * The command line comes from /proc, because Python shows its own only from 3.10 on, and it is read
 * before the memory of it becomes the title in ps. The directory is what PWD calls it where that is
 * true: the way through a symbolic link leads a later start into the new release, the resolved path
 * leads into the old one.
 *
 * The text of an upgrade is words with `key=value`: unknown keys are skipped, so that either side
 * may be the newer one; what cannot be understood at all has another version in front.
 */
#include "master/startup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    STARTUP_WORDS_MAX = 256,
    STARTUP_ERRORS_MAX = 64 * 1024,
};

const char *const stk_startup_variables[] = {
    STK_STARTUP_UPGRADE, "LISTEN_PID",   "LISTEN_FDS",    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",     "WATCHDOG_PID", "WATCHDOG_USEC", NULL,
};

/* Of these, what a successor may need: it is a process of its own, with another number. */
static const char *const startup_kept[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC"};

/* What a file of /proc holds, NUL-terminated; NULL when it cannot be read. */
static char *startup_read_file(const char *path, size_t *ret_len)
{
    STK_CLEANUP(stk_fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0, cap = 4096;
    char *text = stk_mem_zalloc(cap);
    ssize_t n;

    while (fd >= 0 && (n = read(fd, text + len, cap - len - 1)) > 0) {
        len += (size_t)n;
        if (cap - len < 2) {
            text = realloc(text, cap *= 2);
            STK_ASSERT(text != NULL);
        }
    }
    if (len == 0)
        free(stk_steal(&text));
    else
        text[len] = '\0';
    *ret_len = len;
    return text;
}

/* The command line, each argument a copy; NULL where it is not known. */
static char **startup_read_argv(void)
{
    size_t len, n = 0, i = 0;
    STK_CLEANUP(stk_mem_freep) char *text = startup_read_file("/proc/self/cmdline", &len);
    char **argv;

    if (text == NULL)
        return NULL;
    for (size_t at = 0; at < len; at += strlen(text + at) + 1)
        n++;
    argv = stk_new0_array(char *, n + 1);
    for (size_t at = 0; at < len; at += strlen(text + at) + 1)
        argv[i++] = stk_mem_strdup(text + at);
    return argv;
}

static bool startup_is_named(const char *variable, const char *name)
{
    size_t len = strlen(name);

    return strncmp(variable, name, len) == 0 && variable[len] == '=';
}

static bool startup_keeps(const char *variable)
{
    for (size_t i = 0; i < STK_ARRAY_LEN(startup_kept); i++)
        if (startup_is_named(variable, startup_kept[i]))
            return true;
    for (size_t i = 0; stk_startup_variables[i] != NULL; i++)
        if (startup_is_named(variable, stk_startup_variables[i]))
            return false;
    return true;
}

static char **startup_copy_environ(void)
{
    size_t n = 0, kept = 0;
    char **copy;

    while (environ != NULL && environ[n] != NULL)
        n++;
    copy = stk_new0_array(char *, n + 1);
    for (size_t i = 0; i < n; i++)
        if (startup_keeps(environ[i]))
            copy[kept++] = stk_mem_strdup(environ[i]);
    return copy;
}

static char *startup_read_cwd(void)
{
    const char *pwd = getenv("PWD");
    struct stat there, here;
    char buf[PATH_MAX];

    if (pwd != NULL && *pwd == '/' && stat(pwd, &there) == 0 && stat(".", &here) == 0 &&
        there.st_ino == here.st_ino && there.st_dev == here.st_dev)
        return stk_mem_strdup(pwd);
    return getcwd(buf, sizeof buf) != NULL ? stk_mem_strdup(buf) : NULL;
}

static mode_t startup_read_umask(void)
{
    mode_t mask = umask(022);

    (void)umask(mask);
    return mask;
}

static void startup_read_watchdog(struct stk_startup *s)
{
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");
    char *end;
    long long v;

    if (usec == NULL || s->notify_socket == NULL ||
        (pid != NULL && strtol(pid, NULL, 10) != getpid()))
        return;
    v = strtoll(usec, &end, 10);
    if (end != usec && *end == '\0' && v > 0 && v < INT64_MAX / 2)
        s->watchdog = v / 1000 > 0 ? v / 1000 : 1;
}

static int startup_number(const char *value)
{
    char *end;
    long v = strtol(value, &end, 10);

    return end == value || *end != '\0' || v < 0 || v > INT_MAX ? -1 : (int)v;
}

/* A descriptor that an upgrade names, close-on-exec from now on; -1: it is not open. */
static int startup_fd(const char *value)
{
    int fd = startup_number(value);

    return fd >= 0 && stk_fd_set_cloexec(fd, true) == 0 ? fd : -1;
}

/* "MEMORY,STORE" */
static void startup_add_cache(struct stk_startup *s, const char *value)
{
    STK_CLEANUP(stk_mem_freep) char *copy = stk_mem_strdup(value);
    struct stk_cache_fds *more = stk_new0_array(struct stk_cache_fds, s->ncaches + 1);
    char *store = strchr(copy, ',');

    if (store != NULL)
        *store++ = '\0';
    if (s->ncaches > 0)
        memcpy(more, s->caches, s->ncaches * sizeof *more);
    more[s->ncaches++] = (struct stk_cache_fds){
        .memory = startup_fd(copy),
        .store = store != NULL ? startup_fd(store) : -1,
    };
    free(s->caches);
    s->caches = more;
}

static void startup_take_word(struct stk_startup *s, const char *word, pid_t *ret_to)
{
    const char *value = strchr(word, '=');

    if (value == NULL)
        return;
    value++;
    if (startup_is_named(word, "to"))
        *ret_to = startup_number(value);
    else if (startup_is_named(word, "from"))
        s->predecessor = startup_number(value);
    else if (startup_is_named(word, "control"))
        s->control = startup_fd(value);
    else if (startup_is_named(word, "pidfile"))
        s->pidfile = startup_fd(value);
    else if (startup_is_named(word, STK_STARTUP_TLS_TICKETS))
        s->tls_tickets = startup_fd(value);
    else if (startup_is_named(word, STK_STARTUP_TLS_FILES))
        s->tls_files = startup_fd(value);
    else if (startup_is_named(word, STK_STARTUP_CACHE))
        startup_add_cache(s, value);
    else if (startup_is_named(word, "socket") && stk_inherit_add_text(&s->sockets, value) < 0)
        s->predecessor = -1;
}

static int startup_take_upgrade(struct stk_startup *s, const char *text, char **ret_error)
{
    STK_CLEANUP(stk_mem_freep) char *copy = stk_mem_strdup(text);
    char *rest = copy;
    const char *word = strsep(&rest, " ");
    pid_t to = 0;

    if (strcmp(word, STK_STARTUP_UPGRADE_VERSION) != 0) {
        *ret_error = stk_mem_printf("stoker %s does not know how to take a server over that speaks "
                                    "version %s of the protocol: stop that one and start this one",
                                    STK_VERSION, word);
        return -EINVAL;
    }
    while ((word = strsep(&rest, " ")) != NULL)
        startup_take_word(s, word, &to);
    if (to == getpid() && s->predecessor > 0 && s->control >= 0)
        return 0;
    *ret_error =
        stk_mem_printf("the variable %s is not for this process: unset it", STK_STARTUP_UPGRADE);
    return -EINVAL;
}

int stk_startup_take(const char *program, struct stk_startup *ret_startup, char **ret_error)
{
    struct stk_startup s = {.control = -1, .pidfile = -1, .tls_tickets = -1, .tls_files = -1};
    const char *upgrade = getenv(STK_STARTUP_UPGRADE);
    const char *notify = getenv("NOTIFY_SOCKET");
    int r = 0;

    s.argv = startup_read_argv();
    s.environ = startup_copy_environ();
    s.cwd = startup_read_cwd();
    s.umask = startup_read_umask();
    if (s.argv != NULL)
        s.path = stk_mem_strdup(program != NULL && *program != '\0' ? program : "/proc/self/exe");
    if (notify != NULL && *notify != '\0')
        s.notify_socket = stk_mem_strdup(notify);
    startup_read_watchdog(&s);
    if (upgrade != NULL)
        r = startup_take_upgrade(&s, upgrade, ret_error);
    else if (stk_inherit_add_activated(&s.sockets, getenv("LISTEN_PID"), getenv("LISTEN_FDS"),
                                       getenv("LISTEN_FDNAMES")) < 0) {
        *ret_error = stk_mem_printf("LISTEN_FDS is \"%s\", which is no number of sockets",
                                    getenv("LISTEN_FDS"));
        r = -EINVAL;
    }
    for (size_t i = 0; stk_startup_variables[i] != NULL; i++)
        (void)unsetenv(stk_startup_variables[i]);
    if (r < 0) {
        stk_startup_deinit(&s);
        return r;
    }
    *ret_startup = s;
    return 0;
}

/*
 * The line of a traceback that says it: the first that is not indented behind the last that is; of
 * other texts the first line. *ret_len: its bytes.
 */
static const char *startup_last_words(const char *text, size_t *ret_len)
{
    const char *found = text;
    bool indented = true;

    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n"), line += *line != 0) {
        if (*line == '\n')
            continue;
        if (indented && *line != ' ')
            found = line;
        indented = *line == ' ';
    }
    *ret_len = strcspn(found, "\n");
    return found;
}

void stk_startup_tell(int control, const char *text)
{
    char words[STARTUP_WORDS_MAX];
    size_t len;
    const char *reason = startup_last_words(text, &len);
    int n = snprintf(words, sizeof words, "because %.*s",
                     (int)(len < sizeof words - 9 ? len : sizeof words - 9), reason);

    if (len > 0 && n > 0 && send(control, words, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        /* Its exit code says that it has failed. */
    }
}

/* The socket to the predecessor while nobody has taken it, else -1. */
static int startup_control(void)
{
    const char *text = getenv(STK_STARTUP_UPGRADE);
    const char *to = text != NULL ? strstr(text, " to=") : NULL;
    const char *control = text != NULL ? strstr(text, " control=") : NULL;

    if (to == NULL || control == NULL || strtol(to + 4, NULL, 10) != getpid())
        return -1;
    return (int)strtol(control + 9, NULL, 10);
}

void stk_startup_note_errors(void)
{
    if (startup_control() >= 0)
        stk_log_tee(memfd_create("errors", MFD_CLOEXEC));
}

void stk_startup_forget_errors(void)
{
    int fd = stk_log_tee_fd();

    stk_log_tee(-1);
    stk_fd_close(&fd);
}

void stk_startup_say_why(int control)
{
    int fd = stk_log_tee_fd();
    char *text;
    ssize_t n;

    if (control < 0)
        control = startup_control();
    if (fd < 0 || control < 0)
        return;
    text = stk_mem_zalloc(STARTUP_ERRORS_MAX + 1);
    n = pread(fd, text, STARTUP_ERRORS_MAX, 0);
    if (n > 0)
        stk_startup_tell(control, text);
    free(text);
    stk_startup_forget_errors();
}

static void startup_free_strings(char ***strings)
{
    for (char **p = *strings; p != NULL && *p != NULL; p++)
        free(*p);
    free(stk_steal(strings));
}

void stk_startup_deinit(struct stk_startup *startup)
{
    stk_inherit_deinit(&startup->sockets);
    if (startup->predecessor != 0) {
        stk_fd_close(&startup->control);
        stk_fd_close(&startup->pidfile);
        stk_fd_close(&startup->tls_tickets);
        stk_fd_close(&startup->tls_files);
    }
    for (size_t i = 0; i < startup->ncaches; i++) {
        stk_fd_close(&startup->caches[i].memory);
        stk_fd_close(&startup->caches[i].store);
    }
    free(stk_steal(&startup->caches));
    startup->ncaches = 0;
    startup_free_strings(&startup->argv);
    startup_free_strings(&startup->environ);
    free(stk_steal(&startup->notify_socket));
    free(stk_steal(&startup->path));
    free(stk_steal(&startup->cwd));
}
