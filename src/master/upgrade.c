/*
 * The hot upgrade: a new master, of whatever program and interpreter the command line leads to now,
 * takes the place of this one without a refused connection.
 *
 * The new master is a child that inherits the listening sockets of all slots, and one end of a
 * socket pair. Both accept for a while, which harms nobody. When all workers of the new one are
 * ready it says so, and only then the old one lets go: pidfile, service manager, socket files, in
 * that order, and then "go". From there it drains like on a stop. Whatever happens before (the new
 * one ends, hangs, cannot load the application, the old one is stopped) leaves the old one as it
 * was.
 *
 * The messages are words, because the ends may be of different versions:
 *   new to old   "ready"; "failed SENTENCE" (it could not even be executed); "because LINE" (why
 * it could not start, or not load the application); "successor PID" (it has handed over itself, to
 * be heard by a process 1 that waits for its end); "takes connections 1" old to new   "go";
 * "abort"; "connection served", "connection new": with a descriptor, if taken; "no more
 * connections", at their end; and what beside.c says of programs that have to end
 *
 * As process 1 the old master cannot go: it stays, serving nobody, passes signals on, and ends with
 * the exit code of the last successor.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "master/handoff.h"
#include "master/master_priv.h"
#include "master/startup.h"
#include "services/caches.h"

enum {
    UPGRADE_MESSAGE_MAX = 512,
    UPGRADE_KILL_AFTER_MS = 5000,  /* beyond its own time to stop */
    UPGRADE_READ_MS = 10000,       /* at least: the successor reads nothing, it hangs */
    UPGRADE_HEAR_AFTER_MS = 10000, /* beyond the time of the old server: it hangs */
};

/* How connections are carried, with the number of the way. */
#define UPGRADE_TAKES "takes connections 1"
#define UPGRADE_EMPTY "no more connections"

enum upgrade_state {
    UPGRADE_NONE,
    UPGRADE_STARTING,  /* the successor is not ready yet */
    UPGRADE_ABANDONED, /* it is to end, and has not yet */
    UPGRADE_HANDED,    /* it is the server now */
};

union upgrade_control {
    char buf[CMSG_SPACE(sizeof(int) * 4)]; /* what does not fit is closed by the kernel */
    struct cmsghdr align;
};

struct stk_upgrade {
    struct stk_master *master;

    /* as the old server */
    enum upgrade_state state;
    pid_t pid;                  /* the successor; 0: none */
    pid_t next;                 /* the successor's successor; 0: none */
    struct stk_source control;  /* to the successor */
    struct stk_timer timer;     /* of the state */
    char *failure;              /* what the successor has said */
    char *reason;               /* why the application could not be loaded there */
    bool takes;                 /* the successor takes connections in our way */
    bool lost;                  /* one could not be given to it; said once */
    bool emptied;               /* it was told that no more come */
    struct stk_handoff_out out; /* those that wait for room */
    stk_upgrade_fn done;
    void *done_arg;

    /* as the new server */
    struct stk_source predecessor;
    pid_t predecessor_pid;
    struct stk_handoff_in in;
    struct stk_timer hearing; /* of the predecessor, by a server that has been replaced itself */
    bool waiting;             /* the old one is still the server */
    bool told;                /* that all workers are ready */
    bool over;                /* no more connections come from the old one */
    bool wanted;              /* an upgrade, as soon as the old one has handed over */
};

static void upgrade_close(struct stk_upgrade *u, struct stk_source *source)
{
    if (source->fd < 0)
        return;
    stk_loop_del(u->master->loop, source);
    stk_fd_close(&source->fd);
}

/* A message to the other end; one that is gone is noticed elsewhere. */
static void upgrade_send(int fd, const char *text)
{
    if (fd >= 0 && send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
        errno != EPIPE && errno != ECONNRESET)
        stk_log_warning("the other server was not told \"%s\": %m", text);
}

/*
 * 1: a message, with a descriptor that is the caller's, or -1; 0: none is there; -1: the other end
 * is closed.
 */
