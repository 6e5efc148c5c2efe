/*
 * What the stand-by thread does about requests that stay in the application: it names them in the
 * scoreboard, answers 504 for them when their time is over, and has the host cancel them.
 *
 * Two threads meet over a request here. The thread that runs it pays next to nothing: it says which
 * request it runs by plain stores, and looks at one flag of its own (`interfere`) after the call
 * and when it is about to send a response head. The other one sets that flag, makes all threads of
 * the process pass a memory barrier (membarrier), and looks then: if it sees the request still
 * running, or the head not sent, its owner will see the flag and wait for `interfere_mutex`. Where
 * the kernel has no such barrier the flag is always set.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "serve/request.h"
#include "serve/server.h"

struct stk_deadline;

enum {
    STK_INTERFERE_LOOKS = 1,  /* somebody looks at the request, and holds the mutex */
    STK_INTERFERE_NAMED = 2,  /* it is named in the scoreboard: its end clears that */
    STK_INTERFERE_FATE = 4,   /* rq->fate is set */
    STK_INTERFERE_ALWAYS = 8, /* there is no membarrier */
};

/* What has been done to a request from outside (rq->fate). */
enum stk_fate {
    STK_FATE_NONE,
    STK_FATE_ANSWERED, /* 504 was sent: whatever else it writes is refused */
    STK_FATE_CUT,      /* a part of its response has left: the connection was ended */
    STK_FATE_LEFT,     /* its client has left before an answer: what it writes is refused */
};

/* Of a server with a lead. Without a stand-by thread: *ret_deadline is NULL. 0 or a negative errno.
 */
int stk_deadline_new(struct stk_deadline **ret_deadline, struct stk_server *server) STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_deadline *stk_deadline_free(struct stk_deadline *d);
/* Looks after the requests in the application and the jobs; by the stand-by, once a tick. */
void stk_deadline_tick(struct stk_deadline *d);
/*
 * A call is going to begin on another thread, by the one that leads in an event loop and may wait
 * before the stand-by has seen it. `d` may be NULL.
 */
void stk_deadline_expect(struct stk_deadline *d, struct stk_lead_thread *thread);
/* As stk_request_ops.set_timeout. */
int stk_deadline_set_timeout(struct stk_serve_request *rq, stk_msec timeout);

/* Of a request that has not begun: the time that it has from now on; <= 0: no limit. */
void stk_deadline_prepare(struct stk_serve_request *rq, stk_msec timeout);

/* The request goes into the application, with nothing of its own sent. */
static inline void stk_deadline_begin(struct stk_serve_request *rq)
{
    atomic_store_explicit(&rq->t->running, rq, memory_order_release);
}

enum stk_fate stk_deadline_end_slow(struct stk_serve_request *rq);

/* It has come back. */
static inline enum stk_fate stk_deadline_end(struct stk_serve_request *rq)
{
    struct stk_serve_thread *t = rq->t;

    atomic_store_explicit(&t->running, NULL, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    if (stk_likely(atomic_load_explicit(&t->interfere, memory_order_acquire) == 0))
        return STK_FATE_NONE;
    return stk_deadline_end_slow(rq);
}

bool stk_deadline_commit_slow(struct stk_serve_request *rq);

/* Its head is complete and is to be sent: false where that is not to be. */
static inline bool stk_deadline_commit(struct stk_serve_request *rq)
{
    __atomic_store_n(&rq->committed, true, __ATOMIC_RELEASE);
    atomic_signal_fence(memory_order_seq_cst);
    if (stk_likely(atomic_load_explicit(&rq->t->interfere, memory_order_acquire) == 0))
        return true;
    return stk_deadline_commit_slow(rq);
}

/*
 * Around what the request's thread sends on the connection before it has committed: answers that
 * came before, 100 Continue. False: it may not, and the mutex is not held.
 */
bool stk_deadline_lock(struct stk_serve_request *rq);
void stk_deadline_unlock(struct stk_serve_request *rq);

/*
 * What is done at a deadline, for detached requests too, whose mutex is held then: answers 504 from
 * the buffers of the calling thread, or ends the connection (rq->fate says which); ends it,
 * `begun`: within a body; says in the log what was done.
 */
void stk_deadline_answer(struct stk_serve_thread *t, struct stk_serve_request *rq);
void stk_deadline_cut(const struct stk_serve_request *rq, bool begun);
void stk_deadline_log_late(const struct stk_serve_request *rq, const char *done);
/* Says of a request whose step goes on in the event loop what is done, and where it is. */
void stk_deadline_log_step(struct stk_server *server, const struct stk_serve_request *rq,
                           const char *done);
/*
 * Names a request in a free place of the scoreboard's row, as on a thread or
 * STK_SCOREBOARD_WAITING; by the stand-by. The place's number from 1 on; 0: there is none. And
 * clears it; by anyone who knows that nobody else does.
 */
unsigned stk_deadline_name(struct stk_scoreboard_row *row, const struct stk_serve_request *rq,
                           uint32_t thread, stk_nsec since);
void stk_deadline_clear_name(struct stk_scoreboard_row *row, unsigned place);
/* Asks, once each, for the worker to be replaced: a call was cancelled, or (stuck) does not return.
 */
void stk_deadline_retire(struct stk_deadline *d, bool stuck, stk_msec age);
/* Says that it was not finished when graceful-timeout was over. */
void stk_deadline_log_cut(const struct stk_serve_request *rq);
