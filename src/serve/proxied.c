/*
 * PROXY headers on connections.
 *
 * The header comes before everything else, TLS included, so a connection that may have one begins
 * in a state of its own. All that lies in the socket is read; what follows the header goes on to
 * TLS as bytes that have been taken from the socket already, or straight to the parser.
 *
 * Whoever sends a header says who the client is, so only peers of forwarded-allow may. From then on
 * the connection is its client's: addresses, access log, and whether X-Forwarded-* are believed go
 * by the address in the header, because what comes behind the header was written by that client and
 * not by the balancer. Where the balancer does not say who it is, nothing of that is believed.
 *
 * The header is kept with the connection, as it came: a worker that takes the connection over reads
 * it again.
 */
#include "serve/proxied.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"
#include "config/config.h"
#include "serve/conn.h"
#include "serve/http1.h"
#include "serve/request.h"
#include "serve/secure.h"
#include "serve/server.h"
#include "wire/proxy.h"

enum { PROXIED_LOG_MS = 1000, PROXIED_HINT_MS = 60 * 1000 };

/* Which of the sentences in the log it is; each is said once in a while. */
enum proxied_sentence { SAID_UNTRUSTED, SAID_MISSING, SAID_MALFORMED, SAID_UNEXPECTED, SAID_ALL };

_Static_assert((int)SAID_ALL == STK_SERVE_PROXIED_SENTENCES, "the server has room for all");

struct stk_proxied {
    struct stk_proxy told; /* its spans are in bytes[] */
    char port[6];          /* of the server's address, decimal */
    char failed[20];       /* what is said of a certificate that is not verified */
    char bytes[];          /* the header */
};

struct stk_proxied *stk_proxied_free(struct stk_proxied *proxied)
{
    free(proxied);
    return NULL;
}

/* --- The log -------------------------------------------------------------------------------- */

static bool proxied_may_say(struct stk_server *server, enum proxied_sentence which)
{
    _Atomic stk_msec *said = &server->proxied_logged[which];
    stk_msec now = stk_loop_now(server->loop), last = atomic_load(said);
    stk_msec pause = which == SAID_UNEXPECTED ? PROXIED_HINT_MS : PROXIED_LOG_MS;

    return (last == 0 || now - last > pause) && atomic_compare_exchange_strong(said, &last, now);
}

static const char *proxied_peer(const struct stk_conn *conn)
{
    return conn->peer.addr_len > 0 ? conn->peer.addr : "a unix socket";
}

bool stk_proxied_log_unexpected(struct stk_conn *conn, const char *buf, size_t len)
{
    struct stk_proxy told;
    enum stk_proxy_result r = stk_proxy_parse(&told, buf, len);

    if (r == STK_PROXY_NONE || r == STK_PROXY_PARTIAL || conn->served)
        return false;
    if (!proxied_may_say(conn->server, SAID_UNEXPECTED))
        return true;
    if (conn->proxied != NULL)
        stk_log_warning("%s: a second PROXY header follows the first: let one balancer of the "
                        "chain send it only",
                        proxied_peer(conn));
    else if (conn->endpoint->proxy_protocol == STK_PROXY_PROTOCOL_OFF)
        stk_log_warning("%s sends the PROXY protocol, which this address does not take: set "
                        "proxy-protocol = required, or have the balancer not send it",
                        proxied_peer(conn));
    else
        stk_log_warning("%s sends the PROXY protocol and is not in forwarded-allow: add it there "
                        "if it is your balancer",
                        proxied_peer(conn));
    return true;
}

/* --- The header ----------------------------------------------------------------------------- */

/* Notes what a header says with the connection. False: no memory. */
static bool proxied_note(struct stk_conn *conn, const struct stk_proxy *told, const char *buf)
{
    struct stk_proxied *proxied = stk_try_alloc(sizeof *proxied + told->len);
    if (proxied == NULL)
        return false;
    memcpy(proxied->bytes, buf, told->len);
    if (stk_proxy_parse(&proxied->told, proxied->bytes, told->len) != STK_PROXY_OK) {
        free(proxied);
        return false;
    }
    (void)snprintf(proxied->port, sizeof proxied->port, "%u", (unsigned)told->server.port);
    (void)snprintf(proxied->failed, sizeof proxied->failed, "FAILED:%u", (unsigned)told->verify);
    conn->proxied = proxied;
    return true;
}

