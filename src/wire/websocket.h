/*
 * WebSocket frames (RFC 6455 section 5), the server's side: what a client sends is decoded, what it
 * gets is written. Pure and incremental; the payload stays where it came and is unmasked there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/span.h"

enum stk_ws_opcode {
    STK_WS_CONTINUATION = 0,
    STK_WS_TEXT = 1,
    STK_WS_BINARY = 2,
    STK_WS_CLOSE = 8,
    STK_WS_PING = 9,
    STK_WS_PONG = 10,
};

/* Status codes of a close frame (RFC 6455 section 7.4.1, IANA's registry). */
enum stk_ws_code {
    STK_WS_CODE_NORMAL = 1000,
    STK_WS_CODE_GOING_AWAY = 1001,
    STK_WS_CODE_PROTOCOL = 1002,
    STK_WS_CODE_NONE = 1005,     /* never sent: the frame had none */
    STK_WS_CODE_ABNORMAL = 1006, /* never sent: there was no frame */
    STK_WS_CODE_DATA = 1007,
    STK_WS_CODE_POLICY = 1008,
    STK_WS_CODE_TOO_BIG = 1009,
    STK_WS_CODE_INTERNAL = 1011,
    STK_WS_CODE_RESTART = 1012,
};

enum {
    STK_WS_CONTROL_MAX = 125,
    STK_WS_REASON_MAX = STK_WS_CONTROL_MAX - 2,
    STK_WS_HEAD_MAX = 10, /* of a frame that the server sends */
};

enum stk_ws_result {
    STK_WS_PARTIAL,        /* all input consumed, more is needed */
    STK_WS_DATA,           /* a piece of a message: event.data; event.end with its last one */
    STK_WS_CONTROL,        /* a whole control frame: event.opcode, event.data */
    STK_WS_E_RESERVED,     /* a reserved bit that no extension gives a meaning */
    STK_WS_E_OPCODE,       /* a reserved opcode */
    STK_WS_E_UNMASKED,     /* clients mask (section 5.1) */
    STK_WS_E_FRAGMENTED,   /* a control frame in fragments */
    STK_WS_E_CONTROL_SIZE, /* a control frame over 125 bytes */
    STK_WS_E_LENGTH,       /* a length of 2^63 or more, or not in its shortest form */
    STK_WS_E_CONTINUATION, /* a continuation of nothing */
    STK_WS_E_INTERLEAVED,  /* a new message before the last one's end */
    STK_WS_E_TOO_BIG,      /* a message over the limit: known as soon as a frame's head tells */
};

struct stk_ws_event {
    stk_span data;   /* unmasked; of a control frame valid until the next call */
    uint8_t opcode;  /* of a piece: TEXT or BINARY, of its message */
    bool begin;      /* the first piece of its message */
    bool end;        /* the last one; it may be of no bytes */
    bool compressed; /* the message is (RSV1, RFC 7692 section 6) */
};

/* A message that is all of an input. */
struct stk_ws_only {
    stk_span data;  /* in the input, unmasked */
    uint8_t opcode; /* TEXT (it is UTF-8) or BINARY */
    bool ascii;     /* all bytes of it are below 0x80 */
};

struct stk_ws_decoder {
    uint64_t left;    /* payload bytes left of the current frame */
    uint64_t message; /* payload bytes of the current message, its current frame included */
    uint64_t limit; /* of a message, in payload bytes, at most 2^62 (a compressed one may be a 64th
                       longer); 0: none */
    uint32_t mask;
    uint8_t state;
    uint8_t head_len, head_size; /* bytes of the current frame's head: here, and in all */
    uint8_t opcode;              /* of the current frame */
    uint8_t message_opcode;      /* 0: between messages */
    uint8_t control_len;
    uint8_t error; /* enum stk_ws_result; errors stay */
    bool fin, fresh, compressed, closed;
    bool extension; /* permessage-deflate has been agreed on: RSV1 may be set */
    uint8_t head[14];
    uint8_t control[STK_WS_CONTROL_MAX];
};

void stk_ws_decoder_init(struct stk_ws_decoder *d, uint64_t limit, bool extension);
/*
 * Decodes from buf[0..len), which it changes: payload is unmasked in place. *ret_consumed says how
 * many bytes are done with, those of event.data included (a span into buf, or into the decoder for
 * a control frame). Call again with the rest until PARTIAL or an error. Pieces of no bytes are only
 * told where they end a message. Behind a close frame everything is dropped (section 5.5.1).
 */
enum stk_ws_result stk_ws_decode(struct stk_ws_decoder *d, char *buf, size_t len,
                                 size_t *ret_consumed, struct stk_ws_event *ret_event);
/*
 * The way of most messages: between two of them, buf[0..len) is just one, whole, short and not
 * compressed. True: it has been unmasked, and is told; the decoder is where it was. False: nothing
 * has happened, stk_ws_decode is to see it.
 */
bool stk_ws_decode_only(const struct stk_ws_decoder *d, char *buf, size_t len,
                        struct stk_ws_only *ret_only);
/* Whether the decoder is at the border of two messages, of which nothing is kept. */
static inline bool stk_ws_decoder_is_idle(const struct stk_ws_decoder *d)
{
    return d->message_opcode == 0 && d->head_len == 0 && d->left == 0;
}
/* What went wrong, for the log and as the reason of a close frame. */
const char *stk_ws_error_text(enum stk_ws_result error);
/* The code that an error closes the connection with. */
enum stk_ws_code stk_ws_error_code(enum stk_ws_result error);

/* XORs with the four bytes of `mask` as they lie in memory, from the first; gives back the mask
 * turned so that it fits the byte behind. */
uint32_t stk_ws_mask(char *data, size_t len, uint32_t mask);

/*
 * Writes the head of a whole message in one frame, or of a control frame; gives back its length.
 * `compressed` sets RSV1.
 */
size_t stk_ws_head(char ret_head[STK_WS_HEAD_MAX], enum stk_ws_opcode opcode, bool compressed,
                   uint64_t len);
/*
 * Writes a whole close frame, its reason cut to what fits (between characters); code NONE: without
 * one. Gives back its length.
 */
size_t stk_ws_close_frame(char ret_frame[2 + STK_WS_CONTROL_MAX], unsigned code, stk_span reason);
/* Whether an endpoint may send this code (section 7.4). */
bool stk_ws_code_is_valid(unsigned code);
/*
 * Reads the payload of a close frame. 0; STK_WS_CODE_PROTOCOL (one byte, or a code that must not be
 * sent) or STK_WS_CODE_DATA (the reason is no UTF-8): what to close with. Without a code:
 * STK_WS_CODE_NONE.
 */
int stk_ws_close_read(stk_span payload, unsigned *ret_code, stk_span *ret_reason);
