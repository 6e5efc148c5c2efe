/*
 * The contract between a server (serve/) and an application host (pyhost/, or the C echo of the
 * tests), first half: a request and the services on it.
 *
 * A request belongs to one thread from host->call() until that returns. All services are called by
 * that thread and never block: where they would, they return -EAGAIN and the host waits in its own
 * way (thread, greenlet, future) for what `wait_for` tells it, then calls again with the same
 * arguments.
 *
 * A host with an event loop may let a request outlive its call: it *detaches* the request, and
 * call() returns. A detached request belongs to the thread that drives the engine (struct
 * stk_host_engine); its services may be called there at any time, in a turn or between two, from
 * wake() and from the call or the step of another request, until `finish`. For its output it never
 * waits: write takes everything, is_congested says when the application should wait, and `want`
 * asks to be woken. For its body it asks by `want` after -EAGAIN.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"
#include "base/span.h"
#include "base/time.h"
#include "wire/head.h"
#include "wire/proto.h"

struct stk_request;

/* What a listener says of itself; one object per listening address, alive as long as the worker. */
struct stk_endpoint {
    unsigned index;       /* 0, 1, 2 ... : a host may keep a template per endpoint */
    stk_span scheme;      /* "http" */
    stk_span server_name; /* for SERVER_NAME: the bound host, or the machine's name for a wildcard;
                             "localhost" for unix: */
    stk_span server_port; /* decimal; "" for unix: */
    bool is_unix;
    stk_span path;          /* of a unix socket, where it has one */
    uint8_t proto;          /* enum stk_proto; STK_PROTO_UNTOLD: the first bytes tell */
    uint8_t proxy_protocol; /* enum stk_proxy_protocol of config.h */
    bool persistent;        /* uwsgi: a connection is kept for further requests */
};

struct stk_peer {
    char addr[48]; /* text of the client's address; "" for a unix socket */
    uint8_t addr_len;
    uint16_t port; /* 0: unknown */
};

/* Positive results of start, header, write, sendfile: the application's mistake; nothing was sent
 * by it. */
enum stk_response_error {
    STK_RESPONSE_E_STATUS = 1,  /* status not in 200..599, or control bytes in the reason */
    STK_RESPONSE_E_NAME,        /* field name not a token */
    STK_RESPONSE_E_VALUE,       /* CR, LF, NUL or another control in a value */
    STK_RESPONSE_E_HOP_BY_HOP,  /* a hop-by-hop field (PEP 3333 forbids them) */
    STK_RESPONSE_E_LENGTH,      /* Content-Length not a number, or two that differ */
    STK_RESPONSE_E_HEAD_SIZE,   /* response head over 64 KiB */
    STK_RESPONSE_E_STARTED,     /* start or header after the head has left */
    STK_RESPONSE_E_NOT_STARTED, /* write before start */
    STK_RESPONSE_E_TOO_LONG, /* body beyond Content-Length: what fits was sent, the rest cut off */
    STK_RESPONSE_E_SUBPROTOCOL, /* a WebSocket subprotocol that the client has not offered */
    STK_RESPONSE_E_WS_CODE,     /* a close code that must not be sent */
    STK_RESPONSE_E_TRAILER,     /* a field that must not stand behind the body */
};

enum stk_write_flags {
    STK_WRITE_END = 1,   /* these are the last bytes of the body */
    STK_WRITE_FLUSH = 2, /* must leave now, not be gathered with what follows */
};

/* Why and for what a service would block. */
struct stk_wait {
    int fd;
    short events;     /* POLLIN, POLLOUT */
    stk_msec timeout; /* milliseconds from now, -1: none. On its end call the service again: it
                         decides. */
};

/* The body, as far as it can be seen without copying. */
struct stk_body_view {
    const char *ptr;
    size_t len;   /* 0: the end of the body */
    void *buffer; /* the host's own buffer (host_ops.body_alloc) that ptr..len is the whole rest of,
                     or NULL */
    void
        *part; /* likewise of a body that streams: ptr..len is all of the buffer, not of the body */
};

/* A message of a WebSocket, or its end. */
struct stk_ws_view {
    const char *ptr; /* of the end: the reason */
    size_t len;
    bool text;     /* valid UTF-8; else binary */
    bool ascii;    /* it is known that all bytes are below 0x80 */
    bool end;      /* the WebSocket is closed, or the client gone */
    uint16_t code; /* of the end: that of the client, or of ours; 1005: none was given; 1006: the
                      client vanished */
};

/* The TLS session of a request, texts alive as long as the request. */
struct stk_tls_view {
    unsigned version;     /* 0x0304: TLS 1.3 */
    unsigned suite;       /* the two bytes that the registry has for it */
    stk_span server_cert; /* PEM; empty: not known */
    stk_span
        client_certs;     /* verified ones, PEM: the client's own, then those that have signed it */
    stk_span client_name; /* the subject of the first, RFC 4514 */
};