static int upgrade_recv(int sock, char buf[UPGRADE_MESSAGE_MAX], int *ret_fd)
{
    struct iovec iov = {buf, UPGRADE_MESSAGE_MAX - 1};
    union upgrade_control control;
    struct msghdr hdr = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof control.buf};
    ssize_t n;

    *ret_fd = -1;
    do
        n = recvmsg(sock, &hdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n >= 0)
        (void)stk_fd_take(&hdr, ret_fd);
    if (n <= 0)
        stk_fd_close(ret_fd);
    buf[n > 0 ? n : 0] = '\0';
    return n > 0 ? 1 : -1;
}

static void upgrade_tell(struct stk_upgrade *u, int result, const char *sentence)
{
    stk_upgrade_fn done = u->done;

    u->done = NULL;
    if (done != NULL)
        done(u->done_arg, result, sentence);
}

/* --- the old server ----------------------------------------------------------------------------
 */

/* The upgrade is off: says why, and lets the successor go. `why` ends the sentence. */
static void upgrade_fail(struct stk_upgrade *u, const char *why)
{
    struct stk_master *m = u->master;
    STK_CLEANUP(stk_mem_freep)
    char *text = stk_mem_printf("the upgrade failed, because %s: this server goes on", why);

    stk_log_error("%s", text);
    u->state = u->pid != 0 ? UPGRADE_ABANDONED : UPGRADE_NONE;
    if (u->pid != 0) {
        upgrade_send(u->control.fd, "abort");
        stk_timer_set(m->loop, &u->timer,
                      m->config->graceful_timeout + m->config->exit_timeout +
                          UPGRADE_KILL_AFTER_MS);
    }
    if (m->stopping == 0)
        stk_notify_back(m, text);
    upgrade_tell(u, -ECANCELED, text);
}

static void upgrade_say_lost(struct stk_upgrade *u, const char *why)
{
    if (!u->lost)
        stk_log_warning("idle connections could not be given to the new server and were closed: %s",
                        why);
    u->lost = true;
}

static void upgrade_drop_carried(struct stk_upgrade *u, const char *why)
{
    if (stk_handoff_drop(&u->out) > 0)
        upgrade_say_lost(u, why);
}

/* For the successor to read what it is sent: as long as the workers here go on serving. */
static stk_msec upgrade_read_time(const struct stk_master *m)
{
    return m->config->graceful_timeout > UPGRADE_READ_MS ? m->config->graceful_timeout
                                                         : UPGRADE_READ_MS;
}

static void upgrade_on_timer(struct stk_timer *timer, void *who)
{
    struct stk_upgrade *u = stk_container_of(timer, struct stk_upgrade, timer);

    if (u->state == UPGRADE_STARTING) {
        STK_CLEANUP(stk_mem_freep)
        char *why = stk_mem_printf("the new server (%d) was not ready within %.1f s, the time of "
                                   "upgrade-timeout",
                                   (int)u->pid, (double)u->master->config->upgrade_timeout / 1000);

        upgrade_fail(u, why);
    } else if (u->state == UPGRADE_ABANDONED && u->pid != 0) {
        stk_log_warning("the new server (%d) does not end: it is killed", (int)u->pid);
        if (kill(u->pid, SIGKILL) < 0)
            stk_log_error("the new server (%d) cannot be killed: %m", (int)u->pid);
    } else if (u->state == UPGRADE_HANDED) {
        upgrade_drop_carried(u, "it takes none");
    }
}

/* The server before this one has had its time, and is still there. */
static void upgrade_on_hearing(struct stk_timer *timer, void *who)
{
    struct stk_upgrade *u = stk_container_of(timer, struct stk_upgrade, hearing);

    stk_log_warning("the old server (%d) does not end: its connections are not passed on any more",
                    (int)u->predecessor_pid);
    upgrade_close(u, &u->predecessor);
    stk_beside_hear(u->master, NULL);
}

static void upgrade_tell_successor(struct stk_master *m, const char *word)
{
    upgrade_send(m->upgrade->control.fd, word);
}

