/*
 * Gateway protocols on connections, and telling protocols apart by their first byte: no two of them
 * begin alike.
 *
 * uwsgi and SCGI carry one request a connection, whose end is the end of the response; by puwsgi://
 * uwsgi goes on while responses have a length. FastCGI is in fcgi.c. Whoever speaks them is the
 * front end, so what the variables say of the client is taken as it is. Forwarded fields
 * (X-Forwarded-For ...) among them were sent by that client, and count only if the client is a
 * trusted proxy: to the front end it is what a peer is to HTTP.
 */
#include "serve/proto.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "serve/fcgi.h"
#include "serve/request.h"
#include "wire/scgi.h"
#include "wire/uwsgi.h"

enum { PROTO_LOG_MS = 1000 };

void stk_proto_set_scheme(struct stk_endpoint *endpoint, const char *scheme)
{
    static const struct {
        const char *scheme;
        enum stk_proto proto;
    } schemes[] = {
        {"uwsgi", STK_PROTO_UWSGI}, {"puwsgi", STK_PROTO_UWSGI}, {"fastcgi", STK_PROTO_FCGI},
        {"scgi", STK_PROTO_SCGI},   {"auto", STK_PROTO_UNTOLD},
    };

    endpoint->proto = STK_PROTO_HTTP1;
    endpoint->persistent = strcmp(scheme, "puwsgi") == 0;
    for (size_t i = 0; i < STK_ARRAY_LEN(schemes); i++)
        if (strcmp(scheme, schemes[i].scheme) == 0)
            endpoint->proto = (uint8_t)schemes[i].proto;
}

struct stk_proto_gateway *stk_proto_gateway_new(const struct stk_http1_limits *limits)
{
    struct stk_proto_gateway *gateway = stk_new0(struct stk_proto_gateway);

    gateway->scratch = stk_new0_array(char, stk_gateway_room(limits));
    return gateway;
}

struct stk_proto_gateway *stk_proto_gateway_free(struct stk_proto_gateway *gateway)
{
    if (gateway != NULL) {
        free(gateway->scratch);
        free(gateway);
    }
    return NULL;
}

/* The protocol that begins with this byte. A uwsgi ping begins like a word of HTTP: it has to be
 * sent to an address of its own. */
static enum stk_proto proto_of_byte(char first)
{
    if (first == STK_UWSGI_WSGI || first == STK_UWSGI_MANAGED)
        return STK_PROTO_UWSGI;
    if (first >= '0' && first <= '9')
        return STK_PROTO_SCGI;
    if (stk_fastcgi_is_record(&first))
        return STK_PROTO_FCGI;
    return STK_PROTO_HTTP1;
}

/* Says it to who runs the server that clients take an address for another one, once a minute. */
static void proto_log_tls(struct stk_conn *conn)
{
    struct stk_server *server = conn->server;
    stk_msec now = stk_loop_now(server->loop);
    stk_msec last = atomic_load(&server->tls_hint_logged);

    if ((last == 0 || now - last > 60 * 1000) &&
        atomic_compare_exchange_strong(&server->tls_hint_logged, &last, now))
        stk_log_warning("%.*s:%u speaks TLS to the plain HTTP address port %.*s: use http:// in "
                        "its URL, or a front end that ends TLS",
                        conn->peer.addr_len, conn->peer.addr, conn->peer.port,
                        (int)conn->endpoint->server_port.len, conn->endpoint->server_port.ptr);
}

/* Says once a second at most that variables were left out. */
static void proto_log_magic(struct stk_conn *conn)
{
    struct stk_server *server = conn->server;
    stk_msec now = stk_loop_now(server->loop);
    stk_msec last = atomic_load(&server->gateway_logged);

    if ((last == 0 || now - last > PROTO_LOG_MS) &&
        atomic_compare_exchange_strong(&server->gateway_logged, &last, now))
        stk_log_warning("a front end sent a variable of uwsgi that would load code or change the "
                        "process (UWSGI_FILE, UWSGI_CHDIR ...): it is ignored, name the "
                        "application in stoker's own configuration");
}

/* Whether another packet may follow on a connection of uwsgi. A chunked body has no length in the
 * packet, and what a client sent in it is never taken for a packet. */
static bool proto_goes_on(const struct stk_conn *conn, const struct stk_gateway *gw)
{
    if (!conn->endpoint->persistent)
        return false;
    for (size_t i = 0; i < gw->nvars; i++)
        if (stk_span_eq(gw->vars[i].name, STK_SPAN_LIT("HTTP_TRANSFER_ENCODING")))
            return false;
    return true;
}

