/* SipHash-1-3: a hash of bytes that nobody can steer who does not know the key. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* `key`: two random words. The number differs between machines of different byte order. */
uint64_t stk_siphash(const uint64_t key[2], const void *data, size_t len);
