/*
 * Leader take-over. One atomic word says who may touch the loop: a state and a number that every
 * call of the application and every take-over makes new, so that a compare-and-swap by a thread
 * that was away can never succeed by accident.
 *
 *   TURNING --enter--> IN_APP --leave--> TURNING        the fast path: a store and a swap
 *   IN_APP, WAIT_LOCK --a whole tick--> SB_TURNING      the stand-by takes over
 *   TURNING --nothing ready--> BLOCKED --event--> WAIT_LOCK --lock held--> TURNING
 *   SB_TURNING <--> SB_BLOCKED --a thread is free--> TURNING
 *
 * Nobody waits for the interpreter's lock while it owns the loop, except in WAIT_LOCK, from which
 * the loop can be taken. A thread that lost the loop throws its batch of events away: the set is
 * level-triggered, so the new owner gets them again. The stand-by gives the loop away (FREE) only
 * to a thread that is parked, and takes it back when that does not come for it within a tick.
 *
 * The stand-by costs nothing while nothing happens, and little under load: it sleeps on a timerfd
 * which the leader arms when it wakes up from epoll and disarms before it blocks again (two cheap
 * system calls instead of a wake-up); under load it is left ticking, every 250 µs after a
 * take-over and up to 1 ms apart as long as each tick sees progress. A leader that comes back to
 * the loop puts the next tick off, which is cheaper than the two changes of threads that the tick
 * would be. The stand-by goes back to sleep only while the leader waits in epoll, because only a
 * leader that wakes up there arms it again.
 */
#include "loop/lead.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/sys.h"
#include "loop/lead_priv.h"
#include "loop/thread_state.h"

enum {
    LEAD_CALM_NS = 5 * 1000 * 1000,     /* the first look while calls are short, see stk_lead_arm */
    LEAD_PUT_OFF_NS = 1500 * 1000,      /* with the tick behind it still below two long ticks */
    LEAD_PUT_OFF_EVERY_NS = 500 * 1000, /* at most so often */
    LEAD_RETAKE_JOBS = 16,        /* so many jobs in less than a short tick each: lead again */
    LEAD_SINGLY = 16,             /* calls after a long one behind which events come one by one */
    LEAD_HOSTED_NS = 1000 * 1000, /* of a turn within an event loop of the application's ... */
    LEAD_HOSTED_LONG_NS = 3 * 1000 * 1000, /* ... and while no request waits for that one */
    LEAD_HOSTED_SHORT = 8,                 /* events between two looks at the exact clock */
    LEAD_ARMS_PER_MS = 4, /* more bursts a millisecond than this: leave the tick on */
};

void stk_lead_store(struct stk_lead_thread *t, enum stk_lead_state state)
{
    t->word = stk_lead_next_word(t->word, state);
    atomic_store(t->lead->share.word, t->word);
}

bool stk_lead_swap(struct stk_lead_thread *t, enum stk_lead_state state)
{
    uint64_t expected = t->word;
    uint64_t next = stk_lead_next_word(t->word, state);

    if (!atomic_compare_exchange_strong(t->lead->share.word, &expected, next)) {
        t->own = false;
        return false;
    }
    t->word = next;
    return true;
}

bool stk_lead_take(struct stk_lead_thread *t, uint64_t seen, enum stk_lead_state state)
{
    uint64_t next = stk_lead_next_word(seen, state);

    if (!atomic_compare_exchange_strong(t->lead->share.word, &seen, next))
        return false;
    t->word = next;
    t->own = true;
    if (!t->standby)
        atomic_store_explicit(&t->lead->leader, t->index, memory_order_relaxed);
    return true;
}

void stk_lead_set_timer(struct stk_lead *lead, long first_ns, long every_ns)
{
    struct itimerspec its = {.it_value.tv_nsec = first_ns, .it_interval.tv_nsec = every_ns};

    int r = timerfd_settime(lead->timerfd, 0, &its, NULL);

    STK_ASSERT(r == 0);
}

/*
 * The leader wakes up: from now on somebody must watch it. While no call has taken long for a while
 * the timer is set behind the kernel's own next tick, so that neither setting nor stopping it
 * reprograms the clock of the CPU: that would cost as much as a small request on an idle (virtual)
 * machine.
 */
