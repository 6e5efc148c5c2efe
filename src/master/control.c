/*
 * The control socket: its clients, lines in and lines out.
 *
 * It lives in the one process that must never crash or wait, so everything a client can use up is
 * bounded: their number (who is idle longest makes room), the length of a request, the time for
 * half a request and for an answer that is not read. Answers are kept in memory until the client
 * takes them; the next request is looked at when the last is answered, so that nobody piles up
 * answers. There is nothing periodic: timers exist only while a client is in the middle of
 * something.
 *
 * A client is its owner or root: the file's mode says so, and the credentials of the connection
 * are asked besides, for modes can be changed.
 */
#include "master/control.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "master/master_priv.h"

enum {
    CONTROL_STALL_MS = 10000, /* for the rest of a request, and for reading an answer */
    CONTROL_RETRY_MS = 1000,  /* until accepting is tried again when descriptors ran out */
    CONTROL_ACCEPTS = 16,     /* in one turn */
};

static void control_on_client(struct stk_source *src, uint32_t events, void *who);

/* --- one client ------------------------------------------------------------------------------ */

static void control_client_free(struct stk_deferred *deferred)
{
    struct stk_control_client *c = stk_container_of(deferred, struct stk_control_client, deferred);

    c->magic = 0;
    free(c);
}

/* Closes it; its memory stays until the turn is over. */
static void control_drop(struct stk_control_client *c)
{
    struct stk_control *control = c->control;
    struct stk_loop *loop = control->master->loop;

    STK_CHECK_MAGIC(c, STK_CONTROL_CLIENT_MAGIC);
    if (c->src.fd < 0)
        return;
    stk_control_unwait(c);
    stk_loop_del(loop, &c->src);
    stk_fd_close(&c->src.fd);
    stk_timer_stop(loop, &c->timer);
    stk_list_remove(&c->link);
    control->nclients--;
    free(stk_steal(&c->out));
    stk_loop_defer(loop, &c->deferred);
}

/* Asks for the events, and for the time, that fit what the client is in the middle of. */
static void control_arm(struct stk_control_client *c)
{
    struct stk_loop *loop = c->control->master->loop;
    /* While it waits for something only its end is heard of, which no mask can leave out. */
    uint32_t events = c->out != NULL                     ? EPOLLOUT
                      : c->wait != STK_CONTROL_WAIT_NONE ? EPOLLPRI
                      : c->eof                           ? EPOLLPRI
                                                         : EPOLLIN;

    if (c->src.events != events && stk_loop_mod(loop, &c->src, events) < 0) {
        control_drop(c);
        return;
    }
    if (c->out != NULL || (c->wait == STK_CONTROL_WAIT_NONE && c->nin > 0))
        stk_timer_set(loop, &c->timer, CONTROL_STALL_MS);
    else if (c->wait != STK_CONTROL_WAIT_STACK)
        stk_timer_stop(loop, &c->timer);
}

/* Sends what it takes. False when it was dropped. */
static bool control_flush(struct stk_control_client *c)
{
    while (c->out != NULL) {
        ssize_t n = send(c->src.fd, c->out + c->sent, c->nout - c->sent, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n < 0) {
            control_drop(c);
            return false;
        }
        c->sent += (size_t)n;
        if (c->sent == c->nout) {
            free(stk_steal(&c->out));
            c->nout = c->sent = 0;
        }
    }
    if (!c->closing)
        return true;
    control_drop(c);
    return false;
}

void stk_control_answer(struct stk_control_client *c, struct stk_json *j)
{
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    size_t len = 0;

    STK_ASSERT(c->out == NULL);
    if (stk_json_end(j, &text, &len) < 0) {
        c->closing = true; /* no memory for an answer */
        return;
    }
    text[len] = '\n'; /* in place of the NUL */
    c->out = stk_steal(&text);
    c->nout = len + 1;
    c->sent = 0;
}

void stk_control_answer_ok(struct stk_control_client *c, const char *text)
{
    struct stk_json j = {0};

    stk_json_object_begin(&j);
    stk_json_put_bool(&j, "ok", true);
    if (text != NULL)
        stk_json_put_string(&j, "text", text);
    stk_json_object_end(&j);
    stk_control_answer(c, &j);
}

void stk_control_answer_error(struct stk_control_client *c, const char *fmt, ...)
{
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    struct stk_json j = {0};
    va_list ap;

    va_start(ap, fmt);
    STK_ASSERT(vasprintf(&text, fmt, ap) >= 0);
    va_end(ap);
    stk_json_object_begin(&j);
    stk_json_put_bool(&j, "ok", false);
    stk_json_put_string(&j, "error", text);
    stk_json_object_end(&j);
    stk_control_answer(c, &j);
}

