/*
 * What a worker knows of the others, from the scoreboard: who has nothing to do, who gets on, and
 * who will be there when this one is gone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/time.h"

struct stk_peers;
struct stk_scoreboard;

struct stk_peers_params {
    struct stk_scoreboard *scoreboard;
    unsigned row; /* of this worker */
    uint64_t max_connections;
};

/* Threads of the application: all do the same, or there are some beside that of an event loop. */
enum stk_peers_kind { STK_PEERS_ANY, STK_PEERS_LOOP, STK_PEERS_BESIDE };

struct stk_peers *stk_peers_new(const struct stk_peers_params *params);
/* Accepts NULL; returns NULL. */
struct stk_peers *stk_peers_free(struct stk_peers *peers);

/* Takes note of how the others get on; by the stand-by, a look after the other. */
void stk_peers_look(struct stk_peers *peers, stk_nsec now);
/*
 * Picks a ready worker, not older than this one and with room for a connection, and notes there
 * that it is offered something. Its row, or -1: there is none. By any thread.
 */
/* One with a thread of a kind that has nothing to do. */
int stk_peers_claim_idle(struct stk_peers *peers, enum stk_peers_kind kind);
/* One in which fewer than `queue` requests wait, and that will probably have begun a further one
 * within `wait`. */
int stk_peers_claim_quick(struct stk_peers *peers, unsigned queue, stk_nsec wait);
/* The one of the newest generation with the fewest connections. */
int stk_peers_claim_heir(struct stk_peers *peers);
/* Whether there is one. */
bool stk_peers_has_heir(const struct stk_peers *peers);
/* Notes that it is no longer: it was taken, or withdrawn. */
void stk_peers_unclaim(struct stk_peers *peers, unsigned row);
/* Nanoseconds from one call's end to the next's in this worker; 0: not known. */
stk_nsec stk_peers_own_pace(const struct stk_peers *peers);
/* The process id of a row's worker; 0: it is not ready (any more). */
uint64_t stk_peers_pid(const struct stk_peers *peers, unsigned row);