void stk_lead_arm(struct stk_lead *lead)
{
    int asleep = STK_LEAD_ASLEEP;

    if (lead->has_standby && atomic_load(&lead->watch) == STK_LEAD_ASLEEP &&
        atomic_compare_exchange_strong(&lead->watch, &asleep, STK_LEAD_ARMED))
        stk_lead_set_timer(lead,
                           stk_loop_now(lead->loop) < atomic_load(&lead->eager_until)
                               ? STK_LEAD_TICK_MIN_NS
                               : LEAD_CALM_NS,
                           0);
}

/* The leader is about to block: nobody needs to watch it, unless bursts come thick. */
static void lead_disarm(struct stk_lead *lead)
{
    int armed = STK_LEAD_ARMED;

    if (!lead->has_standby ||
        atomic_load_explicit(&lead->watch, memory_order_relaxed) != STK_LEAD_ARMED)
        return;
    if (lead->arm_ms == lead->loop->now) {
        if (++lead->arms > LEAD_ARMS_PER_MS)
            return;
    } else {
        lead->arm_ms = lead->loop->now;
        lead->arms = 0;
    }
    if (!atomic_compare_exchange_strong(&lead->watch, &armed, STK_LEAD_ASLEEP))
        return;
    stk_lead_set_timer(lead, 0, 0);
    if (atomic_load(&lead->roused))
        stk_lead_arm(lead);
    if (atomic_load(&lead->watch) == STK_LEAD_ARMED) /* armed before the timer was stopped: again */
        stk_lead_set_timer(lead, STK_LEAD_TICK_MIN_NS, 0);
}

/* The leader gets on: as long as it does, the ticking stand-by need not look. */
static void lead_put_off(struct stk_lead *lead)
{
    stk_nsec now;

    if (!lead->has_standby ||
        atomic_load_explicit(&lead->watch, memory_order_relaxed) != STK_LEAD_TICKING ||
        atomic_load_explicit(&lead->pending, memory_order_relaxed) ||
        atomic_load_explicit(&lead->roused, memory_order_relaxed))
        return;
    now = stk_time_mono_ns();
    if (now - lead->put_off_at < LEAD_PUT_OFF_EVERY_NS)
        return;
    lead->put_off_at = now;
    atomic_store(&lead->put_off, true);
    atomic_store(&lead->tick_ns, STK_LEAD_TICK_MAX_NS);
    stk_lead_set_timer(lead, LEAD_PUT_OFF_NS, STK_LEAD_TICK_MAX_NS);
}

void stk_lead_rouse(struct stk_lead *lead)
{
    if (!lead->has_standby)
        return;
    atomic_store(&lead->roused, true);
    stk_lead_arm(lead);
    switch (atomic_load(&lead->watch)) {
    case STK_LEAD_ARMED:
        /* Soon, however calm it is; with an interval, lest a tick that begins meanwhile be the
         * last. */
        stk_lead_set_timer(lead, STK_LEAD_TICK_MIN_NS, STK_LEAD_TICK_MIN_NS);
        break;
    case STK_LEAD_LEADING:
        stk_loop_wake(lead->loop);
        break;
    default:
        break;
    }
}

void stk_lead_mind(struct stk_lead *lead, bool on)
{
    int watch;

    if (!on) {
        atomic_store_explicit(&lead->minded, false, memory_order_release);
        return;
    }
    /* A stand-by that goes to sleep says so first, and looks at this then. One that led may still
     * wait in epoll. */
    atomic_store(&lead->minded, true);
    watch = atomic_load(&lead->watch);
    if (stk_unlikely(watch == STK_LEAD_ASLEEP || watch == STK_LEAD_LEADING))
        stk_lead_rouse(lead);
}

/* A stand-by that waits may be about to ask for a batch when another thread becomes the owner. */
static inline int lead_batch(struct stk_lead *lead)
{
    return atomic_load_explicit(&lead->batch, memory_order_relaxed);
}

static inline void lead_set_batch(struct stk_lead *lead, int n)
{
    atomic_store_explicit(&lead->batch, n, memory_order_relaxed);
}

void stk_lead_note_call(struct stk_lead *lead)
{
    stk_msec before = lead->loop->now;

    stk_loop_refresh(lead->loop);
    if (lead->loop->now != before) /* the clock is coarse: not every long call is seen */
        lead->singly = LEAD_SINGLY;
    lead_set_batch(lead, lead->singly > 0 ? 1 : STK_LOOP_BATCH);
    if (lead->singly > 0)
        lead->singly--;
}

struct stk_lead_thread *stk_lead_thread_get(struct stk_lead *lead, unsigned index)
{
    STK_ASSERT(index < lead->nthreads);
    return &lead->threads[index];
}

