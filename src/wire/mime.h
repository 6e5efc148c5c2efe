/* Media types by the ending of a file's name. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

enum { STK_MIME_EXT_MAX = 32 }; /* bytes of an ending that counts */

/*
 * The ending of a name: what follows its last dot, without it; of length 0 if there is none, if it
 * is too long, or if the dot is the first character.
 */
stk_span stk_mime_ending(stk_span name);
/*
 * The type that browsers expect of an ending, in any case, "; charset=utf-8" included where it
 * belongs; of length 0 for one that is not known here.
 */
stk_span stk_mime_builtin(stk_span ending);
/*
 * Whether texts of a type are in one character set, which is UTF-8 unless somebody says otherwise:
 * text/..., and what is text by another name. JSON is not: it has no such parameter (RFC 8259).
 */
bool stk_mime_is_text(stk_span type);
/* type "/" subtype, with parameters behind them perhaps, as it may stand in Content-Type. */
bool stk_mime_is_type(stk_span type);
/*
 * Steps through the lines of a table as /etc/mime.types: a type, and endings behind it; "#" begins
 * a comment. Begin with *pos of length and start of the text. True: *ret_type, and *ret_endings,
 * to be taken apart by stk_mime_next_word. A line without an ending is left out.
 */
bool stk_mime_next_line(stk_span *pos, stk_span *ret_type, stk_span *ret_endings);
/* The next word, separated by blanks, a ";" at its end left out; of length 0 at the end. */
stk_span stk_mime_next_word(stk_span *pos);
