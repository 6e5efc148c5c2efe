/*
 * Moving connections to other workers: requests that wait here while somebody there has nothing to
 * do, and whatever is between two requests when this worker is going to stop.
 */
#pragma once

#include <stdbool.h>

#include "base/macros.h"
#include "loop/lead.h"

struct stk_conn;
struct stk_move;
struct stk_scoreboard;
struct stk_server;
struct stk_transfer;

struct stk_move_params {
    struct stk_server *server; /* with its lead */
    struct stk_scoreboard *scoreboard;
    struct stk_transfer *transfer; /* owned by this worker's row */
    unsigned row;
};

/* Takes part from now on: the inbox is in the loop. 0 or a negative errno. */
int stk_move_new(struct stk_move **ret_move, const struct stk_move_params *params) STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_move *stk_move_free(struct stk_move *move);

/*
 * By the stand-by once a tick: sees what has become of offers, finds requests that wait a better
 * place, refuses those beyond max-queue and max-queue-age. True while there is something to come
 * back for.
 */
bool stk_move_tick(struct stk_move *move, struct stk_lead_thread *standby);
/* By the thread of an event loop beside which others run, once a turn: the same, as far as it takes
 * the owner of the loop. Accepts NULL. */
void stk_move_turn(struct stk_move *move, struct stk_lead_thread *thread);
/* Gives nothing away any more: all workers are going to stop. */
void stk_move_disinherit(struct stk_move *move);
/* While draining: whether somebody takes connections over. Accepts NULL. From any thread. */
bool stk_move_has_heir(struct stk_move *move);
/*
 * While draining: gives a connection between two requests away; by the owner of the loop, or by the
 * thread that has it busy. False: it is the caller's still, and busy: to be released.
 */
bool stk_move_give(struct stk_move *move, struct stk_conn *conn, struct stk_lead_thread *thread)
    STK_MUST_CHECK;