void stk_lead_limit(struct stk_lead *lead, unsigned threads)
{
    STK_ASSERT(threads <= lead->nthreads);
    lead->nthreads = threads;
}

struct stk_lead_thread *stk_lead_standby(struct stk_lead *lead)
{
    return lead->has_standby ? &lead->standby : NULL;
}

int stk_lead_wait(struct stk_lead *lead, struct epoll_event *events, stk_nsec timeout)
{
    int n, most = lead_batch(lead);

    if (timeout > 0 && timeout < STK_NSEC_PER_SEC / 100) {
#ifdef SYS_epoll_pwait2
        struct timespec ts = {.tv_nsec = (long)timeout};

        n = (int)syscall(SYS_epoll_pwait2, lead->loop->epfd, events, most, &ts, NULL,
                         sizeof(sigset_t));
        if (n >= 0 || errno == EINTR)
            return n < 0 ? 0 : n; /* else the kernel, or a filter of system calls, lacks it */
#endif
        n = stk_sys_epoll_wait(lead->loop->epfd, events, most, 1);
    } else {
        stk_nsec ms = timeout < 0 ? -1 : (timeout + STK_NSEC_PER_MSEC - 1) / STK_NSEC_PER_MSEC;

        n = stk_sys_epoll_wait(lead->loop->epfd, events, most, ms > INT_MAX ? INT_MAX : (int)ms);
    }
    STK_ASSERT(n >= 0 || errno == EINTR);
    return n < 0 ? 0 : n;
}

stk_nsec stk_lead_timeout(struct stk_lead *lead)
{
    stk_msec ms = stk_loop_next_timeout(lead->loop);

    return ms < 0 ? -1 : ms * STK_NSEC_PER_MSEC;
}

/*
 * A batch within an event loop of the application's, whose own callbacks get their turn after a
 * while; what is left is reported again. Then fewer events are taken next time: the kernel looks at
 * all that it reports, and reports first what was not reported last. False: the loop was taken.
 */
static bool lead_dispatch_hosted(struct stk_lead_thread *t, struct epoll_event *events, int n)
{
    struct stk_lead *lead = t->lead;
    struct stk_lead_hosted *h = lead->hosted;
    stk_msec coarse = stk_time_mono_coarse_ms();
    stk_nsec until =
        stk_time_mono_ns() + (atomic_load_explicit(&h->waiting, memory_order_relaxed) > 0
                                  ? LEAD_HOSTED_NS
                                  : LEAD_HOSTED_LONG_NS);
    int i = 0;

    while (i < n) {
        uint64_t word = t->word;

        stk_loop_dispatch(&events[i++], t);
        if (!t->own)
            return false;
        /* An event that has not called the application was short, as a rule (a message that is
         * inflated, or a handshake of TLS, is not); and while calls are, the exact clock costs a
         * hundredth of one. */
        if (i % LEAD_HOSTED_SHORT != 0 &&
            (t->word == word || stk_likely(lead_batch(lead) == STK_LOOP_BATCH)) &&
            stk_likely(stk_time_mono_coarse_ms() == coarse))
            continue;
        if (stk_time_mono_ns() > until)
            break;
        coarse = stk_time_mono_coarse_ms();
        lead_put_off(lead);
    }
    if (stk_unlikely(i < n)) {
        lead_set_batch(lead, i);
        if (!t->standby)
            h->own_ready = true; /* its event may be among the rest */
    } else if (stk_unlikely(lead_batch(lead) < STK_LOOP_BATCH)) {
        int more = lead_batch(lead) * 2;

        lead_set_batch(lead, more < STK_LOOP_BATCH ? more : STK_LOOP_BATCH);
    }
    return true;
}

void stk_lead_dispatch(struct stk_lead_thread *t, struct epoll_event *events, int n)
{
    if (stk_unlikely(t->lead->hosted != NULL)) {
        if (!lead_dispatch_hosted(t, events, n))
            return;
    } else {
        for (int i = 0; i < n; i++) {
            stk_loop_dispatch(&events[i], t);
            if (!t->own)
                return;
        }
    }
    stk_loop_run_timers(t->lead->loop, t);
}

/*
 * The stand-by has been roused, and still waits in epoll as the leader that it was: the wake-up it
 * was sent may have gone to this thread, which waits there too. Repeats it while nobody else can
 * take it.
 */
static void lead_expel_standby(struct stk_lead *lead)
{
    while (stk_unlikely(atomic_load_explicit(&lead->roused, memory_order_relaxed)) &&
           atomic_load(&lead->watch) == STK_LEAD_LEADING) {
        stk_loop_wake(lead->loop);
        sched_yield();
    }
}