enum stk_http1_result stk_proto_parse_other(struct stk_conn *conn, struct stk_serve_thread *t,
                                            char *buf, size_t len, size_t *off)
{
    const struct stk_http1_limits *limits = &conn->server->limits;
    struct stk_proto_gateway *g = t->gateway;
    enum stk_http1_result r;

    if (conn->proto == STK_PROTO_UNTOLD) {
        if (len == *off)
            return STK_HTTP1_PARTIAL;
        /* Behind a PROXY header the bytes are of the client that it names, and not of a front end.
         */
        conn->proto = conn->proxied != NULL && !conn->trusted ? STK_PROTO_HTTP1
                                                              : (uint8_t)proto_of_byte(buf[*off]);
        if (conn->proto == STK_PROTO_HTTP1)
            return stk_http1_parse_memo(&t->memo, &t->head, buf + *off, len - *off, limits);
    }
    if (g->proto == conn->proto && (conn->proto != STK_PROTO_FCGI || conn->body == NULL) &&
        stk_gateway_again(&g->vars, &t->head, buf + *off, len - *off)) {
        conn->fcgi_id = g->fcgi_id;
        if (conn->proto == STK_PROTO_UWSGI) /* it may have been held of another address */
            t->head.keep_alive = proto_goes_on(conn, &g->vars);
        return STK_HTTP1_OK;
    }
    t->memo.len = 0; /* the head that it belongs to is written over */
    if (conn->proto == STK_PROTO_FCGI)
        r = stk_fcgi_parse(conn, t, buf, len, off);
    else if (conn->proto == STK_PROTO_UWSGI)
        r = stk_uwsgi_parse(&g->vars, g->scratch, &t->head, buf + *off, len - *off, limits);
    else
        r = stk_scgi_parse(&g->vars, g->scratch, &t->head, buf + *off, len - *off, limits);
    if (stk_unlikely(r != STK_HTTP1_OK))
        return r;
    t->head.serial = ++t->memo.serial;
    if (conn->proto == STK_PROTO_UWSGI)
        t->head.keep_alive = proto_goes_on(conn, &g->vars);
    if (stk_unlikely(g->vars.magic))
        proto_log_magic(conn); /* and is not taken for the next one: it is said again */
    else if (!stk_fcgi_is_open(&t->head))
        g->vars.serial = t->head.serial;
    g->proto = conn->proto;
    g->fcgi_id = conn->fcgi_id;
    return r;
}

/* The client's port; 0: the front end tells none. */
static uint16_t proto_port(stk_span text)
{
    unsigned port = 0;

    if (text.len > 5)
        return 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return 0;
        port = port * 10 + (unsigned)(text.ptr[i] - '0');
    }
    return (uint16_t)(port <= UINT16_MAX ? port : 0);
}

/* The client's address, if the front end tells one: whether it does. */
static bool proto_set_peer(struct stk_peer *peer, const struct stk_gateway *gw)
{
    struct in6_addr address;
    char text[sizeof peer->addr];

    if (gw->remote_addr.len == 0 || gw->remote_addr.len >= sizeof text)
        return false;
    memcpy(text, gw->remote_addr.ptr, gw->remote_addr.len);
    text[gw->remote_addr.len] = '\0';
    if (inet_pton(AF_INET, text, &address) != 1 && inet_pton(AF_INET6, text, &address) != 1) {
        peer->addr_len = 0; /* "unix:", or a zone behind a link-local one: not the front end's */
        peer->port = 0;
        return false;
    }
    memcpy(peer->addr, text, sizeof text);
    peer->addr_len = (uint8_t)gw->remote_addr.len;
    peer->port = proto_port(gw->remote_port);
    return true;
}

bool stk_proto_apply(struct stk_serve_request *rq)
{
    struct stk_proto_gateway *g = rq->t->gateway;
    const struct stk_gateway *gw = &g->vars;

    rq->base.scheme = gw->secure ? STK_SPAN_LIT("https") : STK_SPAN_LIT("http");
    rq->base.script_name = gw->mount;
    rq->base.vars = gw->vars;
    rq->base.nvars = gw->nvars;
    rq->base.vars_of_head = true;
    if (gw->remote_addr.len > 0 &&
        stk_span_eq(gw->remote_addr, stk_span_make(g->client.addr, g->client.addr_len))) {
        rq->base.peer = g->client; /* the address is the one that has been looked at last */
        rq->base.peer.port = proto_port(gw->remote_port);
        return g->trusted;
    }
    if (!proto_set_peer(&rq->base.peer, gw)) {
        const struct stk_cidr_set *trusted = &rq->t->server->trusted;

        if (gw->remote_addr.len == 0)
            return rq->conn->trusted;
        /* nginx, of a client that came by a unix socket */
        return trusted->any ||
               (trusted->unix_peers && stk_span_eq(gw->remote_addr, STK_SPAN_LIT("unix:")));
    }
    g->client = rq->base.peer;
    g->trusted = stk_cidr_set_match_text(&rq->t->server->trusted, gw->remote_addr);
    return g->trusted;
}