static void upgrade_hand_over(struct stk_upgrade *u)
{
    struct stk_master *m = u->master;
    STK_CLEANUP(stk_mem_freep)
    char *text =
        stk_mem_printf("the upgrade is complete: process %d is the server now", (int)u->pid);
    STK_CLEANUP(stk_mem_freep) char *next = stk_mem_printf("successor %d", (int)u->pid);

    u->state = UPGRADE_HANDED;
    stk_timer_stop(m->loop, &u->timer);
    stk_pidfile_hand_over(&m->pidfile, u->pid);
    stk_fifo_hand_over(m);
    stk_listen_set_own(&m->listeners, false);
    stk_listen_set_own(&m->stats_listeners, false);
    stk_notify_successor(m, u->pid);
    stk_beside_hand_over(m, upgrade_tell_successor);
    upgrade_send(u->control.fd, "go");
    upgrade_send(u->predecessor.fd, next);
    if (u->predecessor.fd >= 0 && getpid() != 1)
        stk_timer_set(m->loop, &u->hearing,
                      m->config->graceful_timeout + m->config->exit_timeout +
                          UPGRADE_HEAR_AFTER_MS);
    stk_log_info("%s, this one finishes what it has begun%s", text,
                 getpid() == 1 ? " and stays, as process 1, until that one ends" : "");
    upgrade_tell(u, 0, text);
    m->finishing = true;
    stk_master_stop(m, false);
}

/* Handles what the successor has said. */
static void upgrade_hear(struct stk_upgrade *u)
{
    char buf[UPGRADE_MESSAGE_MAX];
    int r = 0, fd = -1;

    while (u->control.fd >= 0 && (r = upgrade_recv(u->control.fd, buf, &fd)) > 0) {
        stk_fd_close(&fd); /* none is due on this way */
        if (strcmp(buf, "ready") == 0 && u->state == UPGRADE_STARTING)
            upgrade_hand_over(u);
        else if (strcmp(buf, UPGRADE_TAKES) == 0)
            u->takes = true;
        else if (strncmp(buf, "failed ", 7) == 0 && u->failure == NULL)
            u->failure = stk_mem_strdup(buf + 7);
        else if (strncmp(buf, "because ", 8) == 0 && u->reason == NULL)
            u->reason = stk_mem_strdup(buf + 8);
        else if (strncmp(buf, "successor ", 10) == 0)
            u->next = (pid_t)strtol(buf + 10, NULL, 10);
    }
    if (r < 0) { /* its end is heard of by waiting for it */
        upgrade_close(u, &u->control);
        upgrade_drop_carried(u, "it has ended");
    }
}

static void upgrade_on_control(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_upgrade *u = stk_container_of(src, struct stk_upgrade, control);

    upgrade_hear(u);
    if ((events & EPOLLOUT) == 0 || u->control.fd < 0)
        return;
    if (stk_handoff_flush(&u->out) < 0)
        upgrade_drop_carried(u, "it takes none");
    if (u->out.n > 0)
        stk_timer_set(u->master->loop, &u->timer, upgrade_read_time(u->master));
    else
        stk_timer_stop(u->master->loop, &u->timer);
}

/* Appends what the successor has to know of the sockets of a set; returns `text` or a longer one.
 */
static char *upgrade_add_sockets(char *text, const struct stk_listen_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        STK_CLEANUP(stk_mem_freep) char *group = stk_inherit_text(set, i);
        char *more;

        if (group == NULL)
            continue;
        more = stk_mem_printf("%s socket=%s", text, group);
        free(text);
        text = more;
    }
    return text;
}

/* The variable for the successor; `pid` is its process id. */
static char *upgrade_text(struct stk_master *m, pid_t from, int control)
{
    char *text = stk_mem_printf("%s=%s to=%d from=%d control=%d", STK_STARTUP_UPGRADE,
                                STK_STARTUP_UPGRADE_VERSION, (int)getpid(), (int)from, control);

    if (m->pidfile.path != NULL) {
        char *more = stk_mem_printf("%s pidfile=%d", text, m->pidfile.fd);

        free(text);
        text = more;
    }
    text = upgrade_add_sockets(text, &m->listeners);
    text = upgrade_add_sockets(text, &m->stats_listeners);
    return stk_master_hand_caches_over(m, stk_tls_hand_over(m, text));
}