void stk_lead_turn(struct stk_lead_thread *t, stk_nsec most)
{
    struct stk_lead *lead = t->lead;
    struct epoll_event events[STK_LOOP_BATCH];
    int n;

    stk_loop_reap(lead->loop);
    n = stk_lead_wait(lead, events, 0);
    stk_lead_set_backlog(lead, (unsigned)n);
    if (n == 0 && most != 0) {
        stk_nsec timeout;

        stk_loop_refresh(lead->loop);
        timeout = stk_lead_timeout(lead);
        if (stk_unlikely(most > 0) && (timeout < 0 || timeout > most))
            timeout = most;
        if (timeout != 0) {
            bool own;

            lead_expel_standby(lead);
            lead_disarm(lead);
            lead->ops->unlock(lead->arg, t);
            stk_lead_store(t, STK_LEAD_BLOCKED);
            if (atomic_load(&lead->stopping) || stk_lead_is_rung(lead))
                timeout = 0;
            n = stk_lead_wait(lead, events, timeout);
            stk_lead_set_backlog(lead, (unsigned)n);
            own = stk_lead_swap(t, STK_LEAD_WAIT_LOCK);
            if (own)
                stk_lead_arm(lead);
            lead->ops->lock(lead->arg, t);
            if (!own || !stk_lead_swap(t, STK_LEAD_TURNING))
                return;
        }
    }
    stk_loop_refresh(lead->loop);
    lead_put_off(lead);
    stk_lead_dispatch(t, events, n);
}

bool stk_lead_acquire(struct stk_lead_thread *t)
{
    struct stk_lead *lead = t->lead;
    uint64_t seen = stk_lead_seen(lead);

    if (STK_LEAD_STATE(seen) == STK_LEAD_SB_TURNING) {
        atomic_store(&lead->wanted, true);
        seen = stk_lead_seen(lead);
    }
    if (STK_LEAD_STATE(seen) != STK_LEAD_FREE && STK_LEAD_STATE(seen) != STK_LEAD_SB_BLOCKED)
        return false;
    if (!stk_lead_take(t, seen, STK_LEAD_TURNING))
        return false;
    atomic_store(&lead->wanted, false);
    stk_lead_arm(lead); /* it may call the application before it blocks for the first time */
    return true;
}

/* Whether the loop can be had. */
static bool lead_is_to_have(struct stk_lead *lead)
{
    enum stk_lead_state state = STK_LEAD_STATE(stk_lead_seen(lead));

    return state == STK_LEAD_FREE || state == STK_LEAD_SB_BLOCKED;
}

/*
 * A job was done while another leads. With the stand-by leading, every request costs two changes of
 * threads; as long as calls are short it is cheaper to lead again, although jobs wait.
 */
static void lead_retake(struct stk_lead_thread *t)
{
    stk_nsec now = stk_time_mono_ns();

    if (now - t->retake_from > LEAD_RETAKE_JOBS * STK_LEAD_TICK_MIN_NS) {
        t->retake_from = now;
        t->retake_jobs = 0;
    } else if (++t->retake_jobs >= LEAD_RETAKE_JOBS && lead_is_to_have(t->lead)) {
        t->retake_jobs = 0;
        (void)stk_lead_acquire(t);
    }
}

/* Sleeps until there is a job, the loop is free, or all is to stop. */
static void lead_park(struct stk_lead_thread *t)
{
    struct stk_lead *lead = t->lead;

    lead->ops->unlock(lead->arg, t);
    pthread_mutex_lock(&lead->mutex);
    atomic_fetch_add(&lead->idle, 1);
    stk_lead_publish_idle(lead);
    while (lead->tokens == 0 && !atomic_load(&lead->stopping) &&
           !(stk_lead_may_run(lead) &&
             (stk_lead_jobs_of(lead, false) > 0 || (!lead->mixed && lead_is_to_have(lead)))))
        pthread_cond_wait(&lead->cond, &lead->mutex);
    if (lead->tokens > 0)
        lead->tokens--;
    atomic_fetch_sub(&lead->idle, 1);
    stk_lead_publish_idle(lead);
    pthread_mutex_unlock(&lead->mutex);
    lead->ops->lock(lead->arg, t);
}

void stk_lead_attach(struct stk_lead_thread *t)
{
    t->state_fd = stk_thread_state_open();
    if (pthread_getcpuclockid(pthread_self(), &t->cpu_clock) == 0)
        __atomic_store_n(&t->attached, true, __ATOMIC_RELEASE);
}