/* A head that start and header have accepted, as the server keeps it. For the host only bytes. */
enum { STK_RESPONSE_HEAD_MAX = 448 };

struct stk_response_head {
    uint64_t length; /* Content-Length, with has_length */
    uint16_t len;
    uint16_t status;
    bool has_length, has_date, has_server;
    char bytes[STK_RESPONSE_HEAD_MAX];
};

struct stk_request_ops {
    /* Shows unread bytes of the body. 0; -EAGAIN; -ECONNRESET (client gone), -ETIMEDOUT, -EPROTO
     * (bad chunk), -EIO. */
    int (*body_peek)(struct stk_request *req, struct stk_body_view *ret_view);
    /* Marks bytes of the last view as read. */
    void (*body_skip)(struct stk_request *req, size_t len);
    /* Copies up to len unread bytes, straight from the socket where it can. > 0; 0 at the end; or
     * as body_peek. */
    ssize_t (*body_read)(struct stk_request *req, char *dst, size_t len);

    /* Begins a response head. Again before any byte has left: replaces it (exc_info). 0 or > 0. */
    int (*start)(struct stk_request *req, unsigned status, stk_span reason);
    /* Adds a field. 0 or > 0. */
    int (*header)(struct stk_request *req, stk_span name, stk_span value);
    /* Takes a copy of the head that start and header have made so far; false: it is too large. */
    bool (*head_save)(const struct stk_request *req, struct stk_response_head *ret_head);
    /* Stands for the calls of start and header that made the saved head, of any request. 0 or > 0.
     */
    int (*head_load)(struct stk_request *req, const struct stk_response_head *head);
    /*
     * Sends body bytes; the first call sends the head with them. With STK_WRITE_END on the first
     * call Content-Length is filled in. 0; > 0; -EAGAIN; -EPIPE (client gone; further writes say so
     * too). The bytes are copied or sent, never kept. Without bytes, behind the end,
     * STK_WRITE_FLUSH sends what still lies there.
     */
    int (*write)(struct stk_request *req, const char *data, size_t len, unsigned flags);
    /* Sends len bytes of a file from off as body (the descriptor is duplicated where needed). As
     * write. */
    int (*sendfile)(struct stk_request *req, int fd, int64_t off, uint64_t len, unsigned flags);
    /*
     * Ends a response, whose body has been written without STK_WRITE_END, with fields behind the
     * body (RFC 9110 6.5); `trailers` of the request has to have been set before start. 0; > 0 as
     * header, *ret_bad being the field; else as write. Where the framing has no room for them they
     * are left out.
     */
    int (*trailers)(struct stk_request *req, const struct stk_var *fields, size_t nfields,
                    size_t *ret_bad);
    /*
     * 103 Early Hints (RFC 8297) with a field Link for each value, which leaves at once. 0, also
     * where none can be sent: the response has begun to leave, or it is not HTTP/1.1; > 0 as
     * header; -EPIPE, -ENOMEM.
     */
    int (*early_hint)(struct stk_request *req, const stk_span *links, size_t nlinks);
    /* Shows the TLS session that the client has with this server. False: there is none. */
    bool (*tls)(const struct stk_request *req, struct stk_tls_view *ret_view);
    /* Whether the head, or a part of it, has left or been queued to leave. */
    bool (*is_committed)(const struct stk_request *req);
    /* The application failed: a plain 500 if nothing has left, else the connection will be closed
     * such that the client sees the truncation. */
    void (*fail)(struct stk_request *req);
    /* Whether the client is known to have left (a half-close is not leaving). */
    bool (*is_disconnected)(struct stk_request *req);
    /* After -EAGAIN: what to wait for. */
    void (*wait_for)(struct stk_request *req, struct stk_wait *ret_wait);
    /* Gives the request so many milliseconds from now on, in place of request-timeout; 0: no limit.
     * 0, or -ENOTSUP where nobody watches. */
    int (*set_timeout)(struct stk_request *req, stk_msec timeout);
    /* Sets a variable of the request for the access log, at most 64 of 1 KiB (more is cut). 0, or
     * -EINVAL, -ENOSPC, -ENOMEM. Then: copies its value to dst; the length, 0: there is none. */
    int (*set_logvar)(struct stk_request *req, stk_span name, stk_span value);
    size_t (*get_logvar)(const struct stk_request *req, stk_span name, char *dst, size_t size);
    /* The request is to be in the access log, whatever access-log-only says. */
    void (*log_this)(struct stk_request *req);

