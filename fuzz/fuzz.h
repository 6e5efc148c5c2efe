/*
 * What every fuzz target shares. A target is a function over bytes that aborts when an invariant
 * of the parser is broken; libFuzzer drives it to search, replay_main.c to replay a corpus.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"

/* One input; returns 0. The name is libFuzzer's. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An invariant: ends the process with a line that names it. */
#define FUZZ_CHECK(cond) STK_ASSERT(cond)
