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
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/sys.h"
#include "loop/loop_priv.h"

enum {
    LEAD_TICK_MIN_NS = 250 * 1000,
    LEAD_TICK_MAX_NS = 1000 * 1000,
    LEAD_CALM_NS = 5 * 1000 * 1000, /* the first look while calls are short, see lead_arm */
    LEAD_EAGER_MS = 10 * 1000,      /* after a take-over the first look comes after a short tick */
    LEAD_PUT_OFF_NS = 1500 * 1000,  /* with the tick behind it still below two long ticks */
    LEAD_PUT_OFF_EVERY_NS = 500 * 1000, /* at most so often */
    LEAD_COMPUTE_NS = 5 * 1000 * 1000, /* a computing thread gets a rival for the lock after this */
    LEAD_SAMPLE_NS = 200 * 1000,       /* between two looks at the CPU clocks */
    LEAD_ARMS_PER_MS = 4,              /* more bursts a millisecond than this: leave the tick on */
    LEAD_QUIET_TICKS = 3,              /* ticks without a sign of life before it sleeps */
    LEAD_STACK = 256 * 1024,
};

/* Where the stand-by is. */
enum lead_watch {
    LEAD_ASLEEP,  /* reads the unarmed timerfd */
    LEAD_ARMED,   /* reads the timerfd, which the leader armed */
    LEAD_TICKING, /* reads the timerfd, which it keeps armed itself */
    LEAD_LEADING, /* turns the loop, or waits in epoll */
};

struct stk_lead {
    struct stk_lead_word word; /* first: see stk_lead_enter */
    struct stk_loop *loop;
    const struct stk_lead_ops *ops;
    void *arg;
    unsigned nthreads;
    struct stk_lead_thread *threads;
    struct stk_lead_thread standby;
    bool has_standby;
    pthread_t standby_id;
    int timerfd;
    _Atomic int watch;
    _Atomic stk_msec eager_until; /* on the loop's clock */
    _Atomic bool stopping;
    _Atomic bool quitting;
    _Atomic bool wanted;    /* a parked thread would lead */
    _Atomic bool roused;    /* on_tick has to be called soon: do not disarm */
    _Atomic bool computing; /* a thread computes: others leave the interpreter to it */
    _Atomic bool pending;   /* on_tick has something to look after: no tick is put off */
    _Atomic bool put_off;   /* ticks were, since the last one */
    stk_nsec put_off_at;    /* of the leader */
    _Atomic long tick_ns;   /* between ticks; 0: there are none */
    stk_nsec sampled_at;    /* of the stand-by: when the CPU clocks were looked at */
    stk_msec arm_ms;        /* the millisecond of the last burst, and how many it had */
    unsigned arms;

    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t cond;
    struct stk_list jobs;
    _Atomic unsigned njobs;
    _Atomic unsigned idle;
    unsigned tokens;
};

static uint64_t lead_word(uint64_t old, enum stk_lead_state state)
{
    return ((old >> 3) + 1) << 3 | (uint64_t)state;
}

/* Changes the state as the owner. */
static void lead_store(struct stk_lead_thread *t, enum stk_lead_state state)
{
    t->word = lead_word(t->word, state);
    atomic_store(&t->lead->word.word, t->word);
}

/* Changes the state from one that others may take the loop from; false: it was taken. */
static bool lead_swap(struct stk_lead_thread *t, enum stk_lead_state state)
{
    uint64_t expected = t->word;
    uint64_t next = lead_word(t->word, state);

    if (!atomic_compare_exchange_strong(&t->lead->word.word, &expected, next)) {
        t->own = false;
        return false;
    }
    t->word = next;
    return true;
}

/* Takes the loop from the word that was seen. */
static bool lead_take(struct stk_lead_thread *t, uint64_t seen, enum stk_lead_state state)
{
    uint64_t next = lead_word(seen, state);

    if (!atomic_compare_exchange_strong(&t->lead->word.word, &seen, next))
        return false;
    t->word = next;
    t->own = true;
    return true;
}

