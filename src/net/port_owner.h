/* Who listens on a port: for the sentence that says why it cannot be bound. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/macros.h"
#include "net/addr.h"

/*
 * Looks in /proc for a process that listens where `addr` cannot be bound. Returns false when none
 * is found: it may be another user's, or another network namespace's view. ret_name is its command,
 * cut to fit.
 */
bool stk_port_owner_find(const struct stk_addr *addr, pid_t *ret_pid, char ret_name[32]);
