/*
 * Leadership over a loop: which thread turns it, and how another takes over when that one is held
 * up in the application.
 *
 * The threads of the application turn the loop themselves and run requests inline, which saves
 * the hand-off per request. A stand-by thread, which never touches the interpreter, watches: when
 * the leader stays in one call (or waits for the interpreter's lock) for a whole tick, the stand-by
 * takes the loop, does all that needs no application, and queues complete requests as jobs. A
 * thread that ends its call takes a queued job; if there is none it takes the loop back, or parks
 * when another thread of the application leads already.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/list.h"
#include "base/macros.h"
#include "base/time.h"

struct stk_loop;
struct stk_lead;

enum stk_lead_state {
    STK_LEAD_FREE,       /* nobody turns the loop */
    STK_LEAD_TURNING,    /* an application thread does I/O */
    STK_LEAD_IN_APP,     /* it runs the application: may be taken */
    STK_LEAD_WAIT_LOCK,  /* it waits for the interpreter: may be taken */
    STK_LEAD_BLOCKED,    /* it waits in epoll */
    STK_LEAD_SB_TURNING, /* the stand-by does I/O */
    STK_LEAD_SB_BLOCKED, /* the stand-by waits in epoll: an application thread may take the loop */
};

/* A thread that can turn the loop; `user` is the server's state of the thread. */
struct stk_lead_thread {
    struct stk_lead *lead;
    unsigned index;
    bool standby; /* may not call the application */
    bool own;     /* owns the loop */
    bool picky;   /* some requests, or all, are not for it now: see stk_lead_is_for */
    bool full;    /* none is: see stk_lead_hold */
    void *user;
    void *host_thread;
    uint64_t word;                  /* what *shared_word holds while own */
    _Atomic uint64_t calls;         /* odd: inside the application */
    _Atomic bool at_job;            /* has one that it took from the queue */
    _Atomic uint64_t *shared_word;  /* of the lead */
    _Atomic uint64_t *shared_calls; /* likewise */
    clockid_t cpu_clock;
    int state_fd; /* thread_state.h */
    bool attached;
    unsigned retake_jobs; /* done since retake_from, while another led */
    stk_nsec retake_from;
    /* the stand-by's notes on this thread */
    uint64_t seen_calls;
    stk_nsec seen_at, seen_cpu, seen_since;
};

/* A complete request that waits for an application thread. */
struct stk_job {
    struct stk_list link;
    stk_nsec since; /* of its waiting, monotonic clock; 0: from its post on */
    bool loop;      /* for the thread of the event loop, where there are others beside it */
    bool gated;     /* waits while the event loop's thread is to begin none (stk_lead_hold) */
    void (*run)(struct stk_job *job, struct stk_lead_thread *thread);
};

struct stk_lead_ops {
    /* Releases and takes the interpreter's lock on this application thread. */
    void (*unlock)(void *arg, struct stk_lead_thread *thread);
    void (*lock)(void *arg, struct stk_lead_thread *thread);
    /* Once per turn or job of an application thread, with the lock held. May be NULL. */
    void (*on_turn)(void *arg, struct stk_lead_thread *thread);
    /* By the stand-by once a tick, whoever leads: true while there is something to look after. */
    bool (*on_tick)(void *arg);
};

/*
 * What others may see of a lead, in memory that they may read; members may be NULL.
 */
struct stk_lead_share {
    _Atomic uint64_t *word;    /* sequence << 3 | state: each enter and take-over has a number of
                                  its own */
    _Atomic uint64_t *calls;   /* of the application that have returned */
    _Atomic uint32_t *parked;  /* threads that have nothing to do and may take a job */
    _Atomic uint32_t *backlog; /* requests that wait, as far as they are known */
    _Atomic uint64_t *resting; /* the word with which the thread of a foreign event loop was found
                                  to wait: it has nothing to do as long as the word is the same */
};

struct stk_lead_params {
    struct stk_loop *loop;
    unsigned threads; /* of the application, >= 1 */
    bool standby;     /* with a stand-by thread */
    bool bounded;     /* the stand-by leads whenever requests may wait, so that they are counted */
    bool shares;      /* on_tick is called while jobs wait: it may find them another place */
    struct stk_lead_share share;
    const struct stk_lead_ops *ops;
    void *arg;
};

