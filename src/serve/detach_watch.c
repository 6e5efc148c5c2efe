/*
 * The stand-by's look at the event loop. The deadline of a detached request is a timer of the loop,
 * which whoever leads answers; its task is cancelled by the event loop's thread, when that comes
 * for a turn. Where it does not come, because a handler computes or blocks, the step that runs is
 * the one in the way. The host tells whose it is: if that is a request whose time is over it is
 * cancelled as a call is (deadline.c), again and again until cancel-grace is over. A step of
 * another request, or of none, is left alone.
 *
 * What does not come back at all has the worker replaced.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "serve/conn.h"
#include "serve/deadline.h"
#include "serve/detach_priv.h"

enum {
    WATCH_LOOK_MS = 100,     /* between two looks */
    WATCH_SHOWN = 200,       /* requests */
    WATCH_NAMES_LOOK = 1000, /* requests that are looked at to find one without a name */
};

#define WATCH_NEVER INT64_MAX

void stk_detach_set_driver(struct stk_server *server, void *thread)
{
    struct stk_detach *det = server->detach;

    pthread_mutex_lock(&det->mutex);
    det->driver = thread;
    det->watch = (struct stk_detach_watch){0};
    pthread_mutex_unlock(&det->mutex);
}

static struct stk_detached *watch_find(struct stk_detach *det, uint64_t id)
{
    stk_list_for_each (it, &det->all) {
        struct stk_detached *d = stk_container_of(it, struct stk_detached, link);

        if (d->rq.base.id == id)
            return d;
    }
    return NULL;
}

/* The step of the notes has ended. */
static void watch_ended(struct stk_detach *det)
{
    if (det->watch.cancelled_at != 0)
        stk_deadline_retire(det->server->deadline, false, 0);
    det->watch = (struct stk_detach_watch){0};
}

/* A step of a request whose time is over goes on. */
static void watch_cancel(struct stk_detach *det, const struct stk_detached *d, stk_msec now)
{
    struct stk_server *server = det->server;
    struct stk_detach_watch *w = &det->watch;
    stk_msec grace = server->config->cancel_grace;
    int why = d->told & STK_WAKE_TIMEOUT ? STK_HOST_CANCEL_TIMEOUT : STK_HOST_CANCEL_DISCONNECTED;
    stk_msec age;

    if (w->cancelled_at == 0) {
        w->cancelled_at = now;
        stk_deadline_log_step(server, &d->rq,
                              "keeps the event loop from going on, and is cancelled");
    }
    age = now - w->cancelled_at;
    if (age >= grace) {
        w->stuck = true;
        stk_deadline_log_step(
            server, &d->rq,
            "has not returned to the event loop after it was cancelled, it may be "
            "blocked outside Python: this worker is replaced");
        stk_deadline_retire(server->deadline, true, age);
        return;
    }
    /* As in deadline.c: what was raised may have been caught, or lost. */
    w->again = w->again || age >= grace / 2;
    if (server->host_ops->cancel != NULL)
        server->host_ops->cancel(server->host, det->driver, w->id,
                                 w->again ? why | STK_HOST_CANCEL_AGAIN : why);
}

/* The step that runs. Mutex held. Returns when to look again. */
static stk_msec watch_step(struct stk_detach *det, stk_msec now)
{
    const struct stk_host_ops *ops = det->server->host_ops;
    struct stk_detach_watch *w = &det->watch;
    const struct stk_detached *d;
    uint64_t id = 0, step;

    if (det->driver == NULL || ops->step == NULL)
        return WATCH_NEVER;
    step = ops->step(det->server->host, det->driver, &id);
    if (step != w->step && w->step != 0)
        watch_ended(det);
    if (step == 0)
        return WATCH_NEVER;
    if (step != w->step) {
        *w = (struct stk_detach_watch){.step = step, .id = id, .look = now + WATCH_LOOK_MS};
        return w->look;
    }
    if (now < w->look)
        return w->look;
    w->look = now + WATCH_LOOK_MS;
    d = w->stuck ? NULL : watch_find(det, w->id);
    if (d != NULL && d->told & (STK_WAKE_TIMEOUT | STK_WAKE_CANCEL)) {
        watch_cancel(det, d, now);
        w->look = now + WATCH_LOOK_MS / 2;
    }
    return w->look;
}

