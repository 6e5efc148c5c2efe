/*
 * The stand-by's look at the threads of the application. On its ticks it notes which call each is
 * in; that costs a load a thread. A call that lasts gets a closer look when something is due: its
 * name for the scoreboard, its deadline, its client. So the times of short calls are never taken.
 *
 * The stand-by sleeps while another thread waits in epoll. For calls that last beyond that there is
 * a timer in the loop: whoever turns it rouses the stand-by. It runs only while something is due.
 *
 * A deadline counts from when the request could have been called: so requests that wait for a
 * thread have one too, and are answered without having been called.
 */
#include "serve/deadline.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "serve/conn.h"
#include "serve/conn_io.h"
#include "serve/detach.h"
#include "serve/fcgi.h"
#include "serve/http1.h"
#include "serve/router.h"

enum {
    DEADLINE_NAME_MS = 100, /* a request is named after this */
    DEADLINE_LOOK_MS = 100, /* between two looks at what may change at any time */
    DEADLINE_STACK_MAX = 48 * 1024,
    DEADLINE_SHOWN = 200, /* bytes of a target in the log */
    /* commands of membarrier(2), whose header is newer than some systems */
    DEADLINE_BARRIER = 8,
    DEADLINE_REGISTER = 16,
};

#define DEADLINE_NEVER INT64_MAX

/* How far it has come with a call. */
enum watch_stage {
    WATCH_CALM,
    WATCH_LEFT,    /* cancelled because the client has left */
    WATCH_EXPIRED, /* cancelled at its deadline */
    WATCH_STUCK,   /* and does not come back */
};

/* The stand-by's notes on a thread. Times are monotonic milliseconds. */
struct deadline_watch {
    uint64_t calls; /* of stk_lead_thread: which call this is about; 0: none */
    uint64_t id;
    stk_msec since, due, look;
    stk_msec cancelled_at;
    uint8_t stage;
    bool known; /* the request has been looked at */
    bool again; /* it has been cancelled a second time */
};

struct stk_deadline {
    struct stk_server *server;
    struct stk_source timer;
    struct stk_timer expected; /* a call that the stand-by has not seen; of the owner of the loop */
    stk_msec armed;            /* when the timer fires; 0: it does not */
    _Atomic bool changed;      /* a thread has set the deadline of its request */
    bool retired;              /* the worker has asked to be replaced after a cancelled call ... */
    bool retired_stuck;        /* ... and after one that stays */
    uint64_t stuck;            /* calls that stay */
    unsigned nwatches;
    struct deadline_watch watches[];
};

static stk_msec deadline_now(void)
{
    return stk_time_mono_ns() / STK_NSEC_PER_MSEC;
}

static stk_msec deadline_earlier(stk_msec a, stk_msec b)
{
    return a < b ? a : b;
}

/* ---- the request's own thread -------------------------------------------------------------- */

void stk_deadline_clear_name(struct stk_scoreboard_row *row, unsigned place)
{
    struct stk_scoreboard_request *r;
    uint32_t seq;

    if (place == 0)
        return;
    r = &row->running[place - 1];
    seq = atomic_load_explicit(&r->seq, memory_order_relaxed);
    /* An exchange, not a store behind which a fence stands: the thread sanitizer knows no fences.
     */
    (void)atomic_exchange_explicit(&r->seq, seq + 1, memory_order_acq_rel);
    __atomic_store_n(&r->started_ns, 0, __ATOMIC_RELAXED);
    atomic_store_explicit(&r->seq, seq + 2, memory_order_release);
}

STK_COLD enum stk_fate stk_deadline_end_slow(struct stk_serve_request *rq)
{
    struct stk_serve_thread *t = rq->t;
    enum stk_fate fate;

    pthread_mutex_lock(&t->interfere_mutex);
    stk_deadline_clear_name(t->server->row, t->named);
    t->named = 0;
    atomic_store_explicit(&t->interfere,
                          atomic_load_explicit(&t->interfere, memory_order_relaxed) &
                              STK_INTERFERE_ALWAYS,
                          memory_order_relaxed);
    fate = (enum stk_fate)rq->fate;
    pthread_mutex_unlock(&t->interfere_mutex);
    return fate;
}