static void lead_set_timer(struct stk_lead *lead, long first_ns, long every_ns)
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
static void lead_arm(struct stk_lead *lead)
{
    int asleep = LEAD_ASLEEP;

    if (lead->has_standby && atomic_load(&lead->watch) == LEAD_ASLEEP &&
        atomic_compare_exchange_strong(&lead->watch, &asleep, LEAD_ARMED))
        lead_set_timer(lead,
                       stk_loop_now(lead->loop) < atomic_load(&lead->eager_until) ? LEAD_TICK_MIN_NS
                                                                                  : LEAD_CALM_NS,
                       0);
}

/* The leader is about to block: nobody needs to watch it, unless bursts come thick. */
static void lead_disarm(struct stk_lead *lead)
{
    int armed = LEAD_ARMED;

    if (!lead->has_standby ||
        atomic_load_explicit(&lead->watch, memory_order_relaxed) != LEAD_ARMED)
        return;
    if (lead->arm_ms == lead->loop->now) {
        if (++lead->arms > LEAD_ARMS_PER_MS)
            return;
    } else {
        lead->arm_ms = lead->loop->now;
        lead->arms = 0;
    }
    if (!atomic_compare_exchange_strong(&lead->watch, &armed, LEAD_ASLEEP))
        return;
    lead_set_timer(lead, 0, 0);
    if (atomic_load(&lead->roused))
        lead_arm(lead);
    if (atomic_load(&lead->watch) == LEAD_ARMED) /* armed before the timer was stopped: again */
        lead_set_timer(lead, LEAD_TICK_MIN_NS, 0);
}

/* The leader gets on: as long as it does, the ticking stand-by need not look. */
static void lead_put_off(struct stk_lead *lead)
{
    stk_nsec now;

    if (!lead->has_standby ||
        atomic_load_explicit(&lead->watch, memory_order_relaxed) != LEAD_TICKING ||
        atomic_load_explicit(&lead->pending, memory_order_relaxed) ||
        atomic_load_explicit(&lead->roused, memory_order_relaxed))
        return;
    now = stk_time_mono_ns();
    if (now - lead->put_off_at < LEAD_PUT_OFF_EVERY_NS)
        return;
    lead->put_off_at = now;
    atomic_store(&lead->put_off, true);
    atomic_store(&lead->tick_ns, LEAD_TICK_MAX_NS);
    lead_set_timer(lead, LEAD_PUT_OFF_NS, LEAD_TICK_MAX_NS);
}

void stk_lead_rouse(struct stk_lead *lead)
{
    if (!lead->has_standby)
        return;
    atomic_store(&lead->roused, true);
    lead_arm(lead);
    switch (atomic_load(&lead->watch)) {
    case LEAD_ARMED:
        /* Soon, however calm it is; with an interval, lest a tick that begins meanwhile be the
         * last. */
        lead_set_timer(lead, LEAD_TICK_MIN_NS, LEAD_TICK_MIN_NS);
        break;
    case LEAD_LEADING:
        stk_loop_wake(lead->loop);
        break;
    default:
        break;
    }
}

unsigned stk_lead_jobs(const struct stk_lead *lead)
{
    return atomic_load_explicit(&lead->njobs, memory_order_relaxed);
}

unsigned stk_lead_idle(const struct stk_lead *lead)
{
    return atomic_load_explicit(&lead->idle, memory_order_relaxed);
}

struct stk_lead_thread *stk_lead_thread_get(struct stk_lead *lead, unsigned index)
{
    STK_ASSERT(index < lead->nthreads);
    return &lead->threads[index];
}

struct stk_lead_thread *stk_lead_standby(struct stk_lead *lead)
{
    return lead->has_standby ? &lead->standby : NULL;
}

