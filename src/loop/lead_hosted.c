/*
 * Turning the loop from an event loop of the application's (asyncio, uvloop ...), in which it is
 * nested: that loop's thread comes for a turn when the epoll set, or the bell, is readable.
 *
 * Between two turns the thread runs the application's callbacks, so the word says IN_APP: a
 * callback that blocks for a tick loses the loop to the stand-by, like a call. It learns of that at
 * its next turn, runs the jobs that have been queued for it meanwhile, and takes the loop back,
 * which a leading stand-by gives away between two batches when it is asked to.
 *
 * An event loop whose selector is ours waits here, for both sets at once: its own epoll set is a
 * member of ours. While the stand-by leads it can do nothing about that member; it takes it out,
 * and whoever leads next in this thread puts it back.
 *
 * A foreign one waits somewhere else, and then IN_APP means nothing. So a stand-by that finds it
 * where it was looks whether anything is ready here at all, and if not, sleeps until it is. Timers
 * of the loop are turned into an event by a timerfd, because nobody waits here to see them.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/mem.h"
#include "loop/lead_priv.h"
#include "loop/thread_state.h"

enum {
    HOSTED_JOBS = 64,             /* of a turn */
    HOSTED_JOBS_NS = 1000 * 1000, /* likewise */
    HOSTED_ASIDE_NS = 100 * 1000, /* between two attempts to get the loop back */
};

static void hosted_on_own(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_lead_hosted *h = stk_container_of(src, struct stk_lead_hosted, own);
    struct stk_lead_thread *t = who;

    if (!t->standby) {
        h->own_ready = true;
        return;
    }
    stk_loop_del(t->lead->loop, src);
    atomic_store(&h->own_out, true);
}

static void hosted_on_clock(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_lead_hosted *h = stk_container_of(src, struct stk_lead_hosted, clock);
    uint64_t n;

    if (read(src->fd, &n, sizeof n) < 0) {
        /* Set again in the meantime. */
    }
    h->clock_at = 0; /* timers run behind the events of a turn */
}

bool stk_lead_is_mixed(const struct stk_lead *lead)
{
    return lead->mixed;
}

int stk_lead_host(struct stk_lead *lead)
{
    struct stk_lead_hosted *h = stk_new0(struct stk_lead_hosted);
    int r;

    h->wait_fd = -1;
    h->own = (struct stk_source){.fn = hosted_on_own, .fd = -1};
    h->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE); /* a read takes one ring */
    h->clock = (struct stk_source){
        .fn = hosted_on_clock,
        .fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC),
    };
    r = h->bell < 0 || h->clock.fd < 0 ? -errno : stk_loop_add(lead->loop, &h->clock, EPOLLIN);
    if (r < 0) {
        stk_fd_close(&h->bell);
        stk_fd_close(&h->clock.fd);
        free(h);
        return r;
    }
    lead->hosted = h;
    lead->mixed = lead->nthreads > 1;
    for (unsigned i = 0; i < lead->nthreads; i++)
        lead->threads[i].picky = lead->mixed;
    return 0;
}

void stk_lead_hosted_free(struct stk_lead *lead)
{
    struct stk_lead_hosted *h = lead->hosted;

    if (h == NULL)
        return;
    lead->hosted = NULL;
    stk_loop_del(lead->loop, &h->clock);
    if (h->own.events != 0)
        stk_loop_del(lead->loop, &h->own);
    stk_fd_close(&h->bell);
    stk_fd_close(&h->clock.fd);
    stk_fd_close(&h->wait_fd);
    free(h);
}

int stk_lead_bell(const struct stk_lead *lead)
{
    return lead->hosted->bell;
}

void stk_lead_ring(struct stk_lead *lead)
{
    uint64_t one = 1;

    if (lead->hosted == NULL ||
        atomic_exchange(&lead->hosted->rung, STK_LEAD_RUNG) == STK_LEAD_RUNG)
        return;
    if (write(lead->hosted->bell, &one, sizeof one) < 0) {
        /* The counter is full: it is rung. */
    }
    /* A thread that waits for the loop does not look at the bell. */
    if (STK_LEAD_STATE(stk_lead_seen(lead)) == STK_LEAD_BLOCKED)
        stk_loop_wake(lead->loop);
}