STK_COLD bool stk_deadline_lock(struct stk_serve_request *rq)
{
    pthread_mutex_lock(&rq->t->interfere_mutex);
    if (rq->fate == STK_FATE_NONE)
        return true;
    pthread_mutex_unlock(&rq->t->interfere_mutex);
    return false;
}

STK_COLD void stk_deadline_unlock(struct stk_serve_request *rq)
{
    pthread_mutex_unlock(&rq->t->interfere_mutex);
}

STK_COLD bool stk_deadline_commit_slow(struct stk_serve_request *rq)
{
    if (!stk_deadline_lock(rq))
        return false;
    stk_deadline_unlock(rq);
    return true;
}

int stk_deadline_set_timeout(struct stk_serve_request *rq, stk_msec timeout)
{
    struct stk_deadline *d = rq->t->server->deadline;

    if (d == NULL)
        return -ENOTSUP;
    __atomic_store_n(&rq->due, timeout > 0 ? deadline_now() + timeout : DEADLINE_NEVER,
                     __ATOMIC_RELAXED);
    atomic_store(&d->changed, true);
    stk_lead_rouse(d->server->lead);
    return 0;
}

/* Nobody has to be roused: the first look at its call is early enough for each rule
 * (deadline_look). */
void stk_deadline_prepare(struct stk_serve_request *rq, stk_msec timeout)
{
    __atomic_store_n(&rq->due, timeout > 0 ? deadline_now() + timeout : DEADLINE_NEVER,
                     __ATOMIC_RELAXED);
}

/* ---- the scoreboard ------------------------------------------------------------------------ */

/* A free place among the row's names; 0: there is none, else its number from 1 on. */
static unsigned deadline_place(const struct stk_scoreboard_row *row)
{
    for (unsigned i = 0; i < STK_SCOREBOARD_RUNNING; i++) {
        if (__atomic_load_n(&row->running[i].started_ns, __ATOMIC_RELAXED) == 0)
            return i + 1;
    }
    return 0;
}

/* Copies what is printable; the rest of the field is zeroed. */
static void deadline_copy(char *to, size_t size, stk_span from)
{
    for (size_t i = 0; i < size; i++) {
        char c = i < from.len ? from.ptr[i] : '\0';

        to[i] = i >= from.len ? '\0' : c > ' ' && c < 0x7f ? c : '?';
    }
}

unsigned stk_deadline_name(struct stk_scoreboard_row *row, const struct stk_serve_request *rq,
                           uint32_t thread, stk_nsec since)
{
    unsigned place = deadline_place(row);
    struct stk_scoreboard_request *r;
    uint32_t seq;

    if (place == 0)
        return 0;
    r = &row->running[place - 1];
    seq = atomic_load_explicit(&r->seq, memory_order_relaxed);
    /* An exchange, not a store behind which a fence stands: the thread sanitizer knows no fences.
     */
    (void)atomic_exchange_explicit(&r->seq, seq + 1, memory_order_acq_rel);
    r->thread = thread;
    r->id = rq->base.id;
    deadline_copy(r->method, sizeof r->method, stk_head_method(rq->base.head));
    deadline_copy(r->target, sizeof r->target, stk_head_path(rq->base.head));
    __atomic_store_n(&r->started_ns, (uint64_t)since, __ATOMIC_RELAXED);
    atomic_store_explicit(&r->seq, seq + 2, memory_order_release);
    return place;
}

/* ---- at the deadline ----------------------------------------------------------------------- */

/* "GET /path": at most `size` bytes with the NUL. */
static void deadline_describe(const struct stk_serve_request *rq, char *text, size_t size)
{
    stk_span method = stk_head_method(rq->base.head);
    stk_span target = stk_head_target(rq->base.head);

    snprintf(text, size, "%.*s %.*s%s", (int)(method.len < 32 ? method.len : 32), method.ptr,
             (int)(target.len < DEADLINE_SHOWN ? target.len : DEADLINE_SHOWN), target.ptr,
             target.len > DEADLINE_SHOWN ? "..." : "");
}

static void deadline_describe_client(const struct stk_serve_request *rq, char *text, size_t size)
{
    const struct stk_peer *peer = &rq->base.peer;

    if (peer->addr_len == 0)
        snprintf(text, size, "of a unix socket");
    else if (peer->port == 0)
        snprintf(text, size, "%.*s", peer->addr_len, peer->addr);
    else
        snprintf(text, size, "%.*s:%u", peer->addr_len, peer->addr, peer->port);
}

