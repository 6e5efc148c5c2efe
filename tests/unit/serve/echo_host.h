/*
 * An application host in C, for tests of the server without Python. One mutex plays the interpreter's lock.
 *
 *   /            "Hello, World!"          /echo       the request body
 *   /sleep       sleeps 50 ms unlocked    /spin       computes 20 ms, locked
 *   /stream      64 blocks of 1 kB        /big        1 MiB in one block
 *   /fail        no response              /short      less than its Content-Length
 */
#pragma once

#include "app/host.h"

struct echo_host;

struct echo_host *echo_host_new(void);
void echo_host_free(struct echo_host *host);
extern const struct stk_host_ops echo_host_ops;