void stk_lead_note(struct stk_lead *lead)
{
    const struct stk_lead_thread *t = lead->hosted->thread;
    int quiet = STK_LEAD_QUIET;

    if (t == NULL || (t->own && STK_LEAD_STATE(t->word) == STK_LEAD_TURNING))
        return;
    if (atomic_load_explicit(&lead->hosted->foreign, memory_order_relaxed))
        stk_lead_ring(lead);
    else
        (void)atomic_compare_exchange_strong(&lead->hosted->rung, &quiet, STK_LEAD_NOTED);
}

void stk_lead_set_waiting(struct stk_lead *lead, unsigned n)
{
    if (lead->hosted != NULL)
        atomic_store_explicit(&lead->hosted->waiting, n, memory_order_relaxed);
}

bool stk_lead_hosted_is_due(const struct stk_lead *lead)
{
    struct pollfd pfd = {.fd = lead->loop->epfd, .events = POLLIN};

    return lead->hosted == NULL || !atomic_load(&lead->hosted->foreign) || poll(&pfd, 1, 0) != 0;
}

bool stk_lead_hosted_may_work(const struct stk_lead *lead, uint64_t word)
{
    switch (stk_thread_wait(lead->hosted->wait_fd)) {
    case STK_THREAD_WAIT_EVENTS:
        if (!stk_lead_is_held(lead))
            atomic_store_explicit(lead->share.resting, word, memory_order_relaxed);
        return false;
    case STK_THREAD_WAIT_NOT:
        return true;
    default:
        return false; /* nobody can tell */
    }
}

/* Sees to it that the epoll set is readable when a timer of the loop is due. */
static void hosted_set_clock(struct stk_lead_thread *t)
{
    struct stk_lead *lead = t->lead;
    struct stk_lead_hosted *h = lead->hosted;
    stk_msec timeout = stk_loop_next_timeout(lead->loop);
    struct itimerspec its = {0};
    stk_msec at;
    int r;

    if (timeout < 0)
        return;
    at = lead->loop->now + timeout;
    if (h->clock_at != 0 && h->clock_at <= at)
        return;
    h->clock_at = at;
    its.it_value.tv_sec = timeout / 1000;
    its.it_value.tv_nsec = timeout % 1000 * STK_NSEC_PER_MSEC + 1;
    r = timerfd_settime(h->clock.fd, 0, &its, NULL);
    STK_ASSERT(r == 0);
}

bool stk_lead_claim(struct stk_lead_thread *t)
{
    uint64_t expected = t->word;
    uint64_t turning = (expected & ~UINT64_C(7)) | STK_LEAD_TURNING;

    if (!t->own || STK_LEAD_STATE(t->word) != STK_LEAD_IN_APP)
        return false;
    t->own = atomic_compare_exchange_strong_explicit(t->shared_word, &expected, turning,
                                                     memory_order_acq_rel, memory_order_acquire);
    t->word = turning;
    return true;
}

void stk_lead_unclaim(struct stk_lead_thread *t, bool claimed)
{
    if (!claimed || !t->own)
        return;
    if (t->lead->hosted != NULL && atomic_load(&t->lead->hosted->foreign))
        hosted_set_clock(t); /* for timers that were set meanwhile */
    t->word = stk_lead_next_word(t->word, STK_LEAD_IN_APP);
    atomic_store_explicit(t->shared_word, t->word, memory_order_release);
}

void stk_lead_hosted_begin(struct stk_lead_thread *t)
{
    STK_ASSERT(t->lead->hosted != NULL && t->index == 0);
    stk_lead_attach(t);
    t->lead->hosted->thread = t;
    t->lead->hosted->wait_fd = stk_thread_wait_open();
    (void)stk_lead_acquire(t);
    stk_lead_unclaim(t, true);
}

void stk_lead_hosted_end(struct stk_lead_thread *t)
{
    (void)stk_lead_claim(t);
    stk_lead_detach(t);
    t->lead->hosted->thread = NULL;
}

/* The thread comes for a turn. */
static void hosted_come(struct stk_lead_thread *t)
{
    struct stk_lead_hosted *h = t->lead->hosted;
    uint64_t n;

    (void)stk_lead_claim(t);
    /* First the flag: who rings from here on rings again, which is not to be read with this one. */
    if (atomic_load_explicit(&h->rung, memory_order_relaxed) != STK_LEAD_QUIET &&
        atomic_exchange(&h->rung, STK_LEAD_QUIET) == STK_LEAD_RUNG)
        h->unread++;
    /* Whoever has set the flag may still be about to ring: an empty turn more, which reads it. */
    while (h->unread > 0 && read(h->bell, &n, sizeof n) > 0)
        h->unread--;
}