/*
 * Ends the connection while its thread may be sending on it. Where the end of the connection would
 * be the end of a body that has begun it is reset, so that nobody takes the part for the whole.
 */
void stk_deadline_cut(const struct stk_serve_request *rq, bool begun)
{
    int fd = rq->conn->src.fd;
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};

    if (begun && !rq->has_length && !rq->chunked && !rq->no_body &&
        connect(fd, &nobody, sizeof nobody) == 0)
        return;
    if (shutdown(fd, SHUT_RDWR) < 0) {
        /* ENOTCONN: it has ended already. */
    }
}

/* Sends what its thread had gathered for earlier requests of the connection. */
static int deadline_send_gathered(struct stk_serve_thread *t, struct stk_conn *conn)
{
    int r = 0;

    pthread_mutex_lock(&t->gather_mutex);
    if (t->gathering && t->gather_conn == conn && t->gather_sent < t->gather_len) {
        struct iovec iov = {t->out.buf + t->gather_sent, t->gather_len - t->gather_sent};

        r = stk_conn_send(conn, &iov, 1);
        if (r == 0)
            t->gather_sent = t->gather_len;
        else
            t->gather_blocked = true;
    }
    pthread_mutex_unlock(&t->gather_mutex);
    return r;
}

/* In the place of the application. Mutex held. */
void stk_deadline_answer(struct stk_serve_thread *t, struct stk_serve_request *rq)
{
    struct stk_conn *conn = rq->conn;
    struct stk_serve_request answer = {.conn = conn, .t = t};

    rq->fate = STK_FATE_ANSWERED;
    if (deadline_send_gathered(rq->t, conn) < 0) {
        rq->fate = STK_FATE_CUT;
        stk_deadline_cut(rq, false);
        return;
    }
    /* One by one: the others change under its thread. */
    answer.base.ops = rq->base.ops;
    answer.base.head = rq->base.head;
    answer.base.endpoint = rq->base.endpoint;
    answer.base.peer = rq->base.peer;
    answer.base.scheme = rq->base.scheme;
    answer.base.host = rq->base.host;
    answer.base.script_name = rq->base.script_name;
    answer.base.started = rq->base.started;
    answer.base.id = rq->base.id;
    STK_ASSERT(t->out.len == 0);
    stk_response_plain(&answer, 504, "the application took too long to answer");
    stk_fcgi_end(&answer);
    if (stk_gather_send(t, conn, NULL, 0) < 0)
        t->out.len = 0;
    stk_http1_account(&answer);
    if (!stk_conn_has_output(conn) && stk_conn_io_end(conn) < 0) {
        /* ENOTCONN: the client has ended it. */
    }
}

/* The stack of a thread as text; free() it. NULL: there is none to be had. */
static char *deadline_stack(struct stk_server *server, struct stk_serve_thread *t, size_t *ret_len)
{
    STK_CLEANUP(stk_fd_closep) int file = -1;
    char *text;
    ssize_t n;

    if (server->host_ops->stacks == NULL)
        return NULL;
    file = memfd_create("stack", MFD_CLOEXEC);
    if (file < 0)
        return NULL;
    server->host_ops->stacks(server->host, t->lead_thread->host_thread, file);
    text = stk_try_alloc(DEADLINE_STACK_MAX);
    n = text != NULL ? pread(file, text, DEADLINE_STACK_MAX, 0) : -1;
    if (n <= 0) {
        free(text);
        return NULL;
    }
    *ret_len = (size_t)n;
    return text;
}