static int upgrade_keep_set(const struct stk_listen_set *set)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < set->n; i++) {
        const struct stk_listener *l = set->items[i];

        for (unsigned s = 0; r == 0 && s < l->nslots; s++)
            if (l->slots[s] >= 0)
                r = stk_fd_set_cloexec(l->slots[s], false);
    }
    return r;
}

/* Leaves the descriptors open that the variable names. */
static int upgrade_keep_fds(struct stk_master *m, int control)
{
    int r = stk_fd_set_cloexec(control, false);

    if (r == 0 && m->pidfile.path != NULL)
        r = stk_fd_set_cloexec(m->pidfile.fd, false);
    if (r == 0)
        r = upgrade_keep_set(&m->listeners);
    return r == 0 ? upgrade_keep_set(&m->stats_listeners) : r;
}

STK_NORETURN static void upgrade_child_fail(int control, const char *what, int r)
{
    char text[UPGRADE_MESSAGE_MAX];

    (void)snprintf(text, sizeof text, "failed %s: %s", what, strerror(-r));
    if (send(control, text, strlen(text), MSG_NOSIGNAL) < 0) {
        /* The exit code says that it has failed. */
    }
    _exit(STK_MASTER_EXIT_CONFIG);
}

/* In the child: becomes the new server. */
STK_NORETURN static void upgrade_exec(struct stk_master *m, pid_t from, int control)
{
    const struct stk_startup *startup = m->params->startup;
    size_t n = 0;
    char **env;
    int r;

    if (startup->cwd != NULL && chdir(startup->cwd) < 0)
        upgrade_child_fail(control, startup->cwd, -errno);
    (void)umask(startup->umask);
    r = upgrade_keep_fds(m, control);
    if (r < 0)
        upgrade_child_fail(control, "the sockets cannot be passed on", r);
    while (startup->environ[n] != NULL)
        n++;
    env = stk_new0_array(char *, n + 2);
    for (size_t i = 0; i < n; i++)
        env[i] = startup->environ[i];
    env[n] = upgrade_text(m, from, control);
    stk_master_restore_signals(m);
    stk_logs_restore(m);
    execve(startup->path, startup->argv, env);
    upgrade_child_fail(control, startup->path, -errno);
}

