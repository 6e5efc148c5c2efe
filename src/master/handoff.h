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

/* The new server's side: connections that no worker has taken yet. */
struct stk_handoff_in {
    struct stk_master *master;
    struct stk_source *source; /* not read while there are too many */
    struct stk_timer timer;    /* to look at them, while there are any */
    struct stk_list offered;   /* to a worker */
    struct stk_list waiting;   /* to be offered, or to be sent on */
    unsigned n;                /* in both */
    unsigned turn;             /* the slot that was asked last */
};

void stk_handoff_in_init(struct stk_handoff_in *in, struct stk_master *m,
                         struct stk_source *source);
/*
 * Keeps a connection until a worker has taken it: they are asked one after the other, now or soon.
 * Once this server has been replaced itself its own successor gets it. Takes the descriptor.
 */
void stk_handoff_place(struct stk_handoff_in *in, int fd, bool served);
/* Whether there are so many that no more is to be placed; the source is left alone meanwhile. */
bool stk_handoff_is_blocked(const struct stk_handoff_in *in);
/* In a child: closes the descriptors of both sides. */
void stk_handoff_leave(struct stk_handoff_out *out, struct stk_handoff_in *in);
void stk_handoff_in_deinit(struct stk_handoff_in *in);