/* One message: what happened to which request, and where it is. */
static void deadline_log(struct stk_deadline *d, const struct stk_serve_request *rq,
                         const struct deadline_watch *w, stk_msec now, const char *done)
{
    char what[DEADLINE_SHOWN + 64], client[80], *message;
    size_t len = 0;
    STK_CLEANUP(stk_mem_freep) char *stack = deadline_stack(d->server, rq->t, &len);
    int n;

    deadline_describe(rq, what, sizeof what);
    deadline_describe_client(rq, client, sizeof client);
    message = stk_try_alloc(512 + sizeof what + len);
    if (message == NULL)
        return;
    n = snprintf(message, 512 + sizeof what,
                 "%s: not answered within %.3f s (it is %.3f s old); %s client %s; the call is "
                 "cancelled%s",
                 what, (double)(w->due - w->since) / 1000.0, (double)(now - w->since) / 1000.0,
                 done, client, stack != NULL ? ". It is at (most recent call first):\n" : "");
    memcpy(message + n, stack != NULL ? stack : "", len);
    stk_log_bytes(STK_LOG_ERROR, message, (size_t)n + len);
    free(message);
}

void stk_deadline_log_late(const struct stk_serve_request *rq, const char *done)
{
    char what[DEADLINE_SHOWN + 64], client[80];

    deadline_describe(rq, what, sizeof what);
    deadline_describe_client(rq, client, sizeof client);
    stk_log_error("%s: not answered in time; %s client %s; its %s is cancelled", what, done, client,
                  rq->t->server->config->gevent > 0 ? "greenlet" : "task");
}

void stk_deadline_log_cut(const struct stk_serve_request *rq)
{
    char what[DEADLINE_SHOWN + 64], client[80];

    deadline_describe(rq, what, sizeof what);
    deadline_describe_client(rq, client, sizeof client);
    stk_log_warning("%s: not finished when graceful-timeout was over: it is cut; client %s", what,
                    client);
}

void stk_deadline_log_step(struct stk_server *server, const struct stk_serve_request *rq,
                           const char *done)
{
    char what[DEADLINE_SHOWN + 64], *message;
    size_t len = 0;
    STK_CLEANUP(stk_mem_freep) char *stack = deadline_stack(server, &server->threads[0], &len);
    int n;

    deadline_describe(rq, what, sizeof what);
    message = stk_try_alloc(512 + sizeof what + len);
    if (message == NULL)
        return;
    n = snprintf(message, 512 + sizeof what, "%s: %s%s", what, done,
                 stack != NULL ? ". It is at (most recent call first):\n" : "");
    memcpy(message + n, stack != NULL ? stack : "", len);
    stk_log_bytes(STK_LOG_ERROR, message, (size_t)n + len);
    free(message);
}

static void deadline_cancel(struct stk_deadline *d, const struct stk_serve_thread *t,
                            const struct deadline_watch *w, int why)
{
    const struct stk_server *server = d->server;

    if (server->host_ops->cancel != NULL)
        server->host_ops->cancel(server->host, t->lead_thread->host_thread, w->id, why);
}

/* The time of a request is over. Mutex held. */
static void deadline_expire(struct stk_deadline *d, struct stk_serve_request *rq,
                            struct deadline_watch *w, stk_msec now)
{
    const char *done = "its response had been handed over for";

    w->stage = WATCH_EXPIRED;
    w->cancelled_at = now;
    stk_scoreboard_add(d->server->row, STK_COUNTER_request_timeouts, 1);
    if (rq->fate == STK_FATE_LEFT) {
        done = "nothing was sent, because it had left, to";
    } else if (!__atomic_load_n(&rq->committed, __ATOMIC_ACQUIRE)) {
        stk_deadline_answer(&d->server->threads[d->server->nthreads - 1], rq);
        done = rq->fate == STK_FATE_ANSWERED ? "504 was sent to" : "the connection was closed to";
    } else if (!__atomic_load_n(&rq->ended, __ATOMIC_RELAXED)) {
        rq->fate = STK_FATE_CUT;
        stk_deadline_cut(rq, true);
        done = "its response had begun, so the connection was closed to";
    }
    deadline_log(d, rq, w, now, done);
    deadline_cancel(d, rq->t, w, STK_HOST_CANCEL_TIMEOUT);
}

/* ---- after it ------------------------------------------------------------------------------ */

void stk_deadline_retire(struct stk_deadline *d, bool stuck, stk_msec age)
{
    bool *done = stuck ? &d->retired_stuck : &d->retired;

    if (!*done && d->server->on_retire != NULL)
        d->server->on_retire(d->server->on_retire_arg,
                             stuck ? STK_CHANNEL_RETIRE_STUCK : STK_CHANNEL_RETIRE_CANCELLED, age);
    *done = true;
}

