/*
 * What a WebSocket receives. The first byte chooses into which pieces the rest is cut, and whether
 * there is an extension and a limit: messages, control frames and the error must not depend on the
 * pieces, of which those that are whole messages are taken in the short way.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "wire/websocket.h"

enum { INPUT_MAX = 64 * 1024, LIMIT = 300 };

struct conn {
    struct stk_ws_decoder decoder;
    struct stk_utf8 utf8;
    enum stk_ws_result result;
    bool open, wrong_text, shortens;
    uint64_t message; /* bytes of the one that is open */
    uint64_t seen;
    size_t bytes;
};

static void see(struct conn *c, const void *data, size_t len)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        c->seen = (c->seen ^ p[i]) * 0x100000001b3;
    c->bytes += len;
}

static void see_control(struct conn *c, const struct stk_ws_event *e)
{
    unsigned code;
    stk_span reason;
    int r;

    FUZZ_CHECK(e->data.len <= STK_WS_CONTROL_MAX && e->opcode >= STK_WS_CLOSE);
    see(c, "!", 1);
    see(c, &e->opcode, 1);
    see(c, e->data.ptr, e->data.len);
    if (e->opcode != STK_WS_CLOSE)
        return;
    r = stk_ws_close_read(e->data, &code, &reason);
    FUZZ_CHECK(r != 0 || code == STK_WS_CODE_NONE || stk_ws_code_is_valid(code));
    if (r == 0) {
        char frame[2 + STK_WS_CONTROL_MAX];
        size_t n = stk_ws_close_frame(frame, code, reason);

        FUZZ_CHECK(n == e->data.len + 2 && memcmp(frame + 2, e->data.ptr, n - 2) == 0);
    }
}

static void see_piece(struct conn *c, const struct stk_ws_event *e)
{
    FUZZ_CHECK(e->opcode == STK_WS_TEXT || e->opcode == STK_WS_BINARY);
    FUZZ_CHECK(e->begin == !c->open && (e->data.len > 0 || e->end));
    if (e->begin) {
        see(c, e->compressed ? "z" : "m", 1);
        see(c, &e->opcode, 1);
        memset(&c->utf8, 0, sizeof(c->utf8));
        c->message = 0;
        c->wrong_text = false;
    }
    see(c, e->data.ptr, e->data.len);
    c->message += e->data.len;
    c->wrong_text = c->wrong_text || !stk_utf8_feed(&c->utf8, e->data.ptr, e->data.len);
    c->open = !e->end;
    if (e->end)
        see(c, c->wrong_text || !stk_utf8_is_whole(&c->utf8) ? "~" : "$", 1);
}

/* The short way, in which the pieces are taken that are whole messages. */
static bool take_only(struct conn *c, char *buf, size_t len)
{
    struct stk_ws_event event = {.begin = true, .end = true};
    struct stk_ws_only only;
    bool ascii = true;

    if (!stk_ws_decode_only(&c->decoder, buf, len, &only))
        return false;
    event.data = only.data;
    event.opcode = only.opcode;
    for (size_t i = 0; i < only.data.len; i++)
        ascii = ascii && !(only.data.ptr[i] & 0x80);
    FUZZ_CHECK(only.ascii == ascii);
    FUZZ_CHECK(event.data.ptr >= buf && event.data.ptr + event.data.len == buf + len);
    see_piece(c, &event);
    return true;
}

static void take(struct conn *c, char *buf, size_t len)
{
    if (c->shortens && take_only(c, buf, len))
        return;
    for (;;) {
        size_t consumed = SIZE_MAX;
        struct stk_ws_event event;

        c->result = stk_ws_decode(&c->decoder, buf, len, &consumed, &event);
        if (c->result == STK_WS_PARTIAL) {
            FUZZ_CHECK(consumed == len);
            return;
        }
        if (c->result != STK_WS_DATA && c->result != STK_WS_CONTROL)
            return;
        FUZZ_CHECK(consumed <= len);
        if (c->result == STK_WS_CONTROL) {
            see_control(c, &event);
        } else {
            FUZZ_CHECK(event.data.ptr >= buf && event.data.ptr + event.data.len == buf + consumed);
            see_piece(c, &event);
        }
        FUZZ_CHECK(c->decoder.limit == 0 || c->message <= LIMIT + LIMIT / 64 + 64);
        buf += consumed;
        len -= consumed;
    }
}

static void receive(struct conn *c, const uint8_t *bytes, size_t size, size_t piece, unsigned how)
{
    memset(c, 0, sizeof(*c));
    c->shortens = piece < size;
    stk_ws_decoder_init(&c->decoder, how & 1 ? LIMIT : 0, how & 2);
    for (size_t at = 0; at < size && c->result == STK_WS_PARTIAL; at += piece) {
        size_t len = size - at < piece ? size - at : piece;
        char *block = malloc(len); /* of its size: a sanitizer sees what is read beyond */

        FUZZ_CHECK(block);
        memcpy(block, bytes + at, len);
        take(c, block, len);
        free(block);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conn whole, pieces;

    if (size < 2 || size > INPUT_MAX)
        return 0;
    receive(&whole, data + 1, size - 1, size, *data >> 6);
    receive(&pieces, data + 1, size - 1, (size_t)*data % 64 + 1, *data >> 6);
    FUZZ_CHECK(whole.result == pieces.result);
    FUZZ_CHECK(whole.bytes == pieces.bytes && whole.seen == pieces.seen);
    return 0;
}