/* Makes the threads' records and starts the stand-by. 0 or a negative errno. */
int stk_lead_new(struct stk_lead **ret_lead, const struct stk_lead_params *params) STK_MUST_CHECK;
/* Ends and joins the stand-by. Accepts NULL; returns NULL. */
struct stk_lead *stk_lead_free(struct stk_lead *lead);

/* The record of application thread `index`, or of the stand-by (NULL when there is none). */
struct stk_lead_thread *stk_lead_thread_get(struct stk_lead *lead, unsigned index);
struct stk_lead_thread *stk_lead_standby(struct stk_lead *lead);

/* Before any of them runs: there are only `threads` of them, fewer than records were made for. */
void stk_lead_limit(struct stk_lead *lead, unsigned threads);
/* The life of an application thread: leads, runs jobs, parks; returns after stk_lead_stop. Lock
 * held. */
void stk_lead_run(struct stk_lead_thread *thread);
/* Makes all stk_lead_run return; from any thread or signal handler-safe context but a signal
 * handler. */
void stk_lead_stop(struct stk_lead *lead);

/* Queues a job by its age; by the stand-by while it leads. Wakes a parked thread if that helps. */
void stk_lead_post(struct stk_lead *lead, struct stk_job *job);
/*
 * Whether a thread has a job that it took from the queue, before, in or behind its call. For who
 * asks for stk_lead_jobs first no job is invisible on its way from the queue to its call.
 */
bool stk_lead_is_any_at_job(const struct stk_lead *lead);
/*
 * With an event loop of the application's, by its thread: lets no gated job be begun there, until
 * it is said otherwise; then rings the bell for those that wait. And whether it is so, from any
 * thread.
 */
void stk_lead_hold(struct stk_lead *lead, bool hold);
bool stk_lead_is_held(const struct stk_lead *lead);
/*
 * Takes a job back that no thread has begun: the oldest, or the newest, for which `may` (called
 * under a lock) says yes. NULL: there is none among the first few dozen (of each kind).
 */
struct stk_job *stk_lead_withdraw(struct stk_lead *lead, bool newest,
                                  bool (*may)(void *arg, struct stk_job *job), void *arg);
/* Since when the oldest job has waited; 0: there is none. */
stk_nsec stk_lead_oldest(struct stk_lead *lead);
/* Jobs that wait; from any thread. */
unsigned stk_lead_jobs(const struct stk_lead *lead);
/*
 * The same of one kind: jobs for the event loop's thread (`loop`), or for the threads beside it.
 * Without such threads all are of the latter. And the calls of the application on those threads,
 * those begun and those ended counted one by one.
 */
unsigned stk_lead_jobs_of(const struct stk_lead *lead, bool loop);
stk_nsec stk_lead_oldest_of(struct stk_lead *lead, bool loop);
uint64_t stk_lead_calls_of(const struct stk_lead *lead, bool loop);
/* Application threads that are parked. */
unsigned stk_lead_idle(const struct stk_lead *lead);
/* Threads beside that of an event loop that have no job: parked, or on their way to one. */
unsigned stk_lead_spare(const struct stk_lead *lead);
/* Makes sure that on_tick is called within a tick, wherever the stand-by sleeps. From any thread.
 */
void stk_lead_rouse(struct stk_lead *lead);
/*
 * on_tick is needed within a tick (5 ms while calls are short) if the calling thread, which turns
 * the loop, is kept by the application; until it says otherwise. Cheaper than rousing: nothing is
 * done where the stand-by watches anyhow, and a thread that gets on is not watched more closely.
 */
void stk_lead_mind(struct stk_lead *lead, bool on);

/*
 * Without a stand-by, by the owner of the loop after a call: brings the loop's clock up to date,
 * which nobody did meanwhile. While calls are long events are taken one by one: who is served last
 * in a batch asks again too late to be in the next, and would get every second turn only.
 */
void stk_lead_note_call(struct stk_lead *lead);