/* A call that was cancelled goes on. Returns when to look again. Mutex held. */
static stk_msec deadline_follow(struct stk_deadline *d, struct stk_serve_request *rq,
                                struct deadline_watch *w, stk_msec now)
{
    stk_msec grace = d->server->config->cancel_grace;
    stk_msec age = now - w->cancelled_at;
    int why = w->stage == WATCH_LEFT ? STK_HOST_CANCEL_DISCONNECTED : STK_HOST_CANCEL_TIMEOUT;
    char what[DEADLINE_SHOWN + 64];

    if (age >= grace && w->stage == WATCH_LEFT)
        return DEADLINE_NEVER;
    if (age >= grace) {
        w->stage = WATCH_STUCK;
        d->stuck++;
        deadline_describe(rq, what, sizeof what);
        stk_log_error("%s: has not returned to the server %.3f s after it was cancelled, it "
                      "may be blocked outside Python: this worker is replaced",
                      what, (double)age / 1000.0);
        stk_deadline_retire(d, true, now - w->since);
        return now + DEADLINE_LOOK_MS;
    }
    /* What has been raised may have been caught, or lost where Python drops exceptions. */
    w->again = w->again || age >= grace / 2;
    deadline_cancel(d, rq->t, w, w->again ? why | STK_HOST_CANCEL_AGAIN : why);
    return deadline_earlier(now + DEADLINE_LOOK_MS, w->cancelled_at + grace);
}

/* The call of the notes has ended. */
static void deadline_ended(struct stk_deadline *d, struct deadline_watch *w)
{
    if (w->stage == WATCH_STUCK)
        d->stuck--;
    if (w->stage == WATCH_EXPIRED)
        stk_deadline_retire(d, false, 0);
    *w = (struct deadline_watch){0};
}

/* ---- looking ------------------------------------------------------------------------------- */

/* Whether the client of a request has left: a half-close is not leaving. */
static bool deadline_has_left(const struct stk_serve_request *rq)
{
    struct pollfd pfd = {.fd = rq->conn->src.fd};

    return stk_conn_is_gone(rq->conn) || stk_fcgi_is_aborted(rq->conn) ||
           (poll(&pfd, 1, 0) == 1 && pfd.revents & (POLLHUP | POLLERR));
}

/* A request that runs; returns when to look again. Mutex held. */
static stk_msec deadline_inspect(struct stk_deadline *d, struct stk_serve_request *rq,
                                 struct deadline_watch *w, stk_msec now)
{
    const struct stk_config *config = d->server->config;
    stk_msec due = __atomic_load_n(&rq->due, __ATOMIC_RELAXED);
    stk_msec next = DEADLINE_NEVER;

    if (!w->known && rq->base.started > 0)
        w->since = rq->base.started / STK_NSEC_PER_MSEC;
    w->known = true;
    w->id = rq->base.id;
    if (w->stage == WATCH_STUCK)
        return now + DEADLINE_LOOK_MS;
    if (w->stage == WATCH_EXPIRED)
        return deadline_follow(d, rq, w, now);
    w->due = due != 0                      ? due
             : config->request_timeout > 0 ? w->since + config->request_timeout
                                           : DEADLINE_NEVER;
    if (rq->t->named == 0) {
        if (now - w->since >= DEADLINE_NAME_MS)
            rq->t->named = (uint8_t)stk_deadline_name(d->server->row, rq, rq->t->lead_thread->index,
                                                      w->since * STK_NSEC_PER_MSEC);
        else
            next = w->since + DEADLINE_NAME_MS;
    }
    if (now >= w->due) {
        deadline_expire(d, rq, w, now);
        return now + DEADLINE_LOOK_MS / 2;
    }
    next = deadline_earlier(next, w->due);
    if (w->stage == WATCH_LEFT)
        return deadline_earlier(next, deadline_follow(d, rq, w, now));
    if (config->cancel_on_disconnect) {
        if (deadline_has_left(rq)) {
            w->stage = WATCH_LEFT;
            w->cancelled_at = now;
            if (!__atomic_load_n(&rq->committed, __ATOMIC_ACQUIRE))
                rq->fate = STK_FATE_LEFT;
            stk_scoreboard_add(d->server->row, STK_COUNTER_requests_left, 1);
            deadline_cancel(d, rq->t, w, STK_HOST_CANCEL_DISCONNECTED);
        }
        next = deadline_earlier(next, now + DEADLINE_LOOK_MS);
    }
    return next;
}

