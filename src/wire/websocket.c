/*
 * WebSocket frames. The decoder keeps the head of a frame until it is whole (at most 14 bytes) and
 * judges it as soon as a byte says something: a reserved bit, a control frame that is too long, a
 * message over the limit. After that payload is passed on as it comes, in pieces that end with the
 * input or the frame; only control frames, of 125 bytes at most, are gathered. What follows a close
 * frame does not count any more.
 *
 * A mask is four bytes that repeat: unmasking takes 32 bytes a step, and turns the mask at the end
 * so that the next piece begins with its first byte.
 */
#include "wire/websocket.h"

#include <string.h>

#include "base/utf8.h"

enum { WS_STATE_HEAD, WS_STATE_PAYLOAD };
enum { WS_FIN = 0x80, WS_RSV1 = 0x40, WS_RSV = 0x70, WS_OPCODE = 0x0f, WS_CONTROL_BIT = 0x08 };
enum { WS_MASKED = 0x80, WS_LEN_16 = 126, WS_LEN_64 = 127 };

typedef uint64_t ws_block __attribute__((vector_size(16)));

uint32_t stk_ws_mask(char *data, size_t len, uint32_t mask)
{
    char *p = data, *end = data + len;
    unsigned char key[4];
    uint32_t turned;
    uint64_t wide;
    unsigned tail;

    wide = (uint64_t)mask << 32 | mask;
    for (; end - p >= 32; p += 32) {
        ws_block a, b, m = {wide, wide};

        memcpy(&a, p, 16);
        memcpy(&b, p + 16, 16);
        a ^= m;
        b ^= m;
        memcpy(p, &a, 16);
        memcpy(p + 16, &b, 16);
    }
    for (; end - p >= 8; p += 8) {
        uint64_t x;

        memcpy(&x, p, 8);
        x ^= wide;
        memcpy(p, &x, 8);
    }
    memcpy(key, &mask, 4);
    for (unsigned i = 0; p < end; p++, i++)
        *p = (char)((unsigned char)*p ^ key[i & 3]);
    tail = (unsigned)(len & 3);
    for (unsigned i = 0; i < 4; i++)
        ((unsigned char *)&turned)[i] = key[(i + tail) & 3];
    return turned;
}

void stk_ws_decoder_init(struct stk_ws_decoder *d, uint64_t limit, bool extension)
{
    memset(d, 0, sizeof(*d));
    d->limit = limit;
    d->extension = extension;
}

/* The first byte: bits and opcode. 0 or the error. */
static enum stk_ws_result ws_check_first(const struct stk_ws_decoder *d, unsigned byte)
{
    unsigned opcode = byte & WS_OPCODE, reserved = byte & WS_RSV;
    bool data = opcode == STK_WS_TEXT || opcode == STK_WS_BINARY;

    if (reserved != 0 && !(reserved == WS_RSV1 && d->extension && data))
        return STK_WS_E_RESERVED;
    if (opcode & WS_CONTROL_BIT) {
        if (opcode > STK_WS_PONG)
            return STK_WS_E_OPCODE;
        return byte & WS_FIN ? STK_WS_PARTIAL : STK_WS_E_FRAGMENTED;
    }
    if (opcode > STK_WS_BINARY)
        return STK_WS_E_OPCODE;
    if (data)
        return d->message_opcode == 0 ? STK_WS_PARTIAL : STK_WS_E_INTERLEAVED;
    return d->message_opcode != 0 ? STK_WS_PARTIAL : STK_WS_E_CONTINUATION;
}

/* The second byte: mask bit and short length. */
static enum stk_ws_result ws_check_second(struct stk_ws_decoder *d, unsigned byte)
{
    unsigned len = byte & ~(unsigned)WS_MASKED;

    if (!(byte & WS_MASKED))
        return STK_WS_E_UNMASKED;
    if ((d->head[0] & WS_CONTROL_BIT) && len > STK_WS_CONTROL_MAX)
        return STK_WS_E_CONTROL_SIZE;
    d->head_size = len == WS_LEN_64 ? 14 : len == WS_LEN_16 ? 8 : 6;
    return STK_WS_PARTIAL;
}