static bool control_is_blank(const char *line, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

/* Takes the next line out of what has arrived. False: there is none. */
static bool control_take_line(struct stk_control_client *c, char *line, size_t *ret_len)
{
    const char *end = memchr(c->in, '\n', c->nin);
    size_t len = end != NULL ? (size_t)(end - c->in) : c->nin;
    size_t taken = end != NULL ? len + 1 : len;

    if (end == NULL && !(c->eof && c->nin > 0))
        return false;
    memcpy(line, c->in, len);
    memmove(c->in, c->in + taken, c->nin - taken);
    c->nin -= taken;
    *ret_len = len;
    return true;
}

/* Carries out what has arrived, one by one, as far as the answers are taken. */
static void control_advance(struct stk_control_client *c)
{
    char line[STK_CONTROL_LINE];
    size_t len;

    if (!control_flush(c))
        return;
    while (c->out == NULL && c->wait == STK_CONTROL_WAIT_NONE && !c->closing &&
           control_take_line(c, line, &len)) {
        if (control_is_blank(line, len))
            continue;
        stk_control_run(c, line, len);
        if (!control_flush(c))
            return;
    }
    if (c->eof && c->out == NULL && c->wait == STK_CONTROL_WAIT_NONE) {
        control_drop(c);
        return;
    }
    if (c->nin == sizeof c->in && c->out == NULL && c->wait == STK_CONTROL_WAIT_NONE) {
        c->closing = true;
        stk_control_answer_error(c, "a request has at most %d bytes in one line",
                                 STK_CONTROL_LINE - 1);
        c->nin = 0;
        if (!control_flush(c))
            return;
    }
    control_arm(c);
}

static void control_receive(struct stk_control_client *c)
{
    ssize_t n;

    do
        n = recv(c->src.fd, c->in + c->nin, sizeof c->in - c->nin, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0) {
        control_drop(c);
        return;
    }
    c->active = stk_loop_now(c->control->master->loop);
    c->eof = n == 0;
    c->nin += (size_t)n;
    control_advance(c);
}

static void control_on_client(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_control_client *c = stk_container_of(src, struct stk_control_client, src);

    STK_CHECK_MAGIC(c, STK_CONTROL_CLIENT_MAGIC);
    if ((events & EPOLLERR) != 0 || ((events & EPOLLHUP) != 0 && (events & EPOLLIN) == 0))
        control_drop(c); /* nobody is there any more to be answered */
    else if (c->out != NULL)
        control_advance(c);
    else if (c->wait == STK_CONTROL_WAIT_NONE)
        control_receive(c);
}

static void control_on_timer(struct stk_timer *timer, void *who)
{
    struct stk_control_client *c = stk_container_of(timer, struct stk_control_client, timer);

    STK_CHECK_MAGIC(c, STK_CONTROL_CLIENT_MAGIC);
    if (c->out != NULL) {
        control_drop(c); /* it does not read */
    } else if (c->wait == STK_CONTROL_WAIT_STACK) {
        stk_control_give_up(c);
        control_advance(c);
    } else {
        c->closing = true;
        c->nin = 0;
        stk_control_answer_error(c, "the end of the request did not come within %d s",
                                 CONTROL_STALL_MS / 1000);
        control_advance(c);
    }
}

/* --- the socket ------------------------------------------------------------------------------ */

/* Makes room: the client that is idle longest, and waits for nothing, goes. */
static void control_make_room(struct stk_control *control)
{
    struct stk_control_client *oldest = NULL;

    stk_list_for_each (it, &control->clients) {
        struct stk_control_client *c = stk_container_of(it, struct stk_control_client, link);

        if (c->wait == STK_CONTROL_WAIT_NONE && (oldest == NULL || c->active < oldest->active))
            oldest = c;
    }
    if (oldest != NULL)
        control_drop(oldest);
}

static void control_add(struct stk_control *control, int fd)
{
    struct stk_loop *loop = control->master->loop;
    struct stk_control_client *c;
    struct ucred cred = {.uid = (uid_t)-1};
    socklen_t len = sizeof cred;

    if (control->nclients == STK_CONTROL_CLIENTS)
        control_make_room(control);
    if (control->nclients == STK_CONTROL_CLIENTS) { /* all wait for the end of a long command */
        stk_fd_close(&fd);
        return;
    }
    c = stk_new0(struct stk_control_client);
    c->magic = STK_CONTROL_CLIENT_MAGIC;
    c->control = control;
    c->deferred.free_fn = control_client_free;
    c->src = (struct stk_source){.fn = control_on_client, .fd = fd};
    c->pipe.fd = -1;
    c->active = stk_loop_now(loop);
    stk_timer_init(&c->timer, control_on_timer);
    if (stk_loop_add(loop, &c->src, EPOLLIN) < 0) {
        stk_fd_close(&fd);
        free(c);
        return;
    }
    stk_list_init(&c->link);
    stk_list_append(&control->clients, &c->link);
    control->nclients++;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
        c->pid = cred.pid;
        c->uid = cred.uid;
    }
    if (cred.uid != 0 && cred.uid != geteuid()) {
        stk_log_warning("control: process %d of user %u was refused", (int)c->pid,
                        (unsigned)cred.uid);
        c->closing = true;
        stk_control_answer_error(c, "only user %u, who runs the server, and root may do that",
                                 (unsigned)geteuid());
        control_advance(c);
    }
}

