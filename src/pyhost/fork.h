/* Processes: forks by the server, and forks by the application. */
#pragma once

#include "pyhost/host.h"

/* host_ops.fork_prepare, fork_parent, fork_child, freeze. */
void stk_fork_prepare(void *host);
void stk_fork_parent(void *host);
void stk_fork_child(void *host);
void stk_fork_freeze(void *host);

/* Marks this process as the host's own: see stk_host_is_stray. */
void stk_fork_claim(struct stk_pyhost *host);
/* Undoes the claim and frees its page. */
void stk_fork_unclaim(struct stk_pyhost *host);
