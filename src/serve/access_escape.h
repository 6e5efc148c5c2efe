/* Makes any bytes safe to stand in a log line. */
#pragma once

#include "base/macros.h"
#include "base/span.h"

enum stk_access_style {
    /* As Apache: \" and \\, and \xNN for whatever is not printable ASCII. */
    STK_ACCESS_TEXT,
    /* The same, and \x20 for a space: for values that stand between spaces. */
    STK_ACCESS_WORD,
    /* The inside of a JSON string (RFC 8259): valid UTF-8 as it is, other bytes as \u00NN. */
    STK_ACCESS_JSON,
};

/*
 * Writes `value` to dst, but not beyond `limit`, which is at least 3 bytes away: what does not fit
 * is cut between characters, and "..." stands for it. Returns the end of what was written.
 */
char *stk_access_escape(char *dst, char *limit, stk_span value, enum stk_access_style style)
    STK_MUST_CHECK;