static void control_on_listener(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_control *control = stk_container_of(src, struct stk_control, listener);

    STK_CHECK_MAGIC(control, STK_CONTROL_MAGIC);
    for (int i = 0; i < CONTROL_ACCEPTS; i++) {
        int fd = accept4(src->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            control_add(control, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno == EAGAIN)
            return;
        /* Out of descriptors or memory: the queue waits, or the loop would spin. */
        stk_log_warning("control: a connection cannot be accepted: %m");
        stk_loop_del(control->master->loop, src);
        stk_timer_set(control->master->loop, &control->retry, CONTROL_RETRY_MS);
        return;
    }
}

static void control_on_retry(struct stk_timer *timer, void *who)
{
    struct stk_control *control = stk_container_of(timer, struct stk_control, retry);

    if (stk_loop_add(control->master->loop, &control->listener, EPOLLIN) < 0)
        stk_timer_set(control->master->loop, timer, CONTROL_RETRY_MS);
}

static bool control_is_off(const char *value)
{
    return value == NULL || *value == '\0' || strcmp(value, "off") == 0;
}

/* Binds, and listens. 0, or an exit code, the reason logged. */
static int control_listen(struct stk_control *control, bool replace)
{
    const char *value = control->master->config->control;
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    struct stat st = {0};
    int fd = -1;

    if (stk_control_bind(value, replace, &fd, &control->path, &error) < 0) {
        if (strcmp(value, "auto") != 0) {
            stk_log_critical("the control socket: %s", error);
            return STK_MASTER_EXIT_CONFIG;
        }
        stk_log_warning("there is no control socket: %s; name a place by --control", error);
        return 0;
    }
    if (stat(control->path, &st) < 0) {
        /* Removed already; then there is nothing to remove at the end. */
    }
    control->dev = st.st_dev;
    control->ino = st.st_ino;
    control->listener.fd = fd;
    if (stk_loop_add(control->master->loop, &control->listener, EPOLLIN) < 0) {
        stk_log_critical("the control socket cannot be watched: %m");
        return STK_MASTER_EXIT_CONFIG;
    }
    stk_log_debug("the control socket is %s", control->path);
    return 0;
}

int stk_control_open(struct stk_master *m)
{
    struct stk_control *control;

    if (control_is_off(m->config->control))
        return 0;
    control = stk_new0(struct stk_control);
    control->magic = STK_CONTROL_MAGIC;
    control->master = m;
    control->listener = (struct stk_source){.fn = control_on_listener, .fd = -1};
    stk_timer_init(&control->retry, control_on_retry);
    stk_list_init(&control->clients);
    m->control = control;
    /* Until it has taken over, the commands are for the old server. */
    control->waits = stk_upgrade_is_waiting(m);
    return control->waits ? 0 : control_listen(control, false);
}

void stk_control_close(struct stk_master *m)
{
    struct stk_control *control = m->control;
    struct stat st;

    if (control == NULL)
        return;
    STK_CHECK_MAGIC(control, STK_CONTROL_MAGIC);
    stk_list_for_each_safe (it, &control->clients) {
        struct stk_control_client *c = stk_container_of(it, struct stk_control_client, link);

        if (c->wait != STK_CONTROL_WAIT_NONE) {
            stk_control_finish(c);
            c->closing = true;
            if (!control_flush(c))
                continue;
        }
        control_drop(c);
    }
    stk_timer_stop(m->loop, &control->retry);
    stk_loop_del(m->loop, &control->listener);
    stk_fd_close(&control->listener.fd);
    if (control->path != NULL && lstat(control->path, &st) == 0 && st.st_dev == control->dev &&
        st.st_ino == control->ino && unlink(control->path) < 0) {
        /* A leftover does no harm: the next start replaces it. */
    }
    free(control->path);
    control->magic = 0;
    free(control);
    m->control = NULL;
}

void stk_control_forget(struct stk_master *m)
{
    struct stk_control *control = m->control;

    if (control == NULL)
        return;
    /* Closing is all: the epoll set is shared with the master. */
    stk_fd_close(&control->listener.fd);
    stk_list_for_each (it, &control->clients) {
        struct stk_control_client *c = stk_container_of(it, struct stk_control_client, link);

        stk_fd_close(&c->src.fd);
        stk_fd_close(&c->pipe.fd);
    }
}

void stk_control_settle(struct stk_master *m)
{
    struct stk_control *control = m->control;

    if (control == NULL)
        return;
    if (control->waits && !stk_upgrade_is_waiting(m)) {
        control->waits = false;
        if (control_listen(control, true) != 0) {
            /* It serves, and is not ended for this. */
        }
    }
    if (control->nwaiting == 0)
        return;
    stk_list_for_each_safe (it, &control->clients) {
        struct stk_control_client *c = stk_container_of(it, struct stk_control_client, link);

        if (c->wait == STK_CONTROL_WAIT_NONE)
            continue;
        stk_control_check(c);
        if (c->wait == STK_CONTROL_WAIT_NONE)
            control_advance(c);
    }
}
