/*
 * The stand-by thread: ticks while an application thread leads, takes the loop when that one stays
 * where it is for a whole tick, and leads until a thread of the application takes it back. The head
 * comment of lead.c has the states.
 *
 * Where the queue is bounded it takes the loop at every tick that finds a call in progress: a
 * request that nobody has read yet waits as well, and can be counted and refused only here.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "loop/lead_priv.h"
#include "loop/thread_state.h"

enum {
    STANDBY_EAGER_MS = 10 * 1000, /* after a take-over the first look comes after a short tick */
    STANDBY_CALM_NS = 5 * 1000 * 1000, /* before the first look behind a light sleep */
    STANDBY_QUIET_TICKS = 3,           /* ticks without a sign of life before it sleeps */
    STANDBY_WAITS = 16,                /* ticks that a leader without a processor is given */
    STANDBY_STACK = 256 * 1024,
    STANDBY_LEAD_NS = 100 * 1000 * 1000, /* the longest wait while it leads */
    STANDBY_AGAIN_NS = 50 * 1000 * 1000, /* between two looks at a foreign event loop, at most */
};

/*
 * With nothing ready: gives the loop to a thread that wanted it and is parked. One that wanted it
 * and found a job instead does not come for it.
 */
static bool standby_give(struct stk_lead *lead)
{
    struct stk_lead_thread *t = &lead->standby;
    bool give;

    if (!atomic_load(&lead->wanted) || lead->hosted != NULL)
        return false;
    pthread_mutex_lock(&lead->mutex);
    give = atomic_load(&lead->idle) > 0 && stk_lead_jobs(lead) == 0;
    if (give) {
        atomic_store(&lead->wanted, false);
        t->own = false;
        stk_lead_store(t, STK_LEAD_FREE);
        pthread_cond_signal(&lead->cond);
    }
    pthread_mutex_unlock(&lead->mutex);
    return give;
}

/*
 * Gives the loop to an event loop of the application's that has come back for it. Should it be away
 * again the next tick takes it.
 */
static bool standby_give_hosted(struct stk_lead *lead)
{
    if (lead->hosted == NULL || !atomic_exchange(&lead->wanted, false))
        return false;
    lead->standby.own = false;
    stk_lead_store(&lead->standby, STK_LEAD_FREE);
    stk_lead_ring(lead);
    return true;
}

/* Calls on_tick; true while there is something to look after. */
static bool standby_look(struct stk_lead *lead)
{
    bool pending;

    atomic_store(&lead->roused, false);
    pending = lead->ops->on_tick != NULL && lead->ops->on_tick(lead->arg);
    if (stk_unlikely(lead->mixed) && stk_lead_share_jobs(lead))
        pending = true;
    atomic_store(&lead->pending, pending);
    return pending;
}

/*
 * How long the leading stand-by may wait: a tick while something has to be looked after. And not
 * for long in any case: a thread that takes the loop back leaves it where it is, because waking it
 * would cost each take-over a change of threads. From then on it watches nobody, so a call might
 * begin and last without being seen, until something happens in the loop.
 */
static stk_nsec standby_timeout(struct stk_lead *lead, bool pending, stk_nsec timeout)
{
    stk_nsec most = STANDBY_LEAD_NS;

    if (pending)
        most = STK_LEAD_TICK_MIN_NS;
    else if (stk_lead_jobs(lead) > 0 && (lead->nthreads > 1 || lead->shares))
        most = stk_lead_idle(lead) > 0 ? STK_LEAD_TICK_MIN_NS : STK_LEAD_TICK_MAX_NS;
    return timeout < 0 || timeout > most ? most : timeout;
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
        n = stk_lead_wait(lead, events, 0);
        if (n == 0) {
            stk_nsec timeout;

            if (standby_give(lead))
                return;
            if (stk_unlikely(lead->hosted != NULL))
                stk_lead_ring(lead); /* whenever it is back it may lead */
            stk_loop_refresh(lead->loop);
            timeout = standby_timeout(lead, pending, stk_lead_timeout(lead));
            stk_lead_store(t, STK_LEAD_SB_BLOCKED);
            n = stk_lead_wait(lead, events, timeout);
            if (!stk_lead_swap(t, STK_LEAD_SB_TURNING))
                return;
        }
        stk_loop_refresh(lead->loop);
        stk_lead_dispatch(t, events, n);
        (void)stk_lead_share_jobs(lead);
        if (standby_give_hosted(lead))
            return;
    }
    t->own = false;
    stk_lead_store(t, STK_LEAD_FREE);
}

