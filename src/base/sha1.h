/* SHA-1 (FIPS 180-4), for protocols that name it. It protects nothing any more. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { STK_SHA1_SIZE = 20 };

/* The digest of len bytes. */
void stk_sha1(const void *data, size_t len, uint8_t ret_digest[STK_SHA1_SIZE]);