/* Has every thread of the process pass a memory barrier. */
static void deadline_barrier(const struct stk_serve_thread *t, uint32_t flags)
{
    if (!(flags & STK_INTERFERE_ALWAYS))
        STK_ASSERT(syscall(SYS_membarrier, DEADLINE_BARRIER, 0, 0) == 0);
}

/* A closer look at the call that a thread is in. */
static void deadline_peek(struct stk_deadline *d, struct stk_serve_thread *t,
                          struct deadline_watch *w, stk_msec now)
{
    struct stk_serve_request *rq;
    uint32_t flags;

    pthread_mutex_lock(&t->interfere_mutex);
    flags = atomic_load_explicit(&t->interfere, memory_order_relaxed);
    atomic_store(&t->interfere, flags | STK_INTERFERE_LOOKS);
    deadline_barrier(t, flags);
    rq = atomic_load(&t->running);
    /* Between the mark and the entry, or already another one: the next look is as good. */
    w->look = now + DEADLINE_LOOK_MS;
    if (rq != NULL && atomic_load(&t->lead_thread->calls) == w->calls) {
        w->look = deadline_inspect(d, rq, w, now);
        flags = (flags & STK_INTERFERE_ALWAYS) | (t->named > 0 ? STK_INTERFERE_NAMED : 0) |
                (rq->fate != STK_FATE_NONE ? STK_INTERFERE_FATE : 0);
    }
    atomic_store_explicit(&t->interfere, flags, memory_order_release);
    pthread_mutex_unlock(&t->interfere_mutex);
}

/* A thread; returns when to look at it again. */
static stk_msec deadline_look(struct stk_deadline *d, unsigned i, stk_msec now, bool changed)
{
    const struct stk_config *config = d->server->config;
    struct stk_serve_thread *t = &d->server->threads[i];
    struct deadline_watch *w = &d->watches[i];
    uint64_t calls = atomic_load_explicit(&t->lead_thread->calls, memory_order_relaxed);

    if (calls != w->calls && w->calls != 0)
        deadline_ended(d, w);
    if (!(calls & 1))
        return DEADLINE_NEVER;
    if (w->calls == 0) {
        stk_msec first = config->request_timeout > 0 ? config->request_timeout : DEADLINE_NAME_MS;
        stk_msec rule = stk_router_least_timeout(d->server->router);

        if (rule > 0)
            first = deadline_earlier(first, rule);
        *w = (struct deadline_watch){.calls = calls, .since = now};
        w->look = now + deadline_earlier(first, DEADLINE_NAME_MS);
    }
    if (now >= w->look || changed)
        deadline_peek(d, t, w, now);
    return w->look;
}

/* ---- requests that wait -------------------------------------------------------------------- */

static bool deadline_job_is_late(void *arg, struct stk_job *job)
{
    const stk_nsec *before = arg;

    return job->run == stk_http1_job && job->since < *before;
}

/* Answers the requests whose time is over before a thread had taken them. When to look again. */
static stk_msec deadline_jobs(struct stk_deadline *d, stk_msec now)
{
    struct stk_server *server = d->server;
    stk_msec timeout = server->config->request_timeout;
    stk_nsec before = (now - timeout) * STK_NSEC_PER_MSEC;
    struct stk_job *job;
    stk_nsec oldest;

    if (timeout == 0 || stk_lead_jobs(server->lead) == 0)
        return DEADLINE_NEVER;
    while ((job = stk_lead_withdraw(server->lead, false, deadline_job_is_late, &before)) != NULL)
        stk_http1_job_expired(job, stk_lead_standby(server->lead));
    oldest = stk_lead_oldest(server->lead);
    return oldest == 0 ? DEADLINE_NEVER : oldest / STK_NSEC_PER_MSEC + timeout;
}

/* ---- ticks --------------------------------------------------------------------------------- */