/* What the ticking stand-by remembers from one tick to the next. */
struct standby_view {
    uint64_t word;
    unsigned quiet;
    unsigned leader;  /* the processor time of this thread ... */
    stk_nsec cpu, at; /* ... and when it was read */
    unsigned waits;
    bool dozing; /* sleeps until the loop has something to do */
    long again;  /* and so long at most, lest it is not seen when a callback has ended; 0: longer */
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
    if (pending || ++view->quiet < STANDBY_QUIET_TICKS || STK_LEAD_STATE(word) == STK_LEAD_TURNING)
        return;
    atomic_store(&lead->watch, STK_LEAD_ASLEEP);
    if (stk_lead_seen(lead) != word || atomic_load(&lead->roused) || atomic_load(&lead->minded)) {
        int asleep = STK_LEAD_ASLEEP;

        /* The leader may have armed the timer already, and then that is as good. */
        (void)atomic_compare_exchange_strong(&lead->watch, &asleep, STK_LEAD_TICKING);
        return;
    }
    stk_lead_set_timer(lead, 0, 0);
    if (atomic_load(&lead->watch) == STK_LEAD_ARMED) /* armed between the two: arm again */
        stk_lead_set_timer(lead, STK_LEAD_TICK_MIN_NS, 0);
    view->quiet = 0;
    atomic_store(&lead->tick_ns, 0);
}

static void standby_set_tick(struct stk_lead *lead, long ns)
{
    if (atomic_exchange(&lead->tick_ns, ns) != ns)
        stk_lead_set_timer(lead, ns, ns);
}

/* The leader is in another call than at the last tick: looks again soon, then more rarely. */
static long standby_next_tick(struct stk_lead *lead)
{
    long ns = atomic_load(&lead->tick_ns) * 2;

    if (atomic_exchange(&lead->put_off, false) || ns == 0)
        return STK_LEAD_TICK_MIN_NS;
    return ns > STK_LEAD_TICK_MAX_NS ? STK_LEAD_TICK_MAX_NS : ns;
}

/* Notes how much the leader has run. Whether it has hardly run since the last tick. */
static bool standby_sample(struct stk_lead *lead, struct standby_view *view)
{
    unsigned leader = atomic_load_explicit(&lead->leader, memory_order_relaxed);
    const struct stk_lead_thread *t = &lead->threads[leader];
    struct timespec ts;
    stk_nsec cpu, now;
    bool still;

    if (!__atomic_load_n(&t->attached, __ATOMIC_ACQUIRE) || clock_gettime(t->cpu_clock, &ts) < 0)
        return false;
    cpu = (stk_nsec)ts.tv_sec * STK_NSEC_PER_SEC + ts.tv_nsec;
    now = stk_time_mono_ns();
    still = leader == view->leader && (cpu - view->cpu) * 2 < now - view->at;
    view->leader = leader;
    view->cpu = cpu;
    view->at = now;
    return still;
}

/*
 * Whether the leader is where it was only because the kernel runs something else on its processor:
 * it will be back soon, and taking over for that would cost each request two changes of threads.
 */
static bool standby_is_put_aside(struct stk_lead *lead, struct standby_view *view, uint64_t word)
{
    return standby_sample(lead, view) && STK_LEAD_STATE(word) == STK_LEAD_IN_APP &&
           ++view->waits <= STANDBY_WAITS &&
           stk_thread_is_runnable(lead->threads[view->leader].state_fd);
}

/*
 * A foreign event loop is where it was, and may just wait, as nothing has happened here. Sleeps
 * until something does, or, while a callback may be at work, for a while.
 */
static void standby_doze(struct stk_lead *lead, struct standby_view *view, uint64_t word)
{
    if (!stk_lead_hosted_may_work(lead, word))
        view->again = 0;
    else if (view->again == 0)
        view->again = STK_LEAD_TICK_MAX_NS;
    else if (view->again * 2 <= STANDBY_AGAIN_NS)
        view->again *= 2;
    view->dozing = true;
    atomic_store(&lead->watch, STK_LEAD_ASLEEP);
    if (stk_lead_seen(lead) != word || atomic_load(&lead->roused) || atomic_load(&lead->minded)) {
        int asleep = STK_LEAD_ASLEEP;

        view->dozing = false;
        if (atomic_compare_exchange_strong(&lead->watch, &asleep, STK_LEAD_TICKING))
            standby_set_tick(lead, STK_LEAD_TICK_MIN_NS); /* a look `again` was a single tick */
        return;
    }
    stk_lead_set_timer(lead, view->again, 0);
    if (atomic_load(&lead->watch) == STK_LEAD_ARMED) /* as in standby_rest */
        stk_lead_set_timer(lead, STK_LEAD_TICK_MIN_NS, 0);
    atomic_store(&lead->tick_ns, 0);
}

