/*
 * An application host in C, for tests of the server without Python. One mutex plays the
 * interpreter's lock.
 *
 *   /            "Hello, World!"          /echo       the request body
 *   /sleep       sleeps 50 ms unlocked    /spin       computes 20 ms, locked
 *   /stream      64 blocks of 1 kB        /big        1 MiB in one block
 *   /fail        no response              /short      less than its Content-Length
 *   /cut         fails behind its first block
 *   /size/N      N bytes of the pattern in one block
 *   /blocks/N    N blocks of 64 KiB of the pattern, /lines/N of 1 KiB with a nap now and then
 *   /file/N      N bytes of the pattern from a file, then "end"
 *   /hang        sleeps for a minute, unlocked
 *   /fork        forks a child that stays; its pid
 *   /nap/N       sleeps N ms, unlocked, or until it is cancelled
 *   /wait        waits, unlocked, until it is cancelled; /part the same behind a first block
 *   /stuck       never returns; /hold sleeps 300 ms, locked
 *   /limit/N     gives itself N ms more, then as /wait; /mire/N then as /stuck
 */
#pragma once

#include <stdbool.h>

#include "app/host.h"
#include "config/config.h"

struct echo_host;

/* Byte number i of the pattern: printable, and different wherever a block is lost or doubled. */
static inline char echo_pattern(size_t i)
{
    return (char)('!' + (i ^ i >> 7 ^ i >> 13) % 90);
}

/* What a server with it is configured with, by default; long times to stop. */
void echo_host_config(struct stk_config *config, int threads, bool takeover);
void echo_host_config_deinit(struct stk_config *config);

struct echo_host *echo_host_new(void);
void echo_host_free(struct echo_host *host);
extern const struct stk_host_ops echo_host_ops;