/* Makes the connection that of the client which the header names. */
static void proxied_take_client(struct stk_conn *conn)
{
    const struct stk_proxy *told = &conn->proxied->told;
    const struct stk_cidr_set *trusted = &conn->server->trusted;

    _Static_assert(sizeof conn->peer.addr >= sizeof told->client.text, "an address fits");
    switch (told->source) {
    case STK_PROXY_LOCAL:
        return;
    case STK_PROXY_UNKNOWN:
        conn->trusted = false;
        return;
    case STK_PROXY_UNIX:
        conn->peer = (struct stk_peer){.port = 0};
        conn->trusted = trusted->any || trusted->unix_peers;
        return;
    case STK_PROXY_IP:
        memcpy(conn->peer.addr, told->client.text, sizeof told->client.text);
        conn->peer.addr_len = told->client.len;
        conn->peer.port = told->client.port;
        conn->trusted =
            stk_cidr_set_match_text(trusted, stk_span_make(told->client.text, told->client.len));
        return;
    }
}

size_t stk_proxied_size(const struct stk_conn *conn)
{
    return conn->proxied != NULL ? conn->proxied->told.len : 0;
}

void stk_proxied_save(const struct stk_conn *conn, char *to)
{
    memcpy(to, conn->proxied->bytes, conn->proxied->told.len);
}

size_t stk_proxied_restore(struct stk_conn *conn, const char *buf, size_t len)
{
    struct stk_proxy told;

    if (stk_proxy_parse(&told, buf, len) != STK_PROXY_OK || !proxied_note(conn, &told, buf))
        return 0;
    return told.len;
}

/* --- A new connection ----------------------------------------------------------------------- */

static bool proxied_is_secure(const struct stk_conn *conn)
{
    return stk_span_eq(conn->endpoint->scheme, STK_SPAN_LIT("https"));
}

/* The rest of the connection is not about PROXY; `len` bytes of it are in the read buffer. */
static void proxied_go_on(struct stk_conn *conn, struct stk_lead_thread *thread, size_t len)
{
    stk_conn_forget(conn);
    stk_conn_set_state(conn, STK_CONN_IDLE, conn->server->config->head_timeout);
    if (proxied_is_secure(conn))
        stk_secure_begin(conn, thread, stk_serve_thread_of(thread)->read_buf, len);
    else
        stk_http1_import(conn, thread, len);
}

/* Ends a connection that cannot be let in; in plain HTTP it is told why. */
static void proxied_refuse(struct stk_conn *conn, struct stk_lead_thread *thread, const char *text)
{
    stk_conn_forget(conn);
    if (proxied_is_secure(conn))
        stk_conn_close(conn, thread, STK_CLOSE_PROXY_REFUSED);
    else
        stk_http1_refuse_bytes(conn, thread, text, STK_CLOSE_PROXY_REFUSED);
}

/* Bytes that are no header. */
static void proxied_none(struct stk_conn *conn, struct stk_lead_thread *thread, size_t len)
{
    if (conn->endpoint->proxy_protocol != STK_PROXY_PROTOCOL_REQUIRED) {
        proxied_go_on(conn, thread, len);
        return;
    }
    if (proxied_may_say(conn->server, SAID_MISSING))
        stk_log_warning("%s:%u is refused: it sends no PROXY header, which proxy-protocol = "
                        "required asks for: set it to optional if some clients come directly",
                        proxied_peer(conn), conn->peer.port);
    proxied_refuse(conn, thread, "a PROXY protocol header is required here");
}

static void proxied_untrusted(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    if (proxied_may_say(conn->server, SAID_UNTRUSTED))
        stk_log_warning("%s:%u is refused: proxy-protocol is required, and it is not in "
                        "forwarded-allow, whose peers may say who a client is",
                        proxied_peer(conn), conn->peer.port);
    proxied_refuse(conn, thread, "only trusted proxies may connect here");
}

/* `len` bytes are in the read buffer. */
static void proxied_take(struct stk_conn *conn, struct stk_lead_thread *thread, size_t len)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    struct stk_proxy told;
    enum stk_proxy_result r;

    if (!conn->trusted) {
        proxied_untrusted(conn, thread);
        return;
    }
    r = stk_proxy_parse(&told, t->read_buf, len);
    switch (r) {
    case STK_PROXY_OK:
        if (!proxied_note(conn, &told, t->read_buf))
            break;
        proxied_take_client(conn);
        memmove(t->read_buf, t->read_buf + told.len, len - told.len);
        proxied_go_on(conn, thread, len - told.len);
        return;
    case STK_PROXY_PARTIAL:
        if (!stk_conn_keep(conn, t->read_buf, len))
            break;
        if (atomic_load_explicit(&conn->word, memory_order_relaxed) & STK_CONN_DISARMED)
            stk_conn_release(conn, thread); /* new: waits for the rest */
        return;
    case STK_PROXY_NONE:
        proxied_none(conn, thread, len);
        return;
    default:
        if (proxied_may_say(conn->server, SAID_MALFORMED))
            stk_log_warning("%s:%u is refused: its PROXY header is malformed: %s",
                            proxied_peer(conn), conn->peer.port, stk_proxy_error_text(r));
        proxied_refuse(conn, thread, "malformed PROXY protocol header");
        return;
    }
    stk_conn_close(conn, thread, STK_CLOSE_NO_MEMORY);
}