/* Compression adds a little to what it cannot make shorter: a message within the limit stays so. */
static uint64_t ws_limit(const struct stk_ws_decoder *d, bool compressed)
{
    return compressed ? d->limit + d->limit / 64 + 64 : d->limit;
}

/* The length, as soon as it is there: in its shortest form, and within the limit. */
static enum stk_ws_result ws_check_length(struct stk_ws_decoder *d)
{
    unsigned size = d->head_size - 4U; /* without the mask */
    uint64_t len = 0;

    if (size == 2) {
        len = d->head[1] & ~(unsigned)WS_MASKED;
    } else {
        for (unsigned i = 2; i < size; i++)
            len = len << 8 | d->head[i];
        if (len >> 63 || len < WS_LEN_16 || (size == 10 && len <= UINT16_MAX))
            return STK_WS_E_LENGTH;
    }
    d->left = len;
    if (d->head[0] & WS_CONTROL_BIT)
        return STK_WS_PARTIAL;
    if ((d->head[0] & WS_OPCODE) != STK_WS_CONTINUATION) {
        d->message = 0;
        d->compressed = d->head[0] & WS_RSV1;
    }
    if (d->limit > 0 && len > ws_limit(d, d->compressed) - d->message)
        return STK_WS_E_TOO_BIG;
    return STK_WS_PARTIAL;
}

/* The head is whole and right. */
static void ws_begin_frame(struct stk_ws_decoder *d)
{
    unsigned opcode = d->head[0] & WS_OPCODE;

    d->opcode = (uint8_t)opcode;
    d->fin = d->head[0] & WS_FIN;
    memcpy(&d->mask, d->head + d->head_size - 4, 4);
    d->head_len = 0;
    d->state = WS_STATE_PAYLOAD;
    d->control_len = 0;
    if (opcode & WS_CONTROL_BIT)
        return;
    d->message += d->left;
    if (opcode != STK_WS_CONTINUATION) {
        d->message_opcode = (uint8_t)opcode;
        d->fresh = true;
    }
}

/* Takes bytes of a head; PARTIAL also when it is whole (the state tells). */
static enum stk_ws_result ws_take_head(struct stk_ws_decoder *d, const char *buf, size_t len,
                                       size_t *ret_used)
{
    size_t used = 0;

    while (used < len) {
        enum stk_ws_result r = STK_WS_PARTIAL;

        d->head[d->head_len++] = (uint8_t)buf[used++];
        if (d->head_len == 1) {
            r = ws_check_first(d, d->head[0]);
        } else {
            if (d->head_len == 2)
                r = ws_check_second(d, d->head[1]);
            if (r == STK_WS_PARTIAL && d->head_len == d->head_size - 4)
                r = ws_check_length(d);
        }
        if (r != STK_WS_PARTIAL)
            return r;
        if (d->head_len > 2 && d->head_len == d->head_size) {
            ws_begin_frame(d);
            break;
        }
    }
    *ret_used = used;
    return STK_WS_PARTIAL;
}

/* Payload of a data frame. */
static enum stk_ws_result ws_take_data(struct stk_ws_decoder *d, char *buf, size_t len,
                                       size_t *ret_used, struct stk_ws_event *ret_event)
{
    size_t n = d->left < len ? (size_t)d->left : len;

    d->mask = stk_ws_mask(buf, n, d->mask);
    d->left -= n;
    *ret_used = n;
    if (d->left == 0)
        d->state = WS_STATE_HEAD;
    if (n == 0 && !(d->left == 0 && d->fin))
        return STK_WS_PARTIAL;
    *ret_event = (struct stk_ws_event){
        .data = stk_span_make(buf, n),
        .opcode = d->message_opcode,
        .begin = d->fresh,
        .end = d->left == 0 && d->fin,
        .compressed = d->compressed,
    };
    d->fresh = false;
    if (ret_event->end)
        d->message_opcode = 0;
    return STK_WS_DATA;
}

