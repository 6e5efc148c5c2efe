/*
 * permessage-deflate (RFC 7692 section 7.2): one message in, one message out. Built on zlib;
 * without it, stk_ws_deflate_is_there() is false and nothing else may be called.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"
#include "base/span.h"

struct stk_ws_inflater;
struct stk_ws_deflater;

enum stk_ws_inflate_result {
    STK_WS_INFLATE_DONE, /* the message is whole */
    STK_WS_INFLATE_ROOM, /* the output is full: call again with more room */
    STK_WS_INFLATE_E_DATA,
    STK_WS_INFLATE_E_MEMORY,
};

/* Whether this build has it. */
bool stk_ws_deflate_is_there(void);

/*
 * `bits`: the window of the client's compressor, 8 to 15. `takeover`: it lasts from message to
 * message. Memory: about 10 KiB and, from the first message that needs it, 2^bits. NULL: none.
 */
struct stk_ws_inflater *stk_ws_inflater_new(unsigned bits, bool takeover) STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_ws_inflater *stk_ws_inflater_free(struct stk_ws_inflater *z);
/*
 * Inflates a message whose payload is *in, all of it from the first call on; *in is moved behind
 * what is done with. Writes up to cap bytes (> 0) and says how many. Called again with what is left
 * until it says something else than ROOM; the caller bounds the output by ending it: after giving
 * up on a message, and after an error, the inflater is of no use but to be reset or freed.
 */
enum stk_ws_inflate_result stk_ws_inflate(struct stk_ws_inflater *z, stk_span *in, char *out,
                                          size_t cap, size_t *ret_len) STK_MUST_CHECK;
/* Forgets everything: a new one. */
void stk_ws_inflater_reset(struct stk_ws_inflater *z);

/*
 * `bits`: its window, 9 to 15; `level`: 1 to 9. `memory`: zlib's level of memory, 1 to 9: about
 * 2^(bits + 2) + 2^(memory + 9) bytes in all. NULL: no memory.
 */
struct stk_ws_deflater *stk_ws_deflater_new(unsigned bits, bool takeover, int level, int memory)
    STK_MUST_CHECK;
struct stk_ws_deflater *stk_ws_deflater_free(struct stk_ws_deflater *z);
/* Room that a message of so many bytes may need. */
size_t stk_ws_deflate_bound(struct stk_ws_deflater *z, size_t len);
/* Deflates a whole message into out, which has the room that the bound says; gives back its length.
 */
size_t stk_ws_deflate(struct stk_ws_deflater *z, const char *data, size_t len, char *out,
                      size_t cap);