/* The event loop is to hear that a request is too late, and does not come. Mutex held. */
static stk_msec watch_loop(struct stk_detach *det, stk_msec now)
{
    stk_msec grace = det->server->config->cancel_grace;

    if (det->due_back == 0 || det->away)
        return WATCH_NEVER;
    /* A step that can be cancelled has as long from there. */
    if (now - det->due_back < grace || (det->watch.cancelled_at != 0 && !det->watch.stuck))
        return now + WATCH_LOOK_MS;
    det->away = true;
    if (det->watch.stuck)
        return WATCH_NEVER;
    stk_log_error("the event loop has not come back for %.3f s, although a request in it is to be "
                  "cancelled: it may be blocked outside Python, or by what belongs to no request; "
                  "this worker is replaced",
                  (double)(now - det->due_back) / 1000.0);
    stk_deadline_retire(det->server->deadline, true, now - det->due_back);
    return WATCH_NEVER;
}

void stk_detach_unname(struct stk_detach *det, struct stk_detached *d)
{
    if (stk_likely(d->named == 0))
        return;
    stk_deadline_clear_name(det->server->row, d->named);
    d->named = 0;
    det->nnamed--;
}

/* Names the oldest in the scoreboard, but for WebSockets, which last. Mutex held. When to look. */
static stk_msec watch_names(struct stk_detach *det, stk_msec now)
{
    unsigned looked = 0;

    stk_list_for_each (it, &det->all) {
        struct stk_detached *d = stk_container_of(it, struct stk_detached, link);
        stk_msec since = d->rq.base.started / STK_NSEC_PER_MSEC;

        /* The end of one that has a name has the others looked at. */
        if (det->nnamed == STK_DETACH_NAMED || looked++ == WATCH_NAMES_LOOK)
            return WATCH_NEVER;
        if (d->named != 0 || d->rq.conn->ws != NULL)
            continue;
        if (now - since < WATCH_LOOK_MS)
            return since + WATCH_LOOK_MS;
        d->named = (uint8_t)stk_deadline_name(det->server->row, &d->rq, STK_SCOREBOARD_WAITING,
                                              d->rq.base.started);
        if (d->named == 0)
            return WATCH_NEVER;
        det->nnamed++;
    }
    return WATCH_NEVER;
}

stk_msec stk_detach_watch(struct stk_server *server, stk_msec now)
{
    struct stk_detach *det = server->detach;
    stk_msec step, loop, names;

    pthread_mutex_lock(&det->mutex);
    step = watch_step(det, now);
    loop = watch_loop(det, now);
    names = watch_names(det, now);
    pthread_mutex_unlock(&det->mutex);
    if (names < loop)
        loop = names;
    return step < loop ? step : loop;
}

void stk_detach_write(struct stk_server *server, uint64_t id, int fd)
{
    struct stk_detach *det = server->detach;
    stk_nsec now = stk_time_mono_ns();
    unsigned n = 0;

    if (det == NULL)
        return;
    pthread_mutex_lock(&det->mutex);
    stk_list_for_each (it, &det->all) {
        const struct stk_detached *d = stk_container_of(it, struct stk_detached, link);
        stk_span method = stk_head_method(d->rq.base.head), path = stk_head_path(d->rq.base.head);

        if (id != 0 && d->rq.base.id != id)
            continue;
        if (n++ == WATCH_SHOWN)
            break;
        dprintf(fd, "request %" PRIu64 ": %.*s %.*s, %.3f s old\n", d->rq.base.id,
                (int)(method.len < 32 ? method.len : 32), method.ptr,
                (int)(path.len < 200 ? path.len : 200), path.ptr,
                (double)(now - d->rq.base.started) / 1e9);
    }
    if (n > WATCH_SHOWN)
        dprintf(fd, "... and more: %u in all\n", det->n);
    pthread_mutex_unlock(&det->mutex);
}

bool stk_detach_has(struct stk_server *server, uint64_t id)
{
    struct stk_detach *det = server->detach;
    bool found;

    if (det == NULL)
        return false;
    pthread_mutex_lock(&det->mutex);
    found = watch_find(det, id) != NULL;
    pthread_mutex_unlock(&det->mutex);
    return found;
}

unsigned stk_detach_stuck(struct stk_server *server)
{
    struct stk_detach *det = server->detach;
    unsigned n;

    if (det == NULL || stk_likely(!atomic_load(&server->draining)))
        return 0;
    pthread_mutex_lock(&det->mutex);
    n = det->watch.stuck || det->away ? det->n : 0;
    pthread_mutex_unlock(&det->mutex);
    return n;
}