/* Waits for events; `timeout` in nanoseconds, -1: none. Returns their number, 0 on EINTR. */
static int lead_wait(struct stk_lead *lead, struct epoll_event *events, stk_nsec timeout)
{
    int n;

    if (timeout > 0 && timeout < STK_NSEC_PER_SEC / 100) {
#ifdef SYS_epoll_pwait2
        struct timespec ts = {.tv_nsec = (long)timeout};

        n = (int)syscall(SYS_epoll_pwait2, lead->loop->epfd, events, STK_LOOP_BATCH, &ts, NULL,
                         sizeof(sigset_t));
        if (n >= 0 || errno == EINTR)
            return n < 0 ? 0 : n; /* else the kernel, or a filter of system calls, lacks it */
#endif
        n = stk_sys_epoll_wait(lead->loop->epfd, events, STK_LOOP_BATCH, 1);
    } else {
        stk_nsec ms = timeout < 0 ? -1 : (timeout + STK_NSEC_PER_MSEC - 1) / STK_NSEC_PER_MSEC;

        n = stk_sys_epoll_wait(lead->loop->epfd, events, STK_LOOP_BATCH,
                               ms > INT_MAX ? INT_MAX : (int)ms);
    }
    STK_ASSERT(n >= 0 || errno == EINTR);
    return n < 0 ? 0 : n;
}

static stk_nsec lead_timeout(struct stk_lead *lead)
{
    stk_msec ms = stk_loop_next_timeout(lead->loop);

    return ms < 0 ? -1 : ms * STK_NSEC_PER_MSEC;
}

/* Handles a batch as the owner; stops at once when the loop was taken meanwhile. */
static void lead_dispatch(struct stk_lead_thread *t, struct epoll_event *events, int n)
{
    for (int i = 0; i < n; i++) {
        stk_loop_dispatch(&events[i], t);
        if (!t->own)
            return;
    }
    stk_loop_run_timers(t->lead->loop, t);
}

/* One turn of an application thread that owns the loop. */
static void lead_turn(struct stk_lead_thread *t)
{
    struct stk_lead *lead = t->lead;
    struct epoll_event events[STK_LOOP_BATCH];
    int n;

    stk_loop_reap(lead->loop);
    n = lead_wait(lead, events, 0);
    if (n == 0) {
        stk_nsec timeout;

        stk_loop_refresh(lead->loop);
        timeout = lead_timeout(lead);
        if (timeout != 0) {
            bool own;

            lead_disarm(lead);
            lead->ops->unlock(lead->arg, t);
            lead_store(t, STK_LEAD_BLOCKED);
            if (atomic_load(&lead->stopping))
                timeout = 0;
            n = lead_wait(lead, events, timeout);
            own = lead_swap(t, STK_LEAD_WAIT_LOCK);
            if (own)
                lead_arm(lead);
            lead->ops->lock(lead->arg, t);
            if (!own || !lead_swap(t, STK_LEAD_TURNING))
                return;
        }
    }
    stk_loop_refresh(lead->loop);
    lead_put_off(lead);
    lead_dispatch(t, events, n);
}

static bool lead_is_any_running(const struct stk_lead *lead)
{
    for (unsigned i = 0; i < lead->nthreads; i++) {
        if (atomic_load_explicit(&lead->threads[i].calls, memory_order_relaxed) & 1)
            return true;
    }
    return false;
}

/* Whether a thread without work may take a job: not when it would only fight for the interpreter.
 */
static bool lead_may_run(const struct stk_lead *lead)
{
    return !atomic_load(&lead->computing) || !lead_is_any_running(lead);
}

static struct stk_job *lead_pop(struct stk_lead *lead)
{
    struct stk_list *node;

    if (atomic_load_explicit(&lead->njobs, memory_order_relaxed) == 0 || !lead_may_run(lead))
        return NULL;
    pthread_mutex_lock(&lead->mutex);
    node = stk_list_pop(&lead->jobs);
    if (node != NULL)
        atomic_fetch_sub_explicit(&lead->njobs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&lead->mutex);
    return node ? stk_container_of(node, struct stk_job, link) : NULL;
}

