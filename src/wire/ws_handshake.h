/*
 * The opening handshake of WebSocket (RFC 6455 section 4.2) and the offers of its one extension in
 * use, permessage-deflate (RFC 7692 section 7.1). Pure: a parsed head in, words for the answer out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/span.h"
#include "wire/head.h"

enum {
    STK_WS_ACCEPT_SIZE = 28,     /* characters of Sec-WebSocket-Accept */
    STK_WS_EXTENSION_SIZE = 160, /* room for Sec-WebSocket-Extensions as answered, with its NUL */
};

enum stk_ws_handshake_result {
    STK_WS_HANDSHAKE_OK,
    STK_WS_HANDSHAKE_NONE,        /* an ordinary request: it asks for no WebSocket */
    STK_WS_HANDSHAKE_E_VERSION,   /* 426: another version than 13 is spoken */
    STK_WS_HANDSHAKE_E_KEY,       /* 400: Sec-WebSocket-Key: none, two, or not 16 bytes of base64 */
    STK_WS_HANDSHAKE_E_BODY,      /* 400: a request with a body */
    STK_WS_HANDSHAKE_E_PROTOCOL,  /* 400: Sec-WebSocket-Protocol is malformed */
    STK_WS_HANDSHAKE_E_EXTENSION, /* 400: Sec-WebSocket-Extensions is malformed */
};

struct stk_ws_handshake {
    stk_span key;
    bool has_protocols; /* stk_ws_protocol_next will find some */
    bool has_deflate;   /* permessage-deflate is offered, in some form */
};

/* What the server is ready for, of permessage-deflate. */
struct stk_ws_deflate_policy {
    bool takeover; /* contexts last from message to message, each way, unless the client forbids */
    uint8_t server_bits, client_bits; /* the greatest windows: 9 to 15 */
};

/* What has been agreed on. */
struct stk_ws_deflate_params {
    bool server_takeover, client_takeover;
    uint8_t server_bits, client_bits;
};

/*
 * Whether the head asks for a WebSocket (GET, HTTP/1.1, Upgrade and Connection as they should), and
 * whether it does so rightly (section 4.2.1).
 */
enum stk_ws_handshake_result stk_ws_handshake_read(const struct stk_head *head,
                                                   struct stk_ws_handshake *ret_handshake);
/* The HTTP status that an error is answered with, and its text. */
unsigned stk_ws_handshake_status(enum stk_ws_handshake_result result);
const char *stk_ws_handshake_text(enum stk_ws_handshake_result result);

/* Sec-WebSocket-Accept of a key (section 4.2.2 point 5.4). Not NUL-terminated. */
void stk_ws_accept(stk_span key, char ret_accept[STK_WS_ACCEPT_SIZE]);

/* A walk through the subprotocols that the client offers, in its order; begins all zero. */
struct stk_ws_protocols {
    unsigned field;
    size_t off;
};

bool stk_ws_protocol_next(const struct stk_head *head, struct stk_ws_protocols *walk,
                          stk_span *ret_name);
/* Whether the client offers this one. */
bool stk_ws_protocol_is_offered(const struct stk_head *head, stk_span name);

/*
 * Takes the first offer of permessage-deflate that can be met. False: there is none, and the
 * connection goes without. The answer's Sec-WebSocket-Extensions is written NUL-terminated.
 */
bool stk_ws_deflate_agree(const struct stk_head *head, const struct stk_ws_deflate_policy *policy,
                          struct stk_ws_deflate_params *ret_params,
                          char ret_answer[STK_WS_EXTENSION_SIZE]) STK_MUST_CHECK;