bool stk_proto_begin_again(struct stk_serve_request *rq, struct stk_conn *conn,
                           struct stk_serve_thread *t, const struct stk_head *head)
{
    const struct stk_proto_gateway *g = t->gateway;

    if (g->begun_endpoint != conn->endpoint || g->begun_serial != head->serial ||
        head != &t->head || conn->tls != NULL || conn->proxied != NULL)
        return false;
    *rq = g->begun;
    rq->conn = conn;
    rq->base.peer.port = g->vars.port;
    return true;
}

void stk_proto_note_begun(const struct stk_serve_request *rq)
{
    struct stk_proto_gateway *g = rq->t->gateway;
    const struct stk_head *head = rq->base.head;

    /* Of the client that the packet tells of; others are told by the connection, or by fields. */
    if (head != &rq->t->head || head->serial == 0 || head->serial != g->vars.serial ||
        rq->conn->tls != NULL || rq->conn->proxied != NULL || rq->base.peer.addr_len == 0 ||
        !stk_span_eq(g->vars.remote_addr,
                     stk_span_make(rq->base.peer.addr, rq->base.peer.addr_len)) ||
        head->known[STK_HEAD_FORWARDED] || head->known[STK_HEAD_X_FORWARDED_FOR] ||
        head->known[STK_HEAD_X_FORWARDED_PROTO] || head->known[STK_HEAD_X_FORWARDED_HOST]) {
        g->begun_endpoint = NULL;
        return;
    }
    g->vars.port = rq->base.peer.port; /* it may be begun again for a refusal */
    g->begun = *rq;
    g->begun_endpoint = rq->conn->endpoint;
    g->begun_serial = head->serial;
}

bool stk_proto_takes_tls(const struct stk_conn *conn)
{
    const struct stk_server *server = conn->server;

    return server->tls != NULL && conn->endpoint->proto == STK_PROTO_UNTOLD;
}

/* Which of the sentences below it is. */
static unsigned proto_refusal_kind(enum stk_http1_result result)
{
    switch (result) {
    case STK_HTTP1_E_UWSGI_MODIFIER:
        return 0;
    case STK_HTTP1_E_HTTP_BYTES:
        return 1;
    case STK_HTTP1_E_HEAD_TOO_LARGE:
        return 2;
    default:
        return 3;
    }
}

void stk_proto_log_refusal(struct stk_conn *conn, enum stk_http1_result result, const char *buf,
                           size_t len)
{
    static const char *const names[] = {
        [STK_PROTO_HTTP1] = "HTTP",   [STK_PROTO_UWSGI] = "uwsgi", [STK_PROTO_SCGI] = "SCGI",
        [STK_PROTO_FCGI] = "FastCGI", [STK_PROTO_UNTOLD] = "?",
    };
    struct stk_server *server = conn->server;
    stk_msec now = stk_loop_now(server->loop);
    _Atomic stk_msec *logged = &server->refused_logged[proto_refusal_kind(result)];
    stk_msec last = atomic_load(logged);
    const char *from = conn->peer.addr_len > 0 ? conn->peer.addr : "a unix socket";

    if (result == STK_HTTP1_E_TLS_BYTES)
        proto_log_tls(conn);
    if (conn->endpoint->proto == STK_PROTO_HTTP1 || (last != 0 && now - last <= PROTO_LOG_MS) ||
        !atomic_compare_exchange_strong(logged, &last, now))
        return;
    if (result == STK_HTTP1_E_UWSGI_MODIFIER)
        stk_log_warning("%s: a uwsgi request with modifier1 %u is refused: 0 and 30 (WSGI) are "
                        "served, and 100 (ping) on uwsgi:// and puwsgi:// addresses",
                        from, len > 0 ? (unsigned)(unsigned char)*buf : 0);
    else if (result == STK_HTTP1_E_HTTP_BYTES)
        stk_log_warning("%s: HTTP was sent to an address of the %s protocol: use proxy_pass with "
                        "an http:// address, or bind auto://",
                        from, names[conn->proto]);
    else if (result == STK_HTTP1_E_HEAD_TOO_LARGE)
        stk_log_warning("%s: a %s request is over the limit of %u bytes: raise limit-request-head",
                        from, names[conn->proto], server->limits.head_max);
    else
        stk_log_warning("%s: a %s request is refused: %s", from, names[conn->proto],
                        stk_http1_error_text(result));
}