/* Payload of a control frame. */
static enum stk_ws_result ws_take_control(struct stk_ws_decoder *d, char *buf, size_t len,
                                          size_t *ret_used, struct stk_ws_event *ret_event)
{
    size_t n = d->left < len ? (size_t)d->left : len;

    d->mask = stk_ws_mask(buf, n, d->mask);
    memcpy(d->control + d->control_len, buf, n);
    d->control_len = (uint8_t)(d->control_len + n);
    d->left -= n;
    *ret_used = n;
    if (d->left > 0)
        return STK_WS_PARTIAL;
    d->state = WS_STATE_HEAD;
    d->closed = d->opcode == STK_WS_CLOSE;
    *ret_event = (struct stk_ws_event){
        .data = stk_span_make((const char *)d->control, d->control_len),
        .opcode = d->opcode,
        .end = true,
    };
    return STK_WS_CONTROL;
}

enum stk_ws_result stk_ws_decode(struct stk_ws_decoder *d, char *buf, size_t len,
                                 size_t *ret_consumed, struct stk_ws_event *ret_event)
{
    size_t at = 0;

    if (d->error != STK_WS_PARTIAL)
        return (enum stk_ws_result)d->error;
    while (!d->closed) {
        enum stk_ws_result r;
        size_t used = 0;

        if (d->state == WS_STATE_HEAD) {
            if (at == len)
                break;
            r = ws_take_head(d, buf + at, len - at, &used);
            if (r != STK_WS_PARTIAL) {
                d->error = (uint8_t)r;
                return r;
            }
            at += used;
            continue;
        }
        if (at == len && d->left > 0)
            break;
        r = d->opcode & WS_CONTROL_BIT ? ws_take_control(d, buf + at, len - at, &used, ret_event)
                                       : ws_take_data(d, buf + at, len - at, &used, ret_event);
        at += used;
        if (r != STK_WS_PARTIAL) {
            *ret_consumed = at;
            return r;
        }
    }
    *ret_consumed = len;
    return STK_WS_PARTIAL;
}

/* Unmasks up to 125 bytes, from the first of the mask on; whether all are ASCII. */
static inline bool ws_unmask_short(char *p, size_t len, uint32_t mask)
{
    const uint64_t high = 0x8080808080808080, wide = (uint64_t)mask << 32 | mask;
    ws_block all = {0, 0}, m = {wide, wide};
    char *end = p + len;
    uint64_t rest = 0, x;

    for (; end - p >= 16; p += 16) {
        ws_block a;

        memcpy(&a, p, 16);
        a ^= m;
        all |= a;
        memcpy(p, &a, 16);
    }
    for (; end - p >= 4; p += 4) {
        uint32_t half;

        memcpy(&half, p, 4);
        half ^= mask;
        rest |= half;
        memcpy(p, &half, 4);
    }
    for (x = wide; p < end; p++) {
        unsigned char key;

        memcpy(&key, (char *)&x + ((size_t)(p - end) + len) % 4, 1);
        *p = (char)((unsigned char)*p ^ key);
        rest |= (unsigned char)*p;
    }
    return !((all[0] | all[1] | rest) & high);
}

bool stk_ws_decode_only(const struct stk_ws_decoder *d, char *buf, size_t len,
                        struct stk_ws_only *ret_only)
{
    unsigned first, size;
    uint32_t mask;
    bool ascii;

    if (len < 6 || len > 6 + STK_WS_CONTROL_MAX || d->state != WS_STATE_HEAD || d->head_len != 0 ||
        d->message_opcode != 0 || d->error != STK_WS_PARTIAL || d->closed)
        return false;
    first = (unsigned char)buf[0];
    size = (unsigned char)buf[1] ^ WS_MASKED; /* beyond 125 also where it is not masked */
    if ((first != (WS_FIN | STK_WS_TEXT) && first != (WS_FIN | STK_WS_BINARY)) || size != len - 6 ||
        (d->limit > 0 && size > d->limit))
        return false;
    memcpy(&mask, buf + 2, 4);
    ascii = ws_unmask_short(buf + 6, size, mask);
    if (!ascii && first == (WS_FIN | STK_WS_TEXT)) {
        struct stk_utf8 utf8 = {0};

        if (!stk_utf8_feed(&utf8, buf + 6, size) || !stk_utf8_is_whole(&utf8)) {
            (void)ws_unmask_short(buf + 6, size, mask); /* as it came */
            return false;
        }
    }
    *ret_only = (struct stk_ws_only){.data = stk_span_make(buf + 6, size),
                                     .opcode = (uint8_t)(first & WS_OPCODE),
                                     .ascii = ascii};
    return true;
}

