/*
 * The inside of a lead, shared by its files:
 *   lead.c          the word, turning the loop, parking, the life of an application thread
 *   lead_hosted.c   turning the loop from an event loop of the application
 *   lead_jobs.c     the queue of complete requests, and who may take one
 *   lead_standby.c  the stand-by thread: its ticks, taking over, leading
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/list.h"
#include "base/time.h"
#include "loop/lead.h"
#include "loop/loop_priv.h"

enum {
    STK_LEAD_TICK_MIN_NS = 250 * 1000,
    STK_LEAD_TICK_MAX_NS = 1000 * 1000,
};

/* Where the stand-by is. */
enum stk_lead_watch {
    STK_LEAD_ASLEEP,  /* reads the unarmed timerfd */
    STK_LEAD_ARMED,   /* reads the timerfd, which the leader armed */
    STK_LEAD_TICKING, /* reads the timerfd, which it keeps armed itself */
    STK_LEAD_LEADING, /* turns the loop, or waits in epoll */
};

/* The queues of jobs, by struct stk_job.loop; without threads beside an event loop only ANY. */
enum stk_lead_kind { STK_LEAD_ANY, STK_LEAD_LOOP, STK_LEAD_KINDS };

struct stk_lead_queue {
    struct stk_list jobs; /* by age; under the mutex */
    _Atomic unsigned n;
    unsigned gated; /* of them; under the mutex */
};

/* The thread of an event loop is to come for a turn. */
enum stk_lead_rung {
    STK_LEAD_QUIET,
    STK_LEAD_NOTED, /* it has noted that itself */
    STK_LEAD_RUNG,  /* and the bell has been rung */
};

/* lead_hosted.c: what there is with an event loop of the application's. */
struct stk_lead_hosted {
    struct stk_lead_thread *thread; /* that drives it; NULL before begin, and after end */
    int bell;
    _Atomic int rung;         /* enum stk_lead_rung */
    unsigned unread;          /* rings that were seen by the flag, and not read yet */
    _Atomic bool foreign;     /* nobody knows when the event loop waits: turn() is called */
    struct stk_source own;    /* the event loop's own set in ours */
    bool own_ready;           /* it has something */
    _Atomic bool own_out;     /* the stand-by has taken it out, for that reason */
    struct stk_source clock;  /* a timerfd, for a foreign event loop */
    stk_msec clock_at;        /* when it fires; 0: it does not */
    int wait_fd;              /* thread_state.h, of the thread */
    _Atomic unsigned waiting; /* requests that the event loop is to bring to their end */
};

struct stk_lead {
    struct stk_lead_share share;
    struct stk_loop *loop;
    const struct stk_lead_ops *ops;
    void *arg;
    unsigned nthreads; /* of nrecords that there are */
    unsigned nrecords;
    struct stk_lead_thread *threads;
    struct stk_lead_thread standby;
    bool has_standby;
    bool bounded, shares; /* of the parameters */
    pthread_t standby_id;
    _Atomic unsigned leader; /* the application thread that has taken the loop last */
    int timerfd;
    _Atomic int watch;
    _Atomic stk_msec eager_until; /* on the loop's clock */
    _Atomic bool stopping;
    _Atomic bool quitting;
    _Atomic bool wanted;    /* a parked thread would lead */
    _Atomic bool roused;    /* on_tick has to be called soon: do not disarm */
    _Atomic bool minded;    /* on_tick may have to be called: stk_lead_mind */
    _Atomic bool computing; /* a thread computes: others leave the interpreter to it */
    _Atomic bool pending;   /* on_tick has something to look after: no tick is put off */
    _Atomic bool put_off;   /* ticks were, since the last one */
    stk_nsec put_off_at;    /* of the leader */
    _Atomic long tick_ns;   /* between ticks; 0: there are none */
    stk_nsec sampled_at;    /* of the stand-by: when the CPU clocks were looked at */
    _Atomic int batch;      /* events taken from the kernel at once; by the owner */
    int singly;             /* calls after which it is one */
    stk_msec arm_ms;        /* the millisecond of the last burst, and how many it had */
    unsigned arms;

    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t cond;
    struct stk_lead_queue queues[STK_LEAD_KINDS];
    _Atomic unsigned njobs; /* in both */
    _Atomic unsigned idle;
    unsigned tokens;

    struct stk_lead_hosted *hosted; /* NULL: threads turn the loop themselves */
    bool mixed;                     /* and there are threads beside that of the event loop */

