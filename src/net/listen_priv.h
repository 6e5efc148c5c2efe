/* What listen.c and listen_unix.c share. */
#pragma once

#include "base/macros.h"
#include "net/listen.h"

/*
 * Binds a unix socket and gives its file mode and owner, before anything can connect; the caller
 * listens. A stale socket file is removed; one that somebody answers on, or that is no socket, is
 * an error. 0 with *ret_fd and unlink_* of `l` filled, or STK_LISTEN_E_FAILED with *ret_error.
 */
int stk_listen_unix_bind(struct stk_listener *l, const struct stk_addr_spec *spec,
                         const struct stk_addr *addr, const struct stk_listen_options *options,
                         int *ret_fd, char **ret_error) STK_MUST_CHECK;
/* The same of a socket that is open already: remembers its file, which is not ours to remove yet.
 */
void stk_listen_unix_adopt(struct stk_listener *l, const struct stk_addr_spec *spec);
/* Removes the socket file if this process made it and it is still the same one. */
void stk_listen_unix_unlink(struct stk_listener *l);