/* Takes the loop if it is free or the stand-by only waits. */
static bool lead_acquire(struct stk_lead_thread *t)
{
    struct stk_lead *lead = t->lead;
    uint64_t seen = atomic_load(&lead->word.word);

    if (STK_LEAD_STATE(seen) == STK_LEAD_SB_TURNING) {
        atomic_store(&lead->wanted, true);
        seen = atomic_load(&lead->word.word);
    }
    if (STK_LEAD_STATE(seen) != STK_LEAD_FREE && STK_LEAD_STATE(seen) != STK_LEAD_SB_BLOCKED)
        return false;
    if (!lead_take(t, seen, STK_LEAD_TURNING))
        return false;
    atomic_store(&lead->wanted, false);
    lead_arm(lead); /* it may call the application before it blocks for the first time */
    return true;
}

/* Whether the loop can be had. */
static bool lead_is_to_have(struct stk_lead *lead)
{
    enum stk_lead_state state = STK_LEAD_STATE(atomic_load(&lead->word.word));

    return state == STK_LEAD_FREE || state == STK_LEAD_SB_BLOCKED;
}

/* Sleeps until there is a job, the loop is free, or all is to stop. */
static void lead_park(struct stk_lead_thread *t)
{
    struct stk_lead *lead = t->lead;

    lead->ops->unlock(lead->arg, t);
    pthread_mutex_lock(&lead->mutex);
    atomic_fetch_add(&lead->idle, 1);
    while (lead->tokens == 0 && !atomic_load(&lead->stopping) &&
           !(lead_may_run(lead) && (!stk_list_is_empty(&lead->jobs) || lead_is_to_have(lead))))
        pthread_cond_wait(&lead->cond, &lead->mutex);
    if (lead->tokens > 0)
        lead->tokens--;
    atomic_fetch_sub(&lead->idle, 1);
    pthread_mutex_unlock(&lead->mutex);
    lead->ops->lock(lead->arg, t);
}

void stk_lead_run(struct stk_lead_thread *t)
{
    struct stk_lead *lead = t->lead;

    if (pthread_getcpuclockid(pthread_self(), &t->cpu_clock) == 0)
        __atomic_store_n(&t->attached, true, __ATOMIC_RELEASE);
    while (!atomic_load_explicit(&lead->stopping, memory_order_relaxed)) {
        struct stk_job *job = lead_pop(lead);

        if (job != NULL) {
            job->run(job, t);
        } else if (t->own) {
            lead_turn(t);
        } else {
            /* After taking the loop jobs are looked for again: the last ones may be as new. */
            if (!lead_may_run(lead) || !lead_acquire(t))
                lead_park(t);
            continue;
        }
        if (lead->ops->on_turn != NULL)
            lead->ops->on_turn(lead->arg, t);
    }
    __atomic_store_n(&t->attached, false, __ATOMIC_RELEASE);
    if (t->own) {
        t->own = false;
        lead_store(t, STK_LEAD_FREE);
    }
}

void stk_lead_stop(struct stk_lead *lead)
{
    atomic_store(&lead->stopping, true);
    pthread_mutex_lock(&lead->mutex);
    pthread_cond_broadcast(&lead->cond);
    pthread_mutex_unlock(&lead->mutex);
    stk_loop_wake(lead->loop);
}

/*
 * Whether some thread has been computing since the last look (its CPU clock ran), for less than
 * LEAD_COMPUTE_NS: then another thread would only fight with it for the interpreter's lock.
 */
