/*
 * The inside of WebSockets:
 *   ws_accept.c   the opening handshake
 *   websocket.c   messages, closing, events and time
 *   ws_held.c     frames that leave a little later, together
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/websocket.h"
#include "serve/ws_inbox.h"
#include "wire/ws_handshake.h"

struct stk_ws_deflater;
struct stk_ws_inflater;
struct stk_server;

enum {
    STK_WEBSOCKET_SHARED_BITS = 15,
    STK_WEBSOCKET_DEDICATED_BITS = 12, /* windows of 4 KiB */
    STK_WEBSOCKET_LEVEL = 3,
    STK_WEBSOCKET_MEMORY = 5, /* zlib's level of memory */
};

/* Compressors without windows that last, for all connections of a server. */
struct stk_ws_shared {
    struct stk_ws_inflater *inflater;
    struct stk_ws_deflater *deflaters[STK_WEBSOCKET_SHARED_BITS + 1]; /* by window bits */
};

struct stk_websocket {
    struct stk_server *server;
    struct stk_ws_inbox inbox;
    struct stk_ws_deflate_params params; /* with compresses */
    struct stk_ws_inflater *inflater;    /* its own, where a window lasts */
    struct stk_ws_deflater *deflater;
    stk_msec heard;  /* when something has come last, by the loop's clock */
    stk_msec pinged; /* when a ping was sent that nothing has come behind; 0: none */
    bool compresses;
    bool shows; /* the inbox's item is to be shown, behind the event; it is in the read buffer */
    _Atomic bool held;   /* frames of it lie in det->ws_held */
    _Atomic bool closed; /* nothing more is held: for whoever has not got the mutex */
    bool paused;         /* enough waits for the application: nothing more is read */
    _Atomic bool busy;   /* the application has got messages, and has not asked for more since */
    bool sent_close;     /* nothing more is sent */
    bool got_close;
    bool deaf;         /* what the client sends does not count any more */
    bool lost;         /* it is gone: nothing can be sent */
    bool shut;         /* our direction of the connection has been ended */
    bool counts;       /* in the gauge */
    bool pending;      /* its end is put off for an application that is busy */
    bool pending_late; /* for the second time */
    bool ended;        /* the application is told that it is over, with: */
    uint16_t end_code;
    uint8_t end_len;
    char *end_reason;      /* end_len bytes, or NULL */
    stk_msec pending_from; /* with pending */
};

/* Sends bytes of whole frames, for ws_held.c. 0, or -EPIPE. Mutex held. */
int stk_websocket_send_bytes(struct stk_conn *conn, char *buf, size_t len);
/* Takes bytes that the connection has kept as input. Mutex held. */
void stk_websocket_take_kept_locked(struct stk_conn *conn);
/* The inflater for a message of this WebSocket, for its inbox; NULL: no memory. */
struct stk_ws_inflater *stk_websocket_inflater(void *arg);

/* ---- ws_held.c, mutex held ----------------------------------------------------------------- */

struct stk_detach;
struct stk_ws_held;

/* Makes det->ws_held, where frames can be held and there is memory. */
void stk_ws_held_init(struct stk_detach *det);
/* Accepts NULL; returns NULL. */
struct stk_ws_held *stk_ws_held_free(struct stk_ws_held *held);
/* Sends all that is held. */
void stk_ws_held_flush(struct stk_detach *det);
/* Sends it where there is no room for more. */
void stk_ws_held_make_room(struct stk_detach *det);
/*
 * Holds a frame of a small message that is not to be compressed; false: it is to be sent. On the
 * thread of the event loop, without the mutex.
 */
bool stk_ws_hold(struct stk_conn *conn, enum stk_ws_opcode opcode, const char *data, size_t len);