const char *stk_ws_error_text(enum stk_ws_result error)
{
    switch (error) {
    case STK_WS_PARTIAL:
    case STK_WS_DATA:
    case STK_WS_CONTROL:
        break;
    case STK_WS_E_RESERVED:
        return "reserved bit set";
    case STK_WS_E_OPCODE:
        return "reserved opcode";
    case STK_WS_E_UNMASKED:
        return "frame not masked";
    case STK_WS_E_FRAGMENTED:
        return "control frame in fragments";
    case STK_WS_E_CONTROL_SIZE:
        return "control frame over 125 bytes";
    case STK_WS_E_LENGTH:
        return "length not in its shortest form, or 2^63 or more";
    case STK_WS_E_CONTINUATION:
        return "continuation of no message";
    case STK_WS_E_INTERLEAVED:
        return "new message before the end of the last one";
    case STK_WS_E_TOO_BIG:
        return "message too big";
    }
    return "no error";
}

enum stk_ws_code stk_ws_error_code(enum stk_ws_result error)
{
    return error == STK_WS_E_TOO_BIG ? STK_WS_CODE_TOO_BIG : STK_WS_CODE_PROTOCOL;
}

size_t stk_ws_head(char ret_head[STK_WS_HEAD_MAX], enum stk_ws_opcode opcode, bool compressed,
                   uint64_t len)
{
    unsigned char *p = (unsigned char *)ret_head;
    unsigned size = len <= STK_WS_CONTROL_MAX ? 2 : len <= UINT16_MAX ? 4 : 10;

    p[0] = (unsigned char)(WS_FIN | (compressed ? WS_RSV1 : 0) | (int)opcode);
    if (size == 2) {
        p[1] = (unsigned char)len;
        return 2;
    }
    p[1] = size == 4 ? WS_LEN_16 : WS_LEN_64;
    for (unsigned i = size - 1; i >= 2; i--, len >>= 8)
        p[i] = (unsigned char)len;
    return size;
}

size_t stk_ws_close_frame(char ret_frame[2 + STK_WS_CONTROL_MAX], unsigned code, stk_span reason)
{
    size_t len = reason.len, head;

    if (code == STK_WS_CODE_NONE)
        return stk_ws_head(ret_frame, STK_WS_CLOSE, false, 0);
    if (len > STK_WS_REASON_MAX) {
        len = STK_WS_REASON_MAX;
        while (len > 0 && ((unsigned char)reason.ptr[len] & 0xc0) == 0x80)
            len--;
    }
    head = stk_ws_head(ret_frame, STK_WS_CLOSE, false, len + 2);
    ret_frame[head] = (char)(code >> 8);
    ret_frame[head + 1] = (char)(code & 0xff);
    if (len > 0)
        memcpy(ret_frame + head + 2, reason.ptr, len);
    return head + 2 + len;
}

bool stk_ws_code_is_valid(unsigned code)
{
    if (code >= 3000)
        return code < 5000;
    return code >= 1000 && code <= 1014 && code != 1004 && code != STK_WS_CODE_NONE &&
           code != STK_WS_CODE_ABNORMAL;
}

int stk_ws_close_read(stk_span payload, unsigned *ret_code, stk_span *ret_reason)
{
    struct stk_utf8 utf8 = {0};
    unsigned code;

    if (payload.len == 0) {
        *ret_code = STK_WS_CODE_NONE;
        *ret_reason = stk_span_make("", 0);
        return 0;
    }
    if (payload.len == 1)
        return STK_WS_CODE_PROTOCOL;
    code = (unsigned)(unsigned char)payload.ptr[0] << 8 | (unsigned char)payload.ptr[1];
    if (!stk_ws_code_is_valid(code))
        return STK_WS_CODE_PROTOCOL;
    if (!stk_utf8_feed(&utf8, payload.ptr + 2, payload.len - 2) || !stk_utf8_is_whole(&utf8))
        return STK_WS_CODE_DATA;
    *ret_code = code;
    *ret_reason = stk_span_make(payload.ptr + 2, payload.len - 2);
    return 0;
}
