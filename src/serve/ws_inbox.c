/*
 * The messages of a WebSocket. Most come whole in one read, in one frame, and are taken at once:
 * such a message is never copied, the item is a span of the read buffer. Otherwise its pieces are
 * gathered at the end of one buffer, behind the messages that wait, with room for a header in
 * front: when it is whole the header is filled in, and it waits without being moved.
 *
 * A compressed message is gathered as it came and inflated when it is whole. So one inflater serves
 * all connections of a thread where no window lasts from message to message, which is what keeps an
 * idle connection small. The output is bounded while it is made.
 */
#include "serve/ws_inbox.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "wire/ws_deflate.h"

enum { INBOX_MIN = 512 };

struct inbox_header {
    size_t len;
    size_t opcode;
};

void stk_ws_inbox_init(struct stk_ws_inbox *in, uint64_t limit,
                       struct stk_ws_inflater *(*inflater_of)(void *arg), void *arg)
{
    STK_ASSERT(limit > 0);
    memset(in, 0, sizeof(*in));
    in->limit = limit;
    in->inflater_of = inflater_of;
    in->arg = arg;
    stk_ws_decoder_init(&in->decoder, limit, inflater_of != NULL);
}

static void inbox_free(struct stk_ws_inbox *in)
{
    free(in->buf);
    in->buf = NULL;
    in->begin = in->end = in->cap = in->open_len = 0;
}

/* The item that was shown is not looked at any more. */
static void inbox_end_view(struct stk_ws_inbox *in)
{
    free(in->shown);
    in->shown = NULL;
    in->viewed = false;
}

void stk_ws_inbox_deinit(struct stk_ws_inbox *in)
{
    inbox_free(in);
    inbox_end_view(in);
}

/* Moves all that there is to a new buffer, as somebody may be looking at what is in this one. */
static bool inbox_leave_buffer(struct stk_ws_inbox *in, size_t cap)
{
    size_t open = in->open_len ? sizeof(struct inbox_header) + in->open_len : 0;
    char *buf = stk_try_alloc(cap);

    if (!buf)
        return false;
    memcpy(buf, in->buf + in->begin, in->end - in->begin + open);
    if (in->shown)
        free(in->buf);
    else
        in->shown = in->buf;
    in->buf = buf;
    in->cap = cap;
    in->end -= in->begin;
    in->begin = 0;
    return true;
}

/* Where the opened message's bytes are. */
static size_t inbox_open_at(const struct stk_ws_inbox *in)
{
    return in->end + sizeof(struct inbox_header);
}

/* Makes room for `more` bytes behind the opened message. */
static bool inbox_reserve(struct stk_ws_inbox *in, size_t more)
{
    size_t need = inbox_open_at(in) + in->open_len + more;
    size_t cap = in->cap ? in->cap : INBOX_MIN;
    char *buf;

    if (need <= in->cap)
        return true;
    if (in->viewed) {
        need -= in->begin;
        while (cap < need)
            cap *= 2;
        return inbox_leave_buffer(in, cap);
    }
    if (in->begin > 0) { /* what has been taken goes first */
        size_t used = in->end - in->begin;
        size_t open = in->open_len ? sizeof(struct inbox_header) + in->open_len : 0;

        memmove(in->buf, in->buf + in->begin, used + open);
        in->begin = 0;
        in->end = used;
        need = inbox_open_at(in) + in->open_len + more;
        if (need <= in->cap)
            return true;
    }
    while (cap < need)
        cap *= 2;
    buf = stk_try_realloc(in->buf, cap);
    if (!buf)
        return false;
    in->buf = buf;
    in->cap = cap;
    return true;
}

static enum stk_ws_inbox_result inbox_error(struct stk_ws_inbox *in, enum stk_ws_code code,
                                            const char *text)
{
    in->code = code;
    in->text = text;
    return STK_WS_INBOX_ERROR;
}

static enum stk_ws_inbox_result inbox_no_memory(struct stk_ws_inbox *in)
{
    return inbox_error(in, STK_WS_CODE_INTERNAL, "no memory for the message");
}

static enum stk_ws_inbox_result inbox_not_utf8(struct stk_ws_inbox *in)
{
    return inbox_error(in, STK_WS_CODE_DATA, "text that is not UTF-8");
}

/* Adds a piece to the opened message. */
static bool inbox_add(struct stk_ws_inbox *in, stk_span piece)
{
    if (!inbox_reserve(in, piece.len))
        return false;
    if (piece.len > 0)
        memcpy(in->buf + inbox_open_at(in) + in->open_len, piece.ptr, piece.len);
    in->open_len += piece.len;
    return true;
}

/*
 * Inflates the compressed message at `packed` (or, without one, the opened message, in whose place
 * the result comes) to the end of the buffer.
 */
static enum stk_ws_inbox_result inbox_inflate(struct stk_ws_inbox *in, stk_span packed)
{
    struct stk_ws_inflater *z = in->inflater_of(in->arg);
    enum stk_ws_inflate_result r = STK_WS_INFLATE_ROOM;
    size_t from = packed.ptr ? 0 : in->open_len; /* compressed bytes in front, in the buffer */
    size_t done = 0, used = 0, room = packed.len + from;