void stk_lead_detach(struct stk_lead_thread *t)
{
    __atomic_store_n(&t->attached, false, __ATOMIC_RELEASE);
    if (t->own) {
        t->own = false;
        stk_lead_store(t, STK_LEAD_FREE);
    }
}

void stk_lead_run(struct stk_lead_thread *t)
{
    struct stk_lead *lead = t->lead;

    stk_lead_attach(t);
    while (!atomic_load_explicit(&lead->stopping, memory_order_relaxed)) {
        if (stk_lead_run_job(t)) {
            if (!t->own && !lead->mixed)
                lead_retake(t);
        } else if (t->own) {
            stk_lead_turn(t, -1);
        } else {
            /* After taking the loop jobs are looked for again: the last ones may be as new. */
            if (lead->mixed || !stk_lead_may_run(lead) || !stk_lead_acquire(t))
                lead_park(t);
            continue;
        }
        if (lead->ops->on_turn != NULL)
            lead->ops->on_turn(lead->arg, t);
    }
    stk_lead_detach(t);
}

void stk_lead_stop(struct stk_lead *lead)
{
    atomic_store(&lead->stopping, true);
    pthread_mutex_lock(&lead->mutex);
    pthread_cond_broadcast(&lead->cond);
    pthread_mutex_unlock(&lead->mutex);
    stk_loop_wake(lead->loop);
    stk_lead_ring(lead);
}

/* What others see of this lead, from nothing; where nobody wants to, it is our own memory. */
static void lead_set_share(struct stk_lead *lead, const struct stk_lead_share *share)
{
    lead->share.word = share->word != NULL ? share->word : &lead->own.word;
    lead->share.calls = share->calls != NULL ? share->calls : &lead->own.calls;
    lead->share.parked = share->parked != NULL ? share->parked : &lead->own.parked;
    lead->share.backlog = share->backlog != NULL ? share->backlog : &lead->own.backlog;
    lead->share.resting = share->resting != NULL ? share->resting : &lead->own.resting;
    atomic_store(lead->share.resting, 0);
    atomic_store(lead->share.word, 0);
    atomic_store(lead->share.calls, 0);
    atomic_store(lead->share.parked, 0);
    atomic_store(lead->share.backlog, 0);
}

int stk_lead_new(struct stk_lead **ret_lead, const struct stk_lead_params *params)
{
    struct stk_lead *lead = stk_new0(struct stk_lead);
    int r;

    lead->loop = params->loop;
    lead->ops = params->ops;
    lead->arg = params->arg;
    lead->nthreads = lead->nrecords = params->threads;
    lead->bounded = params->bounded;
    lead->shares = params->shares;
    lead_set_share(lead, &params->share);
    lead->timerfd = -1;
    lead_set_batch(lead, STK_LOOP_BATCH);
    lead->threads = stk_new0_array(struct stk_lead_thread, params->threads);
    for (unsigned i = 0; i < params->threads; i++) {
        lead->threads[i].lead = lead;
        lead->threads[i].shared_word = lead->share.word;
        lead->threads[i].shared_calls = lead->share.calls;
        lead->threads[i].index = i;
        lead->threads[i].state_fd = -1;
    }
    for (unsigned i = 0; i < STK_LEAD_KINDS; i++)
        stk_list_init(&lead->queues[i].jobs);
    r = pthread_mutex_init(&lead->mutex, NULL);
    STK_ASSERT(r == 0);
    r = pthread_cond_init(&lead->cond, NULL);
    STK_ASSERT(r == 0);
    if (params->standby) {
        r = stk_lead_start_standby(lead);
        if (r < 0) {
            stk_lead_free(lead);
            return r;
        }
    }
    *ret_lead = lead;
    return 0;
}

struct stk_lead *stk_lead_free(struct stk_lead *lead)
{
    if (lead == NULL)
        return NULL;
    if (lead->has_standby) {
        atomic_store(&lead->quitting, true);
        stk_loop_wake(lead->loop);
        stk_lead_set_timer(lead, 1, 0);
        pthread_join(lead->standby_id, NULL);
    }
    stk_lead_hosted_free(lead);
    stk_fd_close(&lead->timerfd);
    for (unsigned i = 0; i < lead->nrecords; i++)
        stk_fd_close(&lead->threads[i].state_fd);
    pthread_cond_destroy(&lead->cond);
    pthread_mutex_destroy(&lead->mutex);
    free(lead->threads);
    free(lead);
    return NULL;
}
