/*
 * The proxy's word on where a request came from: X-Forwarded-For (a list, newest last), and
 * Forwarded (RFC 7239). Only syntax here; whom to believe is decided by the caller.
 */
#pragma once

#include <stdbool.h>

#include "base/span.h"

struct stk_forwarded {
    stk_span addr;  /* without brackets and port; empty: unknown or obfuscated */
    stk_span port;  /* may be empty */
    stk_span proto; /* may be empty */
    stk_span host;  /* may be empty */
};

/*
 * Takes the last element off a list. *list is shortened; false when it is empty. Malformed elements
 * yield an empty addr.
 */
bool stk_forwarded_pop_xff(stk_span *list, struct stk_forwarded *ret);
bool stk_forwarded_pop(stk_span *list, struct stk_forwarded *ret);