    /*
     * For hosts with an event loop (stk_host_ops.has_loop). Makes a request outlive its call: the
     * request from now on, with the response as far as it has come, what is left of the body, and
     * host_data; `req` is dead. Only in call(), once, before it returns STK_HOST_PENDING; NULL: no
     * memory, and the response has failed: call returns STK_HOST_DONE without touching it. Body
     * views from before are dead as well, but for the host's own buffers.
     */
    struct stk_request *(*detach)(struct stk_request *req);
    /* Detached: asks to be woken, once, for STK_WAKE_INPUT and STK_WAKE_OUTPUT (in a later turn,
     * where it is so already). The other reasons are always told. */
    void (*want)(struct stk_request *req, unsigned what);
    /*
     * Gives the connection to the application, which speaks a protocol of its own on it until the
     * request ends, and the connection with it. The response counts as given, with this status; the
     * server neither reads nor writes. Returns the descriptor, which is not blocking and stays the
     * server's; -EALREADY: a response has begun; -EPIPE: the client is gone; -ENOTSUP: TLS, a
     * gateway's protocol, a body, or bytes behind the request.
     */
    int (*take)(struct stk_request *req, unsigned status);
    /* Whether more is queued for the client than should be (64 KiB; STK_WAKE_OUTPUT comes below 16
     * KiB): the application is to wait. Also before the request is detached. False once write would
     * say -EPIPE. */
    bool (*is_congested)(struct stk_request *req);
    /*
     * WebSocket. Of a detached request with `websocket` set: accepts it, with a subprotocol ("":
     * none) out of those offered and further fields of the response. To refuse it, answer by start,
     * header and write as any request. 0; STK_RESPONSE_E_STARTED, _E_NAME, _E_VALUE, _E_HOP_BY_HOP
     * (a field that is the server's to say; of these three *ret_bad is the field), _E_HEAD_SIZE,
     * _E_SUBPROTOCOL (not offered); -EPIPE (the client is gone), -ENOMEM.
     */
    int (*ws_accept)(struct stk_request *req, stk_span subprotocol, const struct stk_var *fields,
                     size_t nfields, size_t *ret_bad);
    /*
     * The rest: of an accepted one. Sends a whole message; text has to be UTF-8. Takes it in any
     * case (is_congested, want), but for -EPIPE: it is closed, or the client gone; -ENOMEM.
     */
    int (*ws_send)(struct stk_request *req, const char *data, size_t len, bool text);
    /*
     * Shows the next whole message, or that there will be none. 0; -EAGAIN: none yet, and
     * STK_WAKE_INPUT is asked for. The view is valid until the next call of anything for this
     * request; ws_skip ends it, and is not to be called for a view that is the end.
     */
    int (*ws_peek)(struct stk_request *req, struct stk_ws_view *ret_view);
    void (*ws_skip)(struct stk_request *req);
    /*
     * In the place of a ws_peek that would say -EAGAIN, while STK_WAKE_INPUT is asked for: the
     * application has dealt with the messages that it got, and waits for more.
     */
    void (*ws_wait)(struct stk_request *req);
    /*
     * Ends it: the client is told the code (1000 ...) and a reason in UTF-8, of 123 bytes at most,
     * which are cut there. 0; STK_RESPONSE_E_WS_CODE: not one that may be sent; -EPIPE: it is
     * closed already. Where finish comes without it the code is 1000, or 1011 after fail.
     */
    int (*ws_close)(struct stk_request *req, unsigned code, stk_span reason);

    /*
     * Detached: the end, exactly once, after call() has returned. The response is ended, or failed
     * where the application has not ended it; it is counted and logged, the connection goes on.
     * `req` is dead, and no wake comes for it any more.
     */
    void (*finish)(struct stk_request *req);
};

/*
 * The part of a request that a host may read. serve/ embeds it in its own structure.
 */
struct stk_request {
    const struct stk_request_ops *ops;
    const struct stk_head *head;
    const struct stk_endpoint *endpoint;
    struct stk_peer peer;       /* the client: a trusted proxy's word applied */
    stk_span scheme;            /* "http" or "https": likewise */
    stk_span host;              /* Host as received, or a trusted X-Forwarded-Host; may be empty */
    stk_span script_name;       /* the mount point, decoded; "" or "/prefix" */
    uint32_t script_skip;       /* bytes of the decoded path that stand in script_name */
    unsigned app;               /* which of the applications that the host has loaded */
    int64_t body_length;        /* -1: not known (chunked, still arriving); 0: no body */
    stk_nsec started;           /* when the head was complete; 0 when nobody needs it */
    uint64_t id;                /* counts up within a worker */
    unsigned status;            /* of the response, for the log; 0 before start */
    const struct stk_var *vars; /* what the connection's protocol tells of it: TLS, a gateway */
    size_t nvars;
    bool vars_of_head; /* heads of one serial have the same vars */
    bool replaced;     /* something else was sent in the place of what the host answers */
    /* Of the host, before start: `trailers` is going to end the response. Its body is chunked then,
     * without Content-Length, and the head may have the field Trailer. */
    bool trailers;
    bool websocket;  /* it asks for a WebSocket, rightly: detach it, then ws_accept or refuse */
    void *host_data; /* the host's own, during call() and while detached */
};