/* Makes the timer fire then, or earlier. */
static void deadline_arm(struct stk_deadline *d, stk_msec now, stk_msec when)
{
    struct itimerspec its = {0};
    int r;

    if (d->armed > 0 && d->armed <= now)
        d->armed = 0;
    if (when == DEADLINE_NEVER || (d->armed > 0 && d->armed <= when))
        return;
    if (when <= now)
        when = now + 1;
    d->armed = when;
    its.it_value.tv_sec = when / 1000;
    its.it_value.tv_nsec = when % 1000 * STK_NSEC_PER_MSEC;
    r = timerfd_settime(d->timer.fd, TFD_TIMER_ABSTIME, &its, NULL);
    STK_ASSERT(r == 0);
}

/* While draining: nothing is left but calls that do not return. */
static void deadline_check_abandoned(struct stk_deadline *d)
{
    struct stk_server *server = d->server;

    uint64_t stuck = d->stuck + stk_detach_stuck(server);

    if (stuck > 0 && atomic_load(&server->draining) && server->on_abandoned != NULL &&
        stk_scoreboard_get(server->row, STK_COUNTER_connections_open) <= stuck)
        server->on_abandoned(server->on_abandoned_arg);
}

void stk_deadline_tick(struct stk_deadline *d)
{
    stk_msec now, next = DEADLINE_NEVER;
    bool changed;

    if (d == NULL)
        return;
    now = deadline_now();
    changed = atomic_load_explicit(&d->changed, memory_order_relaxed) &&
              atomic_exchange(&d->changed, false);
    for (unsigned i = 0; i < d->nwatches; i++)
        next = deadline_earlier(next, deadline_look(d, i, now, changed));
    next = deadline_earlier(next, deadline_jobs(d, now));
    if (d->server->detach != NULL)
        next = deadline_earlier(next, stk_detach_watch(d->server, now));
    /* First the queue, see there: a job may be between it and its call. */
    if (stk_lead_jobs(d->server->lead) > 0 || stk_lead_is_any_at_job(d->server->lead))
        next = deadline_earlier(next, now + DEADLINE_LOOK_MS);
    deadline_arm(d, now, next);
    deadline_check_abandoned(d);
}

static void deadline_on_timer(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_deadline *d = stk_container_of(src, struct stk_deadline, timer);
    uint64_t n;

    if (read(src->fd, &n, sizeof n) > 0)
        stk_lead_rouse(d->server->lead);
}

static void deadline_on_expected(struct stk_timer *timer, void *who)
{
    struct stk_deadline *d = stk_container_of(timer, struct stk_deadline, expected);

    stk_lead_rouse(d->server->lead);
}

void stk_deadline_expect(struct stk_deadline *d, struct stk_lead_thread *thread)
{
    if (d != NULL && thread->own && !stk_timer_is_set(&d->expected))
        stk_timer_set(d->server->loop, &d->expected, DEADLINE_LOOK_MS / 2);
}

/* ---- life ---------------------------------------------------------------------------------- */

int stk_deadline_new(struct stk_deadline **ret_deadline, struct stk_server *server)
{
    unsigned n = server->nthreads - 1;
    bool barrier = syscall(SYS_membarrier, DEADLINE_REGISTER, 0, 0) == 0;
    struct stk_deadline *d;
    int r;

    *ret_deadline = NULL;
    if (!stk_server_has_standby(server))
        return 0;
    d = stk_mem_zalloc(sizeof *d + n * sizeof d->watches[0]);
    d->server = server;
    d->nwatches = n;
    stk_timer_init(&d->expected, deadline_on_expected);
    d->timer = (struct stk_source){
        .fn = deadline_on_timer,
        .fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC),
    };
    r = d->timer.fd < 0 ? -errno : stk_loop_add(server->loop, &d->timer, EPOLLIN);
    if (r < 0) {
        stk_deadline_free(d);
        return r;
    }
    for (unsigned i = 0; i < server->nthreads && !barrier; i++)
        atomic_store(&server->threads[i].interfere, STK_INTERFERE_ALWAYS);
    *ret_deadline = d;
    return 0;
}

struct stk_deadline *stk_deadline_free(struct stk_deadline *d)
{
    if (d == NULL)
        return NULL;
    if (d->timer.events != 0)
        stk_loop_del(d->server->loop, &d->timer);
    stk_timer_stop(d->server->loop, &d->expected);
    stk_fd_close(&d->timer.fd);
    free(d);
    return NULL;
}