    if (!z)
        return inbox_no_memory(in);
    room = room < INBOX_MIN ? INBOX_MIN : room * 2;
    while (r == STK_WS_INFLATE_ROOM) {
        stk_span input;
        size_t n, left;
        char *base;

        /* One byte more than may come out tells a message that is too big from one that fits. */
        if (room > in->limit + 1 - done)
            room = (size_t)(in->limit + 1 - done);
        if (room == 0)
            break;
        in->open_len = from + done;
        if (!inbox_reserve(in, room))
            return inbox_no_memory(in);
        base = in->buf + inbox_open_at(in);
        input = packed.ptr ? packed : stk_span_make(base, from);
        left = input.len - used;
        input = stk_span_make(input.ptr + used, left);
        r = stk_ws_inflate(z, &input, base + from + done, room, &n);
        if (r == STK_WS_INFLATE_E_DATA)
            return inbox_error(in, STK_WS_CODE_DATA, "broken compressed data");
        if (r == STK_WS_INFLATE_E_MEMORY)
            return inbox_no_memory(in);
        used += left - input.len;
        done += n;
        room = done;
    }
    if (done > in->limit)
        return inbox_error(in, STK_WS_CODE_TOO_BIG, stk_ws_error_text(STK_WS_E_TOO_BIG));
    if (from > 0)
        memmove(in->buf + inbox_open_at(in), in->buf + inbox_open_at(in) + from, done);
    in->open_len = done;
    return STK_WS_INBOX_MESSAGE;
}

/* The opened message, or the piece that is all of it, is whole. */
static enum stk_ws_inbox_result inbox_whole(struct stk_ws_inbox *in, stk_span piece, bool only)
{
    in->opened = false;
    if (in->compressed) {
        enum stk_ws_inbox_result r = inbox_inflate(in, only ? piece : stk_span_make(NULL, 0));

        if (r != STK_WS_INBOX_MESSAGE)
            return r;
        piece = stk_span_make(in->buf + inbox_open_at(in), in->open_len);
        if (in->opcode == STK_WS_TEXT && !stk_utf8_feed(&in->utf8, piece.ptr, piece.len))
            return inbox_not_utf8(in);
        only = false;
    } else if (!only) {
        piece = stk_span_make(in->buf + inbox_open_at(in), in->open_len);
    }
    if (in->opcode == STK_WS_TEXT && !stk_utf8_is_whole(&in->utf8))
        return inbox_not_utf8(in);
    in->apart = only;
    in->item = (struct stk_ws_item){.opcode = in->opcode, .data = piece};
    return STK_WS_INBOX_MESSAGE;
}

/* A piece of a message. */
static enum stk_ws_inbox_result inbox_piece(struct stk_ws_inbox *in, const struct stk_ws_event *e)
{
    if (e->begin) {
        in->opened = true;
        in->opcode = e->opcode;
        in->compressed = e->compressed;
        memset(&in->utf8, 0, sizeof(in->utf8));
        in->open_len = 0;
    }
    if (in->opcode == STK_WS_TEXT && !in->compressed &&
        !stk_utf8_feed(&in->utf8, e->data.ptr, e->data.len))
        return inbox_not_utf8(in);
    if (e->begin && e->end)
        return inbox_whole(in, e->data, true);
    if (!inbox_add(in, e->data))
        return inbox_no_memory(in);
    return e->end ? inbox_whole(in, e->data, false) : STK_WS_INBOX_MORE;
}

enum stk_ws_inbox_result stk_ws_inbox_step(struct stk_ws_inbox *in, char **buf, size_t *len)
{
    for (;;) {
        enum stk_ws_inbox_result r;
        struct stk_ws_event event;
        size_t consumed = 0;
        enum stk_ws_result w = stk_ws_decode(&in->decoder, *buf, *len, &consumed, &event);

        if (w != STK_WS_PARTIAL && w != STK_WS_DATA && w != STK_WS_CONTROL)
            return inbox_error(in, stk_ws_error_code(w), stk_ws_error_text(w));
        *buf += consumed;
        *len -= consumed;
        if (w == STK_WS_PARTIAL)
            return STK_WS_INBOX_MORE;
        if (w == STK_WS_CONTROL) {
            in->item = (struct stk_ws_item){.opcode = event.opcode, .data = event.data};
            return STK_WS_INBOX_CONTROL;
        }
        r = inbox_piece(in, &event);
        if (r != STK_WS_INBOX_MORE)
            return r;
    }
}

bool stk_ws_inbox_keep(struct stk_ws_inbox *in)
{
    struct inbox_header header;

    if (in->apart) {
        in->open_len = 0;
        if (!inbox_add(in, in->item.data))
            return false;
    }
    header = (struct inbox_header){in->open_len, in->item.opcode};
    memcpy(in->buf + in->end, &header, sizeof(header));
    in->end = inbox_open_at(in) + in->open_len;
    in->open_len = 0;
    in->waiting++;
    return true;
}

void stk_ws_inbox_drop(struct stk_ws_inbox *in)
{
    in->open_len = 0;
    if (in->waiting == 0)
        inbox_free(in);
}

bool stk_ws_inbox_first(struct stk_ws_inbox *in, struct stk_ws_item *ret_item)
{
    struct inbox_header header;

    inbox_end_view(in);
    if (in->waiting == 0)
        return false;
    in->viewed = true;
    memcpy(&header, in->buf + in->begin, sizeof(header));
    ret_item->opcode = (uint8_t)header.opcode;
    ret_item->data = stk_span_make(in->buf + in->begin + sizeof(header), header.len);
    return true;
}

void stk_ws_inbox_pop(struct stk_ws_inbox *in)
{
    struct inbox_header header;

    inbox_end_view(in);
    memcpy(&header, in->buf + in->begin, sizeof(header));
    in->begin += sizeof(header) + header.len;
    in->waiting--;
    if (in->waiting == 0 && !in->opened)
        inbox_free(in);
    else if (in->begin == in->end && in->open_len == 0)
        in->begin = in->end = 0;
}
