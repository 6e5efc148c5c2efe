/*
 * Idle connections on their way from the old server of an upgrade to the new one: what waits on
 * both sides of the socket pair between them. Neither master ever waits for the other.
 */
#pragma once

#include <stdbool.h>

#include "base/list.h"
#include "loop/loop.h"

struct stk_master;

/* The old server's side. */
struct stk_handoff_out {
    struct stk_master *master;
    struct stk_source *source; /* the socket; its fd is -1 when it is closed */
    struct stk_list waiting;
    unsigned n;
    bool paused; /* the workers' channels are not read */
};

void stk_handoff_out_init(struct stk_handoff_out *out, struct stk_master *m,
                          struct stk_source *source);
/*
 * Sends a connection, or keeps a copy until there is room; the descriptor stays the caller's.
 * Beyond a number of them the workers' channels are left alone, and the workers keep what they
 * have. 0 or a negative errno: it is lost.
 */
int stk_handoff_give(struct stk_handoff_out *out, int fd, bool served) STK_MUST_CHECK;
/* When the socket has room. 0 or a negative errno: those that waited are lost. */
int stk_handoff_flush(struct stk_handoff_out *out) STK_MUST_CHECK;
/* Closes what waits; how many these were. */
unsigned stk_handoff_drop(struct stk_handoff_out *out);

/* The new server's side: the one connection that no worker has room for. */
struct stk_handoff_in {
    struct stk_master *master;
    struct stk_source *source; /* not read while one is kept */
    struct stk_timer timer;
    unsigned turn; /* the slot that the last one went to */
    unsigned tries;
    int fd; /* -1: none */
    bool served;
};

void stk_handoff_in_init(struct stk_handoff_in *in, struct stk_master *m,
                         struct stk_source *source);
/* Gives a connection to one worker after the other, now or soon. Takes the descriptor. */
void stk_handoff_place(struct stk_handoff_in *in, int fd, bool served);
static inline bool stk_handoff_is_blocked(const struct stk_handoff_in *in)
{
    return in->fd >= 0;
}
void stk_handoff_in_deinit(struct stk_handoff_in *in);
