/*
 * The opening handshake of a WebSocket: judging the request, and the response that accepts it. A
 * handshake that is wrong is answered before the application sees it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "base/mem.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "serve/conn.h"
#include "serve/detach_priv.h"
#include "serve/websocket_priv.h"
#include "wire/http1.h"
#include "wire/http_status.h"
#include "wire/ws_deflate.h"

enum {
    ACCEPT_HEAD_MAX = 64 * 1024,
    ACCEPT_OWN_MAX = 512 + STK_SERVE_SERVER_LINE, /* the fields that are ours */
};

static void accept_refuse(struct stk_serve_request *rq, enum stk_ws_handshake_result result)
{
    static const char upgrade[] = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    unsigned status = stk_ws_handshake_status(result);
    stk_span text = stk_span_str(stk_ws_handshake_text(result));
    struct stk_request *req = &rq->base;
    struct stk_out *out = &rq->t->out;
    char body[128];

    rq->keep_alive = false;
    memcpy(body, text.ptr, text.len);
    body[text.len] = '\n';
    if (stk_response_start(req, status, stk_http_status_reason(status)) != 0 ||
        stk_response_header(req, STK_SPAN_LIT("Content-Type"),
                            STK_SPAN_LIT("text/plain; charset=utf-8")) != 0)
        return;
    if (result == STK_WS_HANDSHAKE_E_VERSION) {
        if (stk_response_header(req, STK_SPAN_LIT("Sec-WebSocket-Version"), STK_SPAN_LIT("13")) !=
            0)
            return;
        /* Not the application's to say, so not by stk_response_header; it has left room. */
        memcpy(out->buf + out->len, upgrade, sizeof(upgrade) - 1);
        out->len += sizeof(upgrade) - 1;
    }
    if (stk_response_write(req, body, text.len + 1, STK_WRITE_END) < 0)
        rq->gone = true;
}

bool stk_websocket_check(struct stk_serve_request *rq)
{
    struct stk_ws_handshake handshake;
    enum stk_ws_handshake_result r = stk_ws_handshake_read(rq->base.head, &handshake);

    if (r == STK_WS_HANDSHAKE_NONE)
        return true;
    if (r == STK_WS_HANDSHAKE_OK) {
        rq->base.websocket = true;
        return true;
    }
    accept_refuse(rq, r);
    return false;
}

static char *accept_put(char *p, stk_span text)
{
    if (text.len > 0)
        memcpy(p, text.ptr, text.len);
    return p + text.len;
}

static char *accept_put_field(char *p, stk_span name, stk_span value)
{
    p = accept_put(p, name);
    p = accept_put(p, STK_SPAN_LIT(": "));
    p = accept_put(p, value);
    return accept_put(p, STK_SPAN_LIT("\r\n"));
}

/* What is ours to say in the response. */
static bool accept_is_ours(stk_span name)
{
    static const stk_span names[] = {
        STK_SPAN_LIT("connection"),
        STK_SPAN_LIT("upgrade"),
        STK_SPAN_LIT("keep-alive"),
        STK_SPAN_LIT("content-length"),
        STK_SPAN_LIT("transfer-encoding"),
        STK_SPAN_LIT("trailer"),
        STK_SPAN_LIT("te"),
        STK_SPAN_LIT("sec-websocket-accept"),
        STK_SPAN_LIT("sec-websocket-extensions"),
        STK_SPAN_LIT("sec-websocket-key"),
        STK_SPAN_LIT("sec-websocket-protocol"),
        STK_SPAN_LIT("sec-websocket-version"),
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(names); i++)
        if (stk_span_ieq(name, names[i]))
            return true;
    return false;
}

/* Checks the application's fields, and adds up their length. 0 or > 0. */
static int accept_check(const struct stk_head *head, stk_span subprotocol,
                        const struct stk_var *fields, size_t nfields, size_t *ret_len,
                        size_t *ret_bad)
{
    size_t len = ACCEPT_OWN_MAX + subprotocol.len;

    if (subprotocol.len > 0 && !stk_ws_protocol_is_offered(head, subprotocol))
        return STK_RESPONSE_E_SUBPROTOCOL;
    for (size_t i = 0; i < nfields; i++) {
        *ret_bad = i;
        if (!stk_http1_is_token(fields[i].name))
            return STK_RESPONSE_E_NAME;
        if (!stk_http1_is_field_value(fields[i].value))
            return STK_RESPONSE_E_VALUE;
        if (accept_is_ours(fields[i].name))
            return STK_RESPONSE_E_HOP_BY_HOP;
        len += fields[i].name.len + fields[i].value.len + 4;
        if (len > ACCEPT_HEAD_MAX)
            return STK_RESPONSE_E_HEAD_SIZE;
    }
    *ret_len = len;
    return 0;
}