void stk_proxied_readable(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    size_t len = conn->in_len;
    ssize_t n;

    if (len > 0)
        memcpy(t->read_buf, conn->in, len);
    do
        n = stk_sys_recv(conn->src.fd, t->read_buf + len, STK_SERVE_READ_BUFFER - len,
                         MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        t->bytes_in += (uint64_t)n;
        proxied_take(conn, thread, len + (size_t)n);
        return;
    }
    if (n < 0 && errno == EAGAIN) {
        if (atomic_load_explicit(&conn->word, memory_order_relaxed) & STK_CONN_DISARMED)
            stk_conn_release(conn, thread); /* new: waits for its first byte */
        return;
    }
    conn->eof = n == 0;
    stk_conn_close(conn, thread, n == 0 ? STK_CLOSE_CLIENT : STK_CLOSE_RESET);
}

/* Whether bytes of the peer may be a header at all. */
static bool proxied_concerns(const struct stk_conn *conn)
{
    return conn->trusted || conn->endpoint->proxy_protocol == STK_PROXY_PROTOCOL_REQUIRED;
}

void stk_proxied_begin(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    if (!proxied_concerns(conn)) {
        proxied_go_on(conn, thread, 0);
        return;
    }
    stk_conn_set_state(conn, STK_CONN_PREFACE, conn->server->config->head_timeout);
    stk_proxied_readable(conn, thread);
}

void stk_proxied_await(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    if (proxied_concerns(conn)) {
        stk_conn_set_state(conn, STK_CONN_PREFACE, conn->server->config->head_timeout);
        stk_conn_release(conn, thread);
    } else if (proxied_is_secure(conn)) {
        stk_secure_begin(conn, thread, NULL, 0);
    } else {
        stk_conn_release(conn, thread);
    }
}

/* --- A request ------------------------------------------------------------------------------ */

/* The client's TLS, which ended at the balancer; in place of that between the balancer and us. */
static size_t proxied_tls_vars(const struct stk_proxied *proxied, struct stk_var *vars)
{
    const struct stk_proxy *told = &proxied->told;
    size_t n = 0;

    if (told->tls_version.len > 0)
        vars[n++] = (struct stk_var){STK_SPAN_LIT("SSL_PROTOCOL"), told->tls_version};
    if (told->tls_cipher.len > 0)
        vars[n++] = (struct stk_var){STK_SPAN_LIT("SSL_CIPHER"), told->tls_cipher};
    if (told->authority.len > 0)
        vars[n++] = (struct stk_var){STK_SPAN_LIT("SSL_TLS_SNI"), told->authority};
    if (!told->certificate) {
        vars[n++] = (struct stk_var){STK_SPAN_LIT("SSL_CLIENT_VERIFY"), STK_SPAN_LIT("NONE")};
    } else if (told->verify != 0) {
        vars[n++] =
            (struct stk_var){STK_SPAN_LIT("SSL_CLIENT_VERIFY"), stk_span_str(proxied->failed)};
    } else {
        vars[n++] = (struct stk_var){STK_SPAN_LIT("SSL_CLIENT_VERIFY"), STK_SPAN_LIT("SUCCESS")};
        if (told->common_name.len > 0)
            vars[n++] = (struct stk_var){STK_SPAN_LIT("SSL_CLIENT_S_DN_CN"), told->common_name};
    }
    return n;
}

void stk_proxied_apply(struct stk_serve_request *rq)
{
    const struct stk_proxied *proxied = rq->conn->proxied;
    const struct stk_proxy *told = &proxied->told;
    struct stk_var *vars = rq->t->conn_vars;
    size_t n = rq->base.nvars;

    _Static_assert((int)STK_SERVE_CONN_VARS >= (int)STK_SECURE_VARS + 2,
                   "TLS's own and the server's");
    if (told->tls) {
        rq->base.scheme = STK_SPAN_LIT("https");
        n = proxied_tls_vars(proxied, vars);
    }
    if (told->source == STK_PROXY_IP) {
        vars[n++] = (struct stk_var){STK_SPAN_LIT("SERVER_NAME"),
                                     stk_span_make(told->server.text, told->server.len)};
        vars[n++] = (struct stk_var){STK_SPAN_LIT("SERVER_PORT"), stk_span_str(proxied->port)};
    }
    rq->base.vars = vars;
    rq->base.nvars = n;
}