/* Runs the jobs that wait, for a while; true: there were any. */
static bool hosted_run_jobs(struct stk_lead_thread *t)
{
    stk_nsec until = 0;

    for (unsigned i = 0; i < HOSTED_JOBS; i++) {
        if (until == 0 && stk_lead_jobs_of(t->lead, t->lead->mixed) > 0)
            until = stk_time_mono_ns() + HOSTED_JOBS_NS;
        if (!stk_lead_run_job(t))
            return i > 0;
        if (stk_time_mono_ns() > until)
            break;
    }
    if (stk_lead_jobs_of(t->lead, t->lead->mixed) > 0)
        stk_lead_ring(t->lead);
    return true;
}

/* Puts the event loop's own set into ours, where it is not or no longer. */
static void hosted_put_own(struct stk_lead_thread *t, int own_fd)
{
    struct stk_lead_hosted *h = t->lead->hosted;

    if (stk_likely(h->own.fd == own_fd && !atomic_load_explicit(&h->own_out, memory_order_relaxed)))
        return;
    if (h->own.fd >= 0 && !atomic_load(&h->own_out))
        stk_loop_del(t->lead->loop, &h->own);
    h->own.fd = own_fd;
    atomic_store(&h->own_out, false);
    if (own_fd >= 0 && stk_loop_add(t->lead->loop, &h->own, EPOLLIN) < 0) {
        h->own.fd = -1; /* no memory in the kernel: the next turn tries again */
        h->own_ready = true;
    }
}

/* Waits for what concerns this thread while another leads. */
static bool hosted_wait_aside(struct stk_lead_thread *t, int own_fd, stk_nsec timeout)
{
    struct stk_lead *lead = t->lead;
    struct pollfd fds[2] = {{.fd = lead->hosted->bell, .events = POLLIN},
                            {.fd = own_fd, .events = POLLIN}};
    struct timespec ts = {.tv_nsec = timeout < 0 || timeout > HOSTED_ASIDE_NS ? HOSTED_ASIDE_NS
                                                                              : (long)timeout};

    if (ts.tv_nsec > 0)
        lead->ops->unlock(lead->arg, t);
    if (ppoll(fds, 2, &ts, NULL) < 0)
        fds[1].revents = 0; /* a signal: the event loop looks at it */
    if (ts.tv_nsec > 0)
        lead->ops->lock(lead->arg, t);
    return fds[1].revents != 0;
}

/* What every turn ends with. */
static bool hosted_go(struct stk_lead_thread *t)
{
    struct stk_lead *lead = t->lead;

    if (lead->ops->on_turn != NULL)
        lead->ops->on_turn(lead->arg, t);
    stk_lead_unclaim(t, true);
    return !atomic_load(&lead->stopping);
}

bool stk_lead_hosted_turn(struct stk_lead_thread *t)
{
    struct stk_lead_hosted *h = t->lead->hosted;

    if (stk_unlikely(!atomic_load_explicit(&h->foreign, memory_order_relaxed)))
        atomic_store(&h->foreign, true);
    hosted_come(t);
    if (stk_unlikely(atomic_load(&t->lead->stopping)))
        return hosted_go(t);
    (void)hosted_run_jobs(t);
    if (t->own || stk_lead_acquire(t)) {
        /* What has woken us may be gone before a dozing stand-by has seen it. */
        stk_lead_arm(t->lead);
        stk_lead_turn(t, 0);
    }
    return hosted_go(t);
}

bool stk_lead_hosted_wait(struct stk_lead_thread *t, int own_fd, stk_nsec timeout, bool *ret_own)
{
    struct stk_lead_hosted *h = t->lead->hosted;

    hosted_come(t);
    h->own_ready = false;
    if (stk_likely(!atomic_load(&t->lead->stopping))) {
        if (hosted_run_jobs(t))
            timeout = 0;
        /* Behind its taking the last jobs may be as new. */
        if (!t->own && stk_lead_acquire(t))
            timeout = 0;
        if (t->own) {
            hosted_put_own(t, own_fd);
            stk_lead_turn(t, h->own_ready ? 0 : timeout);
        } else {
            h->own_ready = hosted_wait_aside(t, own_fd, timeout);
        }
    }
    *ret_own = h->own_ready;
    return hosted_go(t);
}
