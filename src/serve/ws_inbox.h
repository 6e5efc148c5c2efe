/*
 * What has come on a WebSocket: frames become messages, checked (UTF-8), inflated and bounded, and
 * those that nobody has taken yet are kept in order. No I/O: bytes in, messages and control frames
 * out.
 *
 * An inbox without an unfinished or waiting message owns no memory but itself.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/span.h"
#include "base/utf8.h"
#include "wire/websocket.h"

struct stk_ws_inflater;

struct stk_ws_item {
    uint8_t opcode; /* TEXT or BINARY; or of a control frame */
    bool ascii;     /* it is known that all bytes are below 0x80 */
    stk_span data;
};

enum stk_ws_inbox_result {
    STK_WS_INBOX_MORE,    /* all input is used up */
    STK_WS_INBOX_MESSAGE, /* item is a whole one: keep or drop it before the next step */
    STK_WS_INBOX_CONTROL, /* item is a ping, pong or close frame */
    STK_WS_INBOX_ERROR,   /* the connection is to be closed with `code`, for a reason in words */
};

struct stk_ws_inbox {
    struct stk_ws_decoder decoder;
    struct stk_utf8 utf8;
    uint64_t limit; /* of a message, inflated */
    bool compressed, opened;
    uint8_t opcode; /* of the message that is opened */
    /* For compressed messages; not owned, and used within one step only unless it keeps a window.
     * Made on demand by `inflater_of`. */
    struct stk_ws_inflater *(*inflater_of)(void *arg);
    void *arg;

    /* Whole messages, each behind a header, from begin to end; then the one that is opened. */
    char *buf;
    size_t begin, end, cap;
    size_t open_len;  /* bytes of the opened message behind its room for a header */
    unsigned waiting; /* messages from begin to end */
    bool viewed;      /* stk_ws_inbox_first has shown one, which stays where it is */
    char *shown;      /* the buffer that it is in, where that is not `buf` any more */

    /* Results of a step. */
    struct stk_ws_item item;
    bool apart; /* the item lies in the caller's input */
    enum stk_ws_code code;
    const char *text;
};

/* `limit` > 0. `inflater_of` is NULL where compression has not been agreed on. */
void stk_ws_inbox_init(struct stk_ws_inbox *in, uint64_t limit,
                       struct stk_ws_inflater *(*inflater_of)(void *arg), void *arg);
void stk_ws_inbox_deinit(struct stk_ws_inbox *in);
/*
 * Goes on with the input at *buf, which is changed and moved behind what is done with. Items are
 * valid until the next step; those in the input as long as that is.
 */
enum stk_ws_inbox_result stk_ws_inbox_step(struct stk_ws_inbox *in, char **buf, size_t *len);
/* As a step with MESSAGE, where all of the input is one short message and nothing else is under
 * way, as mostly; false: nothing has happened. */
static inline bool stk_ws_inbox_take_only(struct stk_ws_inbox *in, char *buf, size_t len)
{
    struct stk_ws_only only;

    if (!stk_ws_decode_only(&in->decoder, buf, len, &only))
        return false;
    in->item = (struct stk_ws_item){.opcode = only.opcode, .ascii = only.ascii, .data = only.data};
    in->apart = true;
    return true;
}
/* After MESSAGE: lets the item wait; false: no memory. Or forgets it: it has been taken. */
bool stk_ws_inbox_keep(struct stk_ws_inbox *in) STK_MUST_CHECK;
void stk_ws_inbox_drop(struct stk_ws_inbox *in);
/*
 * The item that has waited longest; false: none waits. It may be looked at until it is popped, or
 * shown again, and meanwhile another thread may go on with steps.
 */
bool stk_ws_inbox_first(struct stk_ws_inbox *in, struct stk_ws_item *ret_item);
void stk_ws_inbox_pop(struct stk_ws_inbox *in);
/* Bytes that wait. */
static inline size_t stk_ws_inbox_size(const struct stk_ws_inbox *in)
{
    return in->end - in->begin;
}