/* Renders the response to `head`, of which `ws` is made. Gives back the end. */
static char *accept_render(struct stk_websocket *ws, const struct stk_head *head, char *p,
                           stk_span subprotocol, const struct stk_var *fields, size_t nfields)
{
    const struct stk_server *server = ws->server;
    struct stk_ws_handshake handshake = {.key = {NULL, 0}};
    char accept[STK_WS_ACCEPT_SIZE], extension[STK_WS_EXTENSION_SIZE];
    bool dedicated = server->config->websocket_compression == STK_WS_COMPRESSION_DEDICATED;
    uint8_t bits = dedicated ? STK_WEBSOCKET_DEDICATED_BITS : STK_WEBSOCKET_SHARED_BITS;
    struct stk_ws_deflate_policy policy = {dedicated, bits, bits};
    bool has_server = false;

    if (stk_ws_handshake_read(head, &handshake) == STK_WS_HANDSHAKE_OK) /* as it was before */
        stk_ws_accept(handshake.key, accept);
    p = accept_put(p, STK_SPAN_LIT("HTTP/1.1 101 Switching Protocols\r\n"
                                   "Upgrade: websocket\r\nConnection: Upgrade\r\n"));
    p = accept_put_field(p, STK_SPAN_LIT("Sec-WebSocket-Accept"),
                         stk_span_make(accept, sizeof(accept)));
    if (subprotocol.len > 0)
        p = accept_put_field(p, STK_SPAN_LIT("Sec-WebSocket-Protocol"), subprotocol);
    ws->compresses = handshake.has_deflate && stk_ws_deflate_is_there() &&
                     server->config->websocket_compression != STK_WS_COMPRESSION_OFF &&
                     stk_ws_deflate_agree(head, &policy, &ws->params, extension);
    if (ws->compresses)
        p = accept_put_field(p, STK_SPAN_LIT("Sec-WebSocket-Extensions"), stk_span_str(extension));
    for (size_t i = 0; i < nfields; i++) {
        p = accept_put_field(p, fields[i].name, fields[i].value);
        has_server = has_server || stk_span_ieq(fields[i].name, STK_SPAN_LIT("server"));
    }
    if (!has_server)
        p = accept_put(p, stk_span_make(server->server_line, server->server_line_len));
    return accept_put(p, STK_SPAN_LIT("\r\n"));
}

/* Sends the response; 0, or -EPIPE. */
static int accept_send(struct stk_serve_request *rq, char *head, size_t len)
{
    struct iovec iov = {head, len};

    if (stk_conn_send(rq->conn, &iov, 1) < 0) {
        rq->gone = true;
        return -EPIPE;
    }
    rq->t->bytes_out += len;
    return 0;
}

/* Mutex held. */
static int accept_locked(struct stk_detached *d, stk_span subprotocol, const struct stk_var *fields,
                         size_t nfields, size_t *ret_bad)
{
    struct stk_serve_request *rq = &d->rq;
    struct stk_server *server = rq->conn->server;
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    struct stk_websocket *ws;
    size_t len;
    int r;

    if (!rq->base.websocket || rq->started)
        return STK_RESPONSE_E_STARTED;
    if (rq->gone)
        return -EPIPE;
    r = accept_check(rq->base.head, subprotocol, fields, nfields, &len, ret_bad);
    if (r != 0)
        return r;
    text = stk_try_alloc(len);
    ws = text ? stk_try_alloc(sizeof(*ws)) : NULL;
    if (!ws)
        return -ENOMEM;
    memset(ws, 0, sizeof(*ws));
    ws->server = server;
    len = (size_t)(accept_render(ws, rq->base.head, text, subprotocol, fields, nfields) - text);
    stk_ws_inbox_init(&ws->inbox, (uint64_t)server->config->websocket_max_message,
                      ws->compresses ? stk_websocket_inflater : NULL, ws);
    rq->started = rq->committed = true;
    rq->status = 101;
    rq->base.status = 101;
    rq->conn->ws = ws;
    d->due = 0; /* it may last */
    stk_detach_occupy(server->detach, d, false);
    r = accept_send(rq, text, len);
    if (r < 0)
        return r;
    ws->counts = true;
    stk_ws_held_init(server->detach);
    stk_scoreboard_add(server->row, STK_COUNTER_websockets_open, 1);
    ws->heard = stk_time_mono_coarse_ms();
    stk_websocket_take_kept_locked(rq->conn);
    if (atomic_load(&server->draining))
        stk_websocket_drain(rq->conn, true);
    stk_detach_listen(rq->conn);
    return 0;
}

/* Has the connection's timer fire in time for the first ping. */
static void accept_set_timer(struct stk_conn *conn)
{
    struct stk_lead_thread *thread = conn->server->detach->t.lead_thread;
    stk_msec interval = conn->server->config->websocket_ping_interval;
    bool claimed;

    if (interval == 0)
        return;
    claimed = stk_lead_claim(thread);
    if (thread->own && (!stk_timer_is_set(&conn->timer) ||
                        conn->timer.deadline > stk_loop_now(conn->server->loop) + interval))
        stk_timer_set(conn->server->loop, &conn->timer, interval);
    stk_lead_unclaim(thread, claimed);
}

int stk_websocket_accept(struct stk_request *req, stk_span subprotocol,
                         const struct stk_var *fields, size_t nfields, size_t *ret_bad)
{
    struct stk_detached *d = (struct stk_detached *)(void *)req;
    struct stk_conn *conn = d->rq.conn;
    struct stk_detach *det = conn->server->detach;
    int r;

    pthread_mutex_lock(&det->mutex);
    r = accept_locked(d, subprotocol, fields, nfields, ret_bad);
    pthread_mutex_unlock(&det->mutex);
    if (r == 0)
        accept_set_timer(conn);
    return r;
}