static bool lead_is_computing(struct stk_lead *lead)
{
    stk_nsec now = stk_time_mono_ns();
    bool computing = false;

    for (unsigned i = 0; i < lead->nthreads; i++) {
        struct stk_lead_thread *t = &lead->threads[i];
        uint64_t calls = atomic_load_explicit(&t->calls, memory_order_relaxed);
        struct timespec ts;
        stk_nsec cpu;

        if (!(calls & 1) || !__atomic_load_n(&t->attached, __ATOMIC_ACQUIRE))
            continue;
        if (clock_gettime(t->cpu_clock, &ts) < 0)
            continue;
        cpu = (stk_nsec)ts.tv_sec * STK_NSEC_PER_SEC + ts.tv_nsec;
        if (calls != t->seen_calls) {
            t->seen_calls = calls;
            t->seen_since = now;
        }
        if ((cpu - t->seen_cpu) * 2 > now - t->seen_at && now - t->seen_since < LEAD_COMPUTE_NS)
            computing = true;
        t->seen_cpu = cpu;
        t->seen_at = now;
    }
    return computing;
}

/* Wakes as many parked threads as there are jobs for, at most `most`. Mutex held. */
static void lead_wake_locked(struct stk_lead *lead, unsigned most)
{
    unsigned idle = atomic_load_explicit(&lead->idle, memory_order_relaxed);
    unsigned jobs = atomic_load_explicit(&lead->njobs, memory_order_relaxed);

    if (jobs > most)
        jobs = most;
    while (lead->tokens < idle && lead->tokens < jobs) {
        lead->tokens++;
        pthread_cond_signal(&lead->cond);
    }
}

void stk_lead_post(struct stk_lead *lead, struct stk_job *job)
{
    stk_list_init(&job->link);
    pthread_mutex_lock(&lead->mutex);
    stk_list_append(&lead->jobs, &job->link);
    atomic_fetch_add_explicit(&lead->njobs, 1, memory_order_relaxed);
    if (!lead_is_any_running(lead))
        lead_wake_locked(lead, 1);
    pthread_mutex_unlock(&lead->mutex);
}

/* After a turn of the leading stand-by: wakes parked threads for the jobs. */
static void standby_share(struct stk_lead *lead)
{
    stk_nsec now;

    if (stk_lead_jobs(lead) == 0 || lead->nthreads == 1)
        return;
    now = stk_time_mono_ns();
    if (now - lead->sampled_at < LEAD_SAMPLE_NS)
        return;
    lead->sampled_at = now;
    if (lead_is_computing(lead)) {
        atomic_store(&lead->computing, true);
        return;
    }
    atomic_store(&lead->computing, false);
    pthread_mutex_lock(&lead->mutex);
    lead_wake_locked(lead, UINT_MAX);
    pthread_mutex_unlock(&lead->mutex);
}

/*
 * With nothing ready: gives the loop to a thread that wanted it and is parked. One that wanted it
 * and found a job instead does not come for it.
 */
static bool standby_give(struct stk_lead *lead)
{
    struct stk_lead_thread *t = &lead->standby;
    bool give;

    if (!atomic_load(&lead->wanted))
        return false;
    pthread_mutex_lock(&lead->mutex);
    give = atomic_load(&lead->idle) > 0 && stk_list_is_empty(&lead->jobs);
    if (give) {
        atomic_store(&lead->wanted, false);
        t->own = false;
        lead_store(t, STK_LEAD_FREE);
        pthread_cond_signal(&lead->cond);
    }
    pthread_mutex_unlock(&lead->mutex);
    return give;
}

/* Calls on_tick; true while there is something to look after. */
static bool standby_look(struct stk_lead *lead)
{
    bool pending;

    atomic_store(&lead->roused, false);
    pending = lead->ops->on_tick != NULL && lead->ops->on_tick(lead->arg);
    atomic_store(&lead->pending, pending);
    return pending;
}

/* How long the leading stand-by may wait: a tick while something has to be looked after. */
static stk_nsec standby_timeout(struct stk_lead *lead, bool pending, stk_nsec timeout)
{
    stk_nsec most = -1;

    if (pending)
        most = LEAD_TICK_MIN_NS;
    else if (stk_lead_jobs(lead) > 0 && lead->nthreads > 1)
        most = stk_lead_idle(lead) > 0 ? LEAD_TICK_MIN_NS : LEAD_TICK_MAX_NS;
    return most > 0 && (timeout < 0 || timeout > most) ? most : timeout;
}

