/* Commands of one character through a named pipe (`master-fifo`), as uWSGI takes them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"
#include "loop/loop.h"

struct stk_master;

struct stk_fifo {
    struct stk_source source; /* fd -1: there is none */
    char *path;               /* absolute, of the one that is open; or NULL */
    size_t slot;              /* which of config->master_fifo that is */
    bool handed;              /* the file belongs to the successor now */
};

/*
 * Makes the first one of config->master_fifo, if there is any, and reads it from then on; the
 * successor of a server waits until it has taken over (stk_fifo_take). 0, or the exit code, the
 * reason logged.
 */
int stk_fifo_open(struct stk_master *m) STK_MUST_CHECK;
/* The successor has taken over: reads on in the pipe of the server before this one. */
void stk_fifo_take(struct stk_master *m);
/* A successor takes over: reads nothing more, and keeps what is written until then in the pipe. */
void stk_fifo_hand_over(struct stk_master *m);
/* In a child: closes the descriptor. */
void stk_fifo_leave(struct stk_master *m);
/* Ends it, and removes the file if it is this server's still. Harmless twice. */
void stk_fifo_close(struct stk_master *m);