/* Until the timer fires, or the loop has something to do: then ticks again. */
static void standby_sleep_lightly(struct stk_lead *lead, struct standby_view *view)
{
    struct pollfd fds[2] = {{.fd = lead->timerfd, .events = POLLIN},
                            {.fd = lead->loop->epfd, .events = POLLIN}};
    int asleep = STK_LEAD_ASLEEP;

    if (poll(fds, 2, -1) < 0)
        return;
    view->dozing = false;
    if (atomic_compare_exchange_strong(&lead->watch, &asleep, STK_LEAD_TICKING) &&
        fds[0].revents == 0)
        standby_set_tick(lead, stk_loop_now(lead->loop) < atomic_load(&lead->eager_until)
                                   ? STK_LEAD_TICK_MIN_NS
                                   : STANDBY_CALM_NS);
}

/* One tick: takes the loop when the leader is where it was at the last one. */
static void standby_tick(struct stk_lead *lead, struct standby_view *view)
{
    bool pending = standby_look(lead);
    uint64_t word = stk_lead_seen(lead);
    bool same = word == view->word;

    view->word = word;
    if (standby_must_watch(lead, word)) {
        view->quiet = 0;
        if (!same) {
            view->waits = 0;
            view->again = 0;
        }
        if (same && !pending && !stk_lead_hosted_is_due(lead)) {
            standby_doze(lead, view, word);
            return;
        }
        if ((same && !standby_is_put_aside(lead, view, word)) || lead->bounded) {
            atomic_store(&lead->watch, STK_LEAD_LEADING);
            if (stk_lead_take(&lead->standby, word, STK_LEAD_SB_TURNING)) {
                atomic_store(&lead->eager_until, stk_loop_now(lead->loop) + STANDBY_EAGER_MS);
                stk_lead_set_timer(lead, 0, 0);
                atomic_store(&lead->tick_ns, 0);
                standby_lead(lead);
                stk_lead_set_computing(lead, false);
            }
            atomic_store(&lead->watch, STK_LEAD_TICKING);
            view->word = stk_lead_seen(lead);
            standby_set_tick(lead, STK_LEAD_TICK_MIN_NS);
            return;
        }
        if (lead->nthreads > 1)
            (void)stk_lead_is_computing(
                lead); /* a first sample, for the decision after a take-over */
        if (!same)
            (void)standby_sample(lead, view);
        standby_set_tick(lead, same ? STK_LEAD_TICK_MIN_NS : standby_next_tick(lead));
        return;
    }
    if (!same) {
        view->quiet = 0;
        standby_set_tick(lead, pending ? STK_LEAD_TICK_MIN_NS : STK_LEAD_TICK_MAX_NS);
        return;
    }
    standby_set_tick(lead, pending ? STK_LEAD_TICK_MIN_NS : STK_LEAD_TICK_MAX_NS);
    standby_rest(lead, view, word, pending);
}

static void *standby_main(void *arg)
{
    struct stk_lead *lead = arg;
    struct standby_view view = {0};

    while (!atomic_load(&lead->quitting)) {
        uint64_t ticks;
        int armed = STK_LEAD_ARMED;

        if (view.dozing)
            standby_sleep_lightly(lead, &view);
        if (read(lead->timerfd, &ticks, sizeof ticks) < 0)
            continue;
        if (atomic_load(&lead->quitting))
            break;
        if (atomic_compare_exchange_strong(&lead->watch, &armed, STK_LEAD_TICKING)) {
            atomic_store(&lead->tick_ns, 0);
        } else if (armed == STK_LEAD_ASLEEP) {
            /* Disarmed just as it fired, or put off just as it went to sleep. */
            stk_lead_set_timer(lead, 0, 0);
            if (atomic_load(&lead->watch) == STK_LEAD_ARMED)
                stk_lead_set_timer(lead, STK_LEAD_TICK_MIN_NS, 0);
            continue;
        }
        standby_tick(lead, &view);
    }
    return NULL;
}

int stk_lead_start_standby(struct stk_lead *lead)
{
    pthread_attr_t attr;
    sigset_t all, old;
    int r;

    lead->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (lead->timerfd < 0)
        return -errno;
    lead->standby = (struct stk_lead_thread){.lead = lead,
                                             .standby = true,
                                             .picky = true,
                                             .index = lead->nthreads,
                                             .shared_word = lead->share.word,
                                             .shared_calls = lead->share.calls};
    r = pthread_attr_init(&attr);
    if (r != 0)
        return -r;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_attr_setstacksize(&attr, STANDBY_STACK);
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