/* Turns the loop until a thread of the application takes it back. */
static void standby_lead(struct stk_lead *lead)
{
    struct stk_lead_thread *t = &lead->standby;
    struct epoll_event events[STK_LOOP_BATCH];

    while (!atomic_load_explicit(&lead->quitting, memory_order_relaxed)) {
        bool pending = standby_look(lead);
        int n;

        stk_loop_reap(lead->loop);
        n = lead_wait(lead, events, 0);
        if (n == 0) {
            stk_nsec timeout;

            if (standby_give(lead))
                return;
            stk_loop_refresh(lead->loop);
            timeout = standby_timeout(lead, pending, lead_timeout(lead));
            lead_store(t, STK_LEAD_SB_BLOCKED);
            n = lead_wait(lead, events, timeout);
            if (!lead_swap(t, STK_LEAD_SB_TURNING))
                return;
        }
        stk_loop_refresh(lead->loop);
        lead_dispatch(t, events, n);
        standby_share(lead);
    }
    t->own = false;
    lead_store(t, STK_LEAD_FREE);
}

/* What the ticking stand-by remembers from one tick to the next. */
struct standby_view {
    uint64_t word;
    unsigned quiet;
};

/* Whether the loop is to be taken if it stays in this state for a tick. */
static bool standby_must_watch(const struct stk_lead *lead, uint64_t word)
{
    switch (STK_LEAD_STATE(word)) {
    case STK_LEAD_IN_APP:
    case STK_LEAD_WAIT_LOCK:
        return true;
    case STK_LEAD_FREE: /* given to a thread that waits for the interpreter */
        return !atomic_load(&lead->stopping);
    default:
        return false;
    }
}

/* Goes to sleep after enough quiet ticks, unless the leader has woken up in the meantime. */
static void standby_rest(struct stk_lead *lead, struct standby_view *view, uint64_t word,
                         bool pending)
{
    if (pending || ++view->quiet < LEAD_QUIET_TICKS || STK_LEAD_STATE(word) == STK_LEAD_TURNING)
        return;
    atomic_store(&lead->watch, LEAD_ASLEEP);
    if (atomic_load(&lead->word.word) != word || atomic_load(&lead->roused)) {
        int asleep = LEAD_ASLEEP;

        /* The leader may have armed the timer already, and then that is as good. */
        (void)atomic_compare_exchange_strong(&lead->watch, &asleep, LEAD_TICKING);
        return;
    }
    lead_set_timer(lead, 0, 0);
    if (atomic_load(&lead->watch) == LEAD_ARMED) /* armed between the two: arm again */
        lead_set_timer(lead, LEAD_TICK_MIN_NS, 0);
    view->quiet = 0;
    atomic_store(&lead->tick_ns, 0);
}

static void standby_set_tick(struct stk_lead *lead, long ns)
{
    if (atomic_exchange(&lead->tick_ns, ns) != ns)
        lead_set_timer(lead, ns, ns);
}

/* The leader is in another call than at the last tick: looks again soon, then more rarely. */
static long standby_next_tick(struct stk_lead *lead)
{
    long ns = atomic_load(&lead->tick_ns) * 2;

    if (atomic_exchange(&lead->put_off, false) || ns == 0)
        return LEAD_TICK_MIN_NS;
    return ns > LEAD_TICK_MAX_NS ? LEAD_TICK_MAX_NS : ns;
}