/*
 * With an event loop of the application's, in which this one is nested: instead of stk_lead_run for
 * thread 0, which drives it. Between two turns that thread is in the application: the stand-by
 * takes over as it does in a call.
 */
/*
 * Before all else. Further threads of the lead, from number 1 on, turn no loop: they take jobs,
 * which whoever leads posts for them (struct stk_job.loop). 0 or a negative errno.
 */
int stk_lead_host(struct stk_lead *lead) STK_MUST_CHECK;
/* Whether there are such threads. */
bool stk_lead_is_mixed(const struct stk_lead *lead);
/* Whether a thread may run a job of this kind now. */
static inline bool stk_lead_is_for(const struct stk_lead_thread *thread, bool loop);
/* The descriptor that is readable when jobs wait for the thread, or the loop is to be taken. */
int stk_lead_bell(const struct stk_lead *lead);
/* Rings it: the thread is to come for a turn. From any thread. */
void stk_lead_ring(struct stk_lead *lead);
/* The same by that thread itself, which need not be woken: cheap. Within a turn it does nothing:
 * on_turn comes. */
void stk_lead_note(struct stk_lead *lead);
/* How many requests the event loop is to bring to their end: while there are none, turns may be
 * longer. From any thread. */
void stk_lead_set_waiting(struct stk_lead *lead, unsigned n);
/* The life of the thread: begin, turns or waits (see app/host.h) until they return false, end. Lock
 * held. */
void stk_lead_hosted_begin(struct stk_lead_thread *thread);
bool stk_lead_hosted_turn(struct stk_lead_thread *thread);
bool stk_lead_hosted_wait(struct stk_lead_thread *thread, int own_fd, stk_nsec timeout,
                          bool *ret_own);
void stk_lead_hosted_end(struct stk_lead_thread *thread);
/*
 * For what the thread does between two turns, or in a call, as the owner of the loop if it still is
 * (thread->own): nobody takes over before unclaim, which gets what claim has returned.
 */
bool stk_lead_claim(struct stk_lead_thread *thread);
void stk_lead_unclaim(struct stk_lead_thread *thread, bool claimed);

/* Brackets a call of the application. leave returns whether the thread (still) owns the loop. */
static inline void stk_lead_enter(struct stk_lead_thread *thread);
static inline bool stk_lead_leave(struct stk_lead_thread *thread);

#define STK_LEAD_STATE(word) ((enum stk_lead_state)((word)&7))

/* Whether an application thread that leads has nothing to do, by what a lead shows of itself. */
static inline bool stk_lead_is_at_rest(uint64_t word, uint64_t resting)
{
    return STK_LEAD_STATE(word) == STK_LEAD_BLOCKED ||
           (STK_LEAD_STATE(word) == STK_LEAD_IN_APP && word == resting);
}

static inline bool stk_lead_is_for(const struct stk_lead_thread *thread, bool loop)
{
    return !thread->standby && !thread->full &&
           (!stk_lead_is_mixed(thread->lead) || loop == (thread->index == 0));
}

static inline void stk_lead_enter(struct stk_lead_thread *thread)
{
    atomic_store_explicit(&thread->calls,
                          atomic_load_explicit(&thread->calls, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    if (thread->own) {
        thread->word = ((thread->word >> 3) + 1) << 3 | STK_LEAD_IN_APP;
        atomic_store_explicit(thread->shared_word, thread->word, memory_order_release);
    }
}

static inline bool stk_lead_leave(struct stk_lead_thread *thread)
{
    atomic_store_explicit(&thread->calls,
                          atomic_load_explicit(&thread->calls, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    /* A thread without the interpreter's lock does not call: no two write at once. */
    atomic_store_explicit(thread->shared_calls,
                          atomic_load_explicit(thread->shared_calls, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    if (thread->own) {
        uint64_t expected = thread->word;
        uint64_t turning = (expected & ~UINT64_C(7)) | STK_LEAD_TURNING;

        thread->own = atomic_compare_exchange_strong_explicit(
            thread->shared_word, &expected, turning, memory_order_acq_rel, memory_order_acquire);
        thread->word = turning;
    }
    return thread->own;
}