static int upgrade_fork(struct stk_upgrade *u)
{
    struct stk_master *m = u->master;
    pid_t from = getpid();
    int fds[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    pid = fork();
    if (pid == 0)
        upgrade_exec(m, from, fds[1]);
    if (pid < 0) {
        int r = -errno;

        stk_fd_close(&fds[0]);
        stk_fd_close(&fds[1]);
        return r;
    }
    stk_fd_close(&fds[1]);
    u->pid = pid;
    u->state = UPGRADE_STARTING;
    u->control.fd = fds[0];
    stk_timer_set(m->loop, &u->timer, m->config->upgrade_timeout);
    if (stk_loop_add(m->loop, &u->control, EPOLLIN) < 0) {
        stk_fd_close(&u->control.fd);
        upgrade_fail(u, "its messages cannot be heard");
    }
    return 0;
}

int stk_upgrade_start(struct stk_master *m)
{
    struct stk_upgrade *u = m->upgrade;
    const struct stk_startup *startup = m->params->startup;
    int r;

    if (u->told && u->waiting && m->stopping == 0) {
        /* The pidfile names us already, and "go" is under way. */
        u->wanted = true;
        stk_log_info("an upgrade begins as soon as the old server (%d) has handed over",
                     (int)u->predecessor_pid);
        return 0;
    }
    if (m->stopping != 0 || !m->ever_ready || u->waiting) {
        stk_log_warning("no upgrade: the server is %s", m->stopping != 0 ? "stopping" : "starting");
        return -EBUSY;
    }
    if (u->state != UPGRADE_NONE) {
        stk_log_warning("no upgrade: one is under way already (process %d)", (int)u->pid);
        return -EALREADY;
    }
    if (startup == NULL || startup->path == NULL) {
        stk_log_error("no upgrade: the command line of this server could not be read at its start, "
                      "because /proc is not there");
        return -ENOTSUP;
    }
    u->next = 0;
    u->takes = u->lost = u->emptied = false;
    free(stk_steal(&u->failure));
    free(stk_steal(&u->reason));
    r = upgrade_fork(u);
    if (r < 0) {
        errno = -r;
        stk_log_error("no upgrade: a new server cannot be forked: %m");
        return r;
    }
    stk_log_info("an upgrade begins: the new server is process %d, this one goes on until that is "
                 "ready",
                 (int)u->pid);
    stk_notify_reloading(m, "upgrading: a new server loads the application");
    return 0;
}

void stk_upgrade_on_done(struct stk_master *m, stk_upgrade_fn fn, void *arg)
{
    m->upgrade->done = fn;
    m->upgrade->done_arg = arg;
}

void stk_upgrade_on_stop(struct stk_master *m)
{
    static const char *const why = "the server was told to stop";

    if (m->upgrade != NULL && m->upgrade->state == UPGRADE_STARTING)
        upgrade_fail(m->upgrade, why);
    else if (m->upgrade != NULL && m->upgrade->wanted)
        upgrade_tell(m->upgrade, -ECANCELED, why);
}

/* The successor for which this process has stayed is gone. */
static void upgrade_on_heir_gone(struct stk_upgrade *u, int status)
{
    struct stk_master *m = u->master;

    if (u->next != 0) {
        u->pid = u->next;
        u->next = 0;
        return;
    }
    u->state = UPGRADE_NONE;
    if (getpid() != 1)
        return;
    m->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    stk_log(m->exit_code == 0 ? STK_LOG_INFO : STK_LOG_ERROR,
            "the server has ended, so process 1 ends too, with exit code %d", m->exit_code);
}

/* Whether connections of the server before this one may still have to go to the one behind it. */
static bool upgrade_passes_on(const struct stk_upgrade *u)
{
    return u->state == UPGRADE_HANDED && u->master->stopping < 2 &&
           (u->in.n > 0 || (u->predecessor.fd >= 0 && !u->over));
}

void stk_upgrade_on_turn(struct stk_master *m)
{
    struct stk_upgrade *u = m->upgrade;

    if (u->state == UPGRADE_HANDED)
        stk_beside_tell(m, upgrade_tell_successor);
    if (u->state != UPGRADE_HANDED || u->emptied || !stk_list_is_empty(&u->master->procs) ||
        u->out.n > 0 || upgrade_passes_on(u))
        return;
    u->emptied = true;
    upgrade_send(u->control.fd, UPGRADE_EMPTY);
}

void stk_upgrade_reap(struct stk_master *m)
{
    struct stk_upgrade *u = m->upgrade;
    STK_CLEANUP(stk_mem_freep) char *why = NULL;
    int status = 0;
    pid_t pid;

    if (u == NULL || u->pid == 0 || waitpid(u->pid, &status, WNOHANG) != u->pid)
        return;
    upgrade_hear(u);
    pid = u->pid;
    u->pid = 0;
    stk_timer_stop(m->loop, &u->timer);
    upgrade_close(u, &u->control);
    if (u->state == UPGRADE_HANDED) {
        upgrade_on_heir_gone(u, status);
    } else if (u->state == UPGRADE_ABANDONED) {
        u->state = UPGRADE_NONE;
    } else if (u->failure != NULL) {
        why = stk_mem_printf("the new server could not be started (%s)", u->failure);
        upgrade_fail(u, why);
    } else {
        STK_CLEANUP(stk_mem_freep) char *how = stk_reap_describe(status);

        why = stk_mem_printf("the new server (%d) %s before it was ready%s%s%s", (int)pid, how,
                             u->reason != NULL ? " (" : "", u->reason != NULL ? u->reason : "",
                             u->reason != NULL ? ")" : "");
        upgrade_fail(u, why);
    }
}

bool stk_upgrade_is_ours(const struct stk_master *m, pid_t pid)
{
    return m->upgrade != NULL && (m->upgrade->pid == pid || m->upgrade->next == pid);
}

bool stk_upgrade_holds(const struct stk_master *m)
{
    const struct stk_upgrade *u = m->upgrade;

    if (upgrade_passes_on(u))
        return true;
    return (u->state == UPGRADE_HANDED && (getpid() == 1 || u->out.n > 0)) ||
           u->state == UPGRADE_ABANDONED;
}

bool stk_upgrade_forward(struct stk_master *m, uint32_t number)
{
    struct stk_upgrade *u = m->upgrade;
    pid_t heir;

    if (u->state != UPGRADE_HANDED || getpid() != 1 || u->pid == 0)
        return false;
    upgrade_hear(u); /* the successor may have one itself meanwhile */
    heir = u->next != 0 ? u->next : u->pid;
    if (kill(heir, (int)number) < 0)
        stk_log_warning("a signal cannot be passed on to process %d: %m", (int)heir);
    return true;
}

void stk_upgrade_carry(struct stk_master *m, int fd, bool served)
{
    struct stk_upgrade *u = m->upgrade;
    int r = -ENOTCONN;

    if (fd < 0)
        return;
    if (u->state == UPGRADE_HANDED && u->control.fd >= 0)
        r = stk_handoff_give(&u->out, fd, served);
    if (r < 0)
        upgrade_say_lost(u, strerror(-r));
    else if (u->out.n > 0 && !stk_timer_is_set(&u->timer))
        stk_timer_set(m->loop, &u->timer, upgrade_read_time(m));
}

bool stk_upgrade_is_full(const struct stk_master *m)
{
    return m->upgrade->out.paused;
}

unsigned stk_upgrade_drain_kind(const struct stk_master *m)
{
    if (m->upgrade->state == UPGRADE_HANDED && m->upgrade->takes)
        return STK_CHANNEL_DRAIN_CARRY;
    if (m->upgrade->state == UPGRADE_HANDED || m->upgrade->waiting)
        return STK_CHANNEL_DRAIN_UPGRADED;
    return m->stopping != 0 ? STK_CHANNEL_DRAIN_LAST : STK_CHANNEL_DRAIN_SUCCESSOR;
}

/* --- the new server ----------------------------------------------------------------------------
 */

/* Removes the files of sockets that the old server had and this one has not. */
static void upgrade_remove_files(const struct stk_inherit *sockets)
{
    for (size_t i = 0; i < sockets->n; i++) {
        const struct stk_inherit_group *group = &sockets->groups[i];
        STK_CLEANUP(stk_mem_freep) char *text = NULL;
        struct stat st;

        if (group->taken || stk_inherit_is_fd(group) || group->addr.ss.ss_family != AF_UNIX)
            continue;
        text = stk_addr_text(&group->addr);
        if (text[5] == '@' || lstat(text + 5, &st) < 0 || !S_ISSOCK(st.st_mode))
            continue;
        if (unlink(text + 5) < 0)
            stk_log_warning("%s, which is served no longer, cannot be removed: %m", text);
    }
}

static void upgrade_take_over(struct stk_upgrade *u, bool handed)
{
    struct stk_master *m = u->master;

    u->waiting = false;
    stk_fifo_take(m);
    stk_listen_set_own(&m->listeners, true);
    stk_listen_set_own(&m->stats_listeners, true);
    upgrade_remove_files(&m->params->startup->sockets);
    stk_inherit_deinit(&m->params->startup->sockets);
    if (handed) {
        stk_log_info("this server has taken over from process %d", (int)u->predecessor_pid);
    } else {
        stk_log_warning("the old server (%d) ended before it handed over: this one takes its place",
                        (int)u->predecessor_pid);
        stk_pidfile_hand_over(&m->pidfile, getpid());
    }
    stk_beside_take_over(m);
    stk_caches_take_place(m->caches);
    stk_master_reopen_logs(m); /* who renamed them meanwhile has told the old server */
    if (u->told)
        stk_notify_ready(m);
    if (u->wanted) {
        int r;

        u->wanted = false;
        r = stk_upgrade_start(m);
        if (r < 0)
            upgrade_tell(u, r, "the new server could not be started");
    }
}

static void upgrade_on_predecessor(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_upgrade *u = stk_container_of(src, struct stk_upgrade, predecessor);
    struct stk_master *m = u->master;
    char buf[UPGRADE_MESSAGE_MAX];
    int r = 0, fd;

    while (!stk_handoff_is_blocked(&u->in) && (r = upgrade_recv(src->fd, buf, &fd)) > 0) {
        if (fd >= 0) {
            stk_handoff_place(&u->in, fd, strcmp(buf, "connection served") == 0);
        } else if (strcmp(buf, "go") == 0 && u->waiting) {
            upgrade_take_over(u, true);
        } else if (strcmp(buf, UPGRADE_EMPTY) == 0) {
            u->over = true;
        } else if (strcmp(buf, "abort") == 0 && u->waiting && m->stopping == 0) {
            stk_log_warning("the old server (%d) goes on: this one ends", (int)u->predecessor_pid);
            stk_master_stop(m, false);
        } else {
            stk_beside_hear(m, buf);
        }
    }
    if (r >= 0)
        return;
    upgrade_close(u, src);
    stk_beside_hear(m, NULL);
    if (u->waiting && m->stopping == 0)
        upgrade_take_over(u, false);
}

bool stk_upgrade_is_server(const struct stk_master *m)
{
    return m->upgrade == NULL || (m->upgrade->state != UPGRADE_HANDED && !m->upgrade->waiting);
}

bool stk_upgrade_is_waiting(const struct stk_master *m)
{
    return m->upgrade != NULL && m->upgrade->waiting;
}

void stk_upgrade_on_ready(struct stk_master *m)
{
    struct stk_upgrade *u = m->upgrade;

    if (u->told || u->predecessor.fd < 0)
        return;
    u->told = true;
    stk_startup_forget_errors();
    upgrade_send(u->predecessor.fd, UPGRADE_TAKES);
    upgrade_send(u->predecessor.fd, "ready");
}

void stk_upgrade_on_load_failed(struct stk_master *m, const char *text)
{
    struct stk_upgrade *u = m->upgrade;

    if (u != NULL && u->waiting && !u->told)
        stk_startup_tell(u->predecessor.fd, text);
}

void stk_upgrade_say_why(struct stk_master *m)
{
    const struct stk_upgrade *u = m->upgrade;

    if (u != NULL && u->waiting && !u->told)
        stk_startup_say_why(u->predecessor.fd);
}

int stk_upgrade_init(struct stk_master *m)
{
    struct stk_upgrade *u = stk_new0(struct stk_upgrade);
    struct stk_startup *startup = m->params->startup;

    u->master = m;
    u->control = (struct stk_source){.fn = upgrade_on_control, .fd = -1};
    u->predecessor = (struct stk_source){.fn = upgrade_on_predecessor, .fd = -1};
    stk_timer_init(&u->timer, upgrade_on_timer);
    stk_timer_init(&u->hearing, upgrade_on_hearing);
    stk_handoff_out_init(&u->out, m, &u->control);
    stk_handoff_in_init(&u->in, m, &u->predecessor);
    m->upgrade = u;
    if (startup == NULL || startup->predecessor <= 0)
        return 0;
    u->predecessor.fd = stk_fd_steal(&startup->control);
    u->predecessor_pid = startup->predecessor;
    u->waiting = true;
    return stk_loop_add(m->loop, &u->predecessor, EPOLLIN);
}

void stk_upgrade_free(struct stk_master *m)
{
    struct stk_upgrade *u = m->upgrade;

    if (u == NULL)
        return;
    stk_timer_stop(m->loop, &u->timer);
    stk_timer_stop(m->loop, &u->hearing);
    (void)stk_handoff_drop(&u->out);
    stk_handoff_in_deinit(&u->in);
    upgrade_close(u, &u->control);
    upgrade_close(u, &u->predecessor);
    m->upgrade = NULL;
    free(u->failure);
    free(u->reason);
    free(u);
}

void stk_upgrade_close(struct stk_master *m)
{
    struct stk_startup *startup = m->params->startup;

    if (m->upgrade != NULL) {
        stk_handoff_leave(&m->upgrade->out, &m->upgrade->in);
        stk_fd_close(&m->upgrade->control.fd);
        stk_fd_close(&m->upgrade->predecessor.fd);
    }
    if (startup != NULL)
        stk_inherit_deinit(&startup->sockets);
}