/* One tick: takes the loop when the leader is where it was at the last one. */
static void standby_tick(struct stk_lead *lead, struct standby_view *view)
{
    bool pending = standby_look(lead);
    uint64_t word = atomic_load(&lead->word.word);
    bool same = word == view->word;

    view->word = word;
    if (standby_must_watch(lead, word)) {
        view->quiet = 0;
        if (same) {
            atomic_store(&lead->watch, LEAD_LEADING);
            if (lead_take(&lead->standby, word, STK_LEAD_SB_TURNING)) {
                atomic_store(&lead->eager_until, stk_loop_now(lead->loop) + LEAD_EAGER_MS);
                lead_set_timer(lead, 0, 0);
                atomic_store(&lead->tick_ns, 0);
                standby_lead(lead);
                atomic_store(&lead->computing, false);
            }
            atomic_store(&lead->watch, LEAD_TICKING);
            view->word = atomic_load(&lead->word.word);
            standby_set_tick(lead, LEAD_TICK_MIN_NS);
            return;
        }
        if (lead->nthreads > 1)
            (void)lead_is_computing(lead); /* a first sample, for the decision after a take-over */
        standby_set_tick(lead, standby_next_tick(lead));
        return;
    }
    if (!same) {
        view->quiet = 0;
        standby_set_tick(lead, pending ? LEAD_TICK_MIN_NS : LEAD_TICK_MAX_NS);
        return;
    }
    standby_set_tick(lead, pending ? LEAD_TICK_MIN_NS : LEAD_TICK_MAX_NS);
    standby_rest(lead, view, word, pending);
}

static void *standby_main(void *arg)
{
    struct stk_lead *lead = arg;
    struct standby_view view = {0};

    while (!atomic_load(&lead->quitting)) {
        uint64_t ticks;
        int armed = LEAD_ARMED;

        if (read(lead->timerfd, &ticks, sizeof ticks) < 0)
            continue;
        if (atomic_load(&lead->quitting))
            break;
        if (atomic_compare_exchange_strong(&lead->watch, &armed, LEAD_TICKING)) {
            atomic_store(&lead->tick_ns, 0);
        } else if (armed == LEAD_ASLEEP) {
            /* Disarmed just as it fired, or put off just as it went to sleep. */
            lead_set_timer(lead, 0, 0);
            if (atomic_load(&lead->watch) == LEAD_ARMED)
                lead_set_timer(lead, LEAD_TICK_MIN_NS, 0);
            continue;
        }
        standby_tick(lead, &view);
    }
    return NULL;
}

static int lead_start_standby(struct stk_lead *lead)
{
    pthread_attr_t attr;
    sigset_t all, old;
    int r;

    lead->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (lead->timerfd < 0)
        return -errno;
    lead->standby =
        (struct stk_lead_thread){.lead = lead, .standby = true, .index = lead->nthreads};
    r = pthread_attr_init(&attr);
    if (r != 0)
        return -r;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_attr_setstacksize(&attr, LEAD_STACK);
    if (r == 0)
        r = pthread_create(&lead->standby_id, &attr, standby_main, lead);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (r != 0)
        return -r;
    (void)pthread_setname_np(lead->standby_id, "stoker-net");
    lead->has_standby = true;
    return 0;
}

int stk_lead_new(struct stk_lead **ret_lead, const struct stk_lead_params *params)
{
    struct stk_lead *lead = stk_new0(struct stk_lead);
    int r;

    lead->loop = params->loop;
    lead->ops = params->ops;
    lead->arg = params->arg;
    lead->nthreads = params->threads;
    lead->timerfd = -1;
    lead->threads = stk_new0_array(struct stk_lead_thread, params->threads);
    for (unsigned i = 0; i < params->threads; i++) {
        lead->threads[i].lead = lead;
        lead->threads[i].index = i;
    }
    stk_list_init(&lead->jobs);
    r = pthread_mutex_init(&lead->mutex, NULL);
    STK_ASSERT(r == 0);
    r = pthread_cond_init(&lead->cond, NULL);
    STK_ASSERT(r == 0);
    if (params->standby) {
        r = lead_start_standby(lead);
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
        lead_set_timer(lead, 1, 0);
        pthread_join(lead->standby_id, NULL);
    }
    stk_fd_close(&lead->timerfd);
    pthread_cond_destroy(&lead->cond);
    pthread_mutex_destroy(&lead->mutex);
    free(lead->threads);
    free(lead);
    return NULL;
}