    struct { /* what `share` points to where nobody else wants to see it */
        _Atomic uint64_t word, calls, resting;
        _Atomic uint32_t parked, backlog;
    } own;
};

/* lead.c: the word that follows in this state. */
static inline uint64_t stk_lead_next_word(uint64_t old, enum stk_lead_state state)
{
    return ((old >> 3) + 1) << 3 | (uint64_t)state;
}

static inline uint64_t stk_lead_seen(const struct stk_lead *lead)
{
    return atomic_load(lead->share.word);
}

/* Changes the state as the owner. */
void stk_lead_store(struct stk_lead_thread *t, enum stk_lead_state state);
/* Changes the state from one that others may take the loop from; false: it was taken. */
bool stk_lead_swap(struct stk_lead_thread *t, enum stk_lead_state state) STK_MUST_CHECK;
/* Takes the loop from the word that was seen. */
bool stk_lead_take(struct stk_lead_thread *t, uint64_t seen, enum stk_lead_state state)
    STK_MUST_CHECK;
/* Has the sleeping stand-by look soon, by the clock. */
void stk_lead_arm(struct stk_lead *lead);
/* Arms the stand-by's clock; 0 stops it. */
void stk_lead_set_timer(struct stk_lead *lead, long first_ns, long every_ns);
/* Waits for events; `timeout` in nanoseconds, -1: none. Returns their number, 0 on EINTR. */
int stk_lead_wait(struct stk_lead *lead, struct epoll_event *events, stk_nsec timeout);
/* Until the next timer of the loop; -1: there is none. */
stk_nsec stk_lead_timeout(struct stk_lead *lead);
/* Handles a batch as the owner; stops at once when the loop was taken meanwhile. */
void stk_lead_dispatch(struct stk_lead_thread *t, struct epoll_event *events, int n);
/* Tells the others how many requests wait. */
static inline void stk_lead_set_backlog(struct stk_lead *lead, unsigned n)
{
    atomic_store_explicit(lead->share.backlog, n, memory_order_relaxed);
}

/*
 * One turn of an application thread that owns the loop; waits at most `most` nanoseconds (-1: until
 * something happens).
 */
void stk_lead_turn(struct stk_lead_thread *t, stk_nsec most);
/* Takes the loop if it is free or the stand-by only waits. */
bool stk_lead_acquire(struct stk_lead_thread *t);
/* What a thread needs to be watched, and to be forgotten again. */
void stk_lead_attach(struct stk_lead_thread *t);
void stk_lead_detach(struct stk_lead_thread *t);

/* lead_hosted.c */
void stk_lead_hosted_free(struct stk_lead *lead);
/* By the stand-by: whether the event loop, which is where it was, has something to do here. */
bool stk_lead_hosted_is_due(const struct stk_lead *lead);
/* By the stand-by, where nothing is due: whether a foreign event loop may be at work, since the
 * word was `word`. If it is not, this is shown to others. */
bool stk_lead_hosted_may_work(const struct stk_lead *lead, uint64_t word);
static inline bool stk_lead_is_rung(const struct stk_lead *lead)
{
    return stk_unlikely(lead->hosted != NULL) && atomic_load(&lead->hosted->rung) != STK_LEAD_QUIET;
}

/* lead_jobs.c */
bool stk_lead_is_any_running(const struct stk_lead *lead);
/* Whether a thread without work may take a job: not when it would only fight for the interpreter.
 */
bool stk_lead_may_run(const struct stk_lead *lead);
/* Runs the oldest job on this thread; false: there is none, or it is not to run now. */
bool stk_lead_run_job(struct stk_lead_thread *t);
/*
 * Whether some thread has been computing since the last look (its CPU clock ran, or would have run
 * had the kernel let it), for less than a while: then another thread would only fight with it for
 * the interpreter's lock.
 */
bool stk_lead_is_computing(struct stk_lead *lead);
void stk_lead_set_computing(struct stk_lead *lead, bool computing);
/*
 * By the stand-by, after a turn as the leader, or at a tick where the thread of an event loop
 * leads: wakes parked threads for the jobs. True: jobs wait for threads that are parked.
 */
bool stk_lead_share_jobs(struct stk_lead *lead);
/* Tells the others how many threads have nothing to do and may take a job. Mutex held. */
void stk_lead_publish_idle(struct stk_lead *lead);

/* lead_standby.c: starts the thread; 0 or a negative errno. */
int stk_lead_start_standby(struct stk_lead *lead) STK_MUST_CHECK;
