/* Stacks of a worker that is still loading its application, and does not read its channel. */
#pragma once

#include "app/host.h"

/*
 * From now on STK_CHANNEL_LOOK has the process look for a STACK message on the channel, and answer
 * it there and then; a failure costs only that. Host as of worker.h.
 */
void stk_loading_begin(int channel, const struct stk_host_ops *ops, void *host);
/* The event loop reads the channel from now on, what has come meanwhile included. */
void stk_loading_end(void);
