/*
 * TLS of connections.
 *
 * A handshake is done by whoever turns the loop, the stand-by included: it is C and needs no
 * application. When it is complete the connection is a new one between two requests, and everything
 * behind that goes by conn_io.h. Such a connection stays in its worker for life, because the state
 * of the session cannot be handed over.
 */
#include "serve/secure.h"

#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "net/tls.h"
#include "net/tls_store.h"
#include "serve/conn.h"
#include "serve/http1.h"
#include "serve/request.h"
#include "serve/server.h"

enum { SECURE_LOG_MS = 1000 };

/* Says why a handshake has failed, but not for each of many. */
static void secure_log(const struct stk_conn *conn)
{
    struct stk_server *server = conn->server;
    stk_msec now = stk_loop_now(server->loop);

    stk_scoreboard_add(server->row, STK_COUNTER_tls_failed, 1);
    if (server->tls_failed_logged != 0 && now - server->tls_failed_logged < SECURE_LOG_MS)
        return;
    server->tls_failed_logged = now;
    stk_log_info("%.*s:%u: the TLS handshake failed: %s", conn->peer.addr_len, conn->peer.addr,
                 conn->peer.port, stk_tls_error(conn->tls));
}

/* What comes next is a request. */
static void secure_established(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    struct stk_server *server = conn->server;

    stk_scoreboard_add(server->row, STK_COUNTER_tls_handshakes, 1);
    if (stk_tls_info(conn->tls)->resumed)
        stk_scoreboard_add(server->row, STK_COUNTER_tls_resumed, 1);
    if (conn->src_events != EPOLLIN)
        stk_conn_want_output(conn, false);
    stk_conn_set_state(conn, STK_CONN_IDLE, server->config->head_timeout);
    stk_conn_check_timer(conn);
    stk_http1_readable(conn, thread); /* the request may have come with the end of the handshake */
}

void stk_secure_go_on(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    bool disarmed;

    switch (stk_tls_handshake(conn->tls)) {
    case STK_TLS_DONE:
        secure_established(conn, thread);
        return;
    case STK_TLS_WANT_INPUT:
        if (conn->src_events != EPOLLIN)
            stk_conn_want_output(conn, false);
        disarmed = atomic_load_explicit(&conn->word, memory_order_relaxed) & STK_CONN_DISARMED;
        if (disarmed)
            stk_conn_release(conn, thread); /* new: waits for what comes */
        return;
    case STK_TLS_WANT_OUTPUT:
        if (conn->src_events != EPOLLOUT)
            stk_conn_want_output(conn, true);
        return;
    case STK_TLS_PLAIN:
        conn->tls = stk_tls_free(conn->tls);
        stk_http1_refuse_bytes(
            conn, thread,
            "plain HTTP was sent to an address that speaks HTTPS: use https:// in the URL",
            STK_CLOSE_BAD_REQUEST);
        return;
    case STK_TLS_CLOSED:
        stk_conn_close(conn, thread, STK_CLOSE_TLS_LEFT);
        return;
    case STK_TLS_FAILED:
        secure_log(conn);
        stk_conn_close(conn, thread, STK_CLOSE_TLS_FAILED);
        return;
    }
}

void stk_secure_begin(struct stk_conn *conn, struct stk_lead_thread *thread, const void *early,
                      size_t len)
{
    struct stk_server *server = conn->server;

    conn->tls = server->tls != NULL ? stk_tls_new(server->tls, conn->src.fd) : NULL;
    if (conn->tls == NULL || stk_tls_give(conn->tls, early, len) < 0) {
        stk_conn_close(conn, thread, STK_CLOSE_NO_MEMORY);
        return;
    }
    stk_conn_set_state(conn, STK_CONN_HANDSHAKE, server->config->tls_handshake_timeout);
    stk_conn_check_timer(conn);
    stk_secure_go_on(conn, thread);
}

static size_t secure_add(struct stk_var *vars, size_t n, stk_span name, const char *value)
{
    vars[n] = (struct stk_var){name, stk_span_str(value)};
    return n + 1;
}

void stk_secure_apply(struct stk_serve_request *rq)
{
    const struct stk_tls_info *info = stk_tls_info(rq->conn->tls);
    struct stk_var *vars = rq->t->conn_vars;
    size_t n = 0;

    _Static_assert(STK_SECURE_VARS >= 10 && (int)STK_SERVE_CONN_VARS >= (int)STK_SECURE_VARS,
                   "all of them");
    rq->base.scheme = STK_SPAN_LIT("https");
    n = secure_add(vars, n, STK_SPAN_LIT("SSL_PROTOCOL"), info->protocol);
    n = secure_add(vars, n, STK_SPAN_LIT("SSL_CIPHER"), info->cipher);
    if (info->sni[0] != '\0')
        n = secure_add(vars, n, STK_SPAN_LIT("SSL_TLS_SNI"), info->sni);
    if (info->verifies) {
        bool verified = info->pem[0] != '\0';

        n = secure_add(vars, n, STK_SPAN_LIT("SSL_CLIENT_VERIFY"), verified ? "SUCCESS" : "NONE");
        if (verified) {
            n = secure_add(vars, n, STK_SPAN_LIT("SSL_CLIENT_S_DN"), info->subject);
            if (info->common_name[0] != '\0')
                n = secure_add(vars, n, STK_SPAN_LIT("SSL_CLIENT_S_DN_CN"), info->common_name);
            n = secure_add(vars, n, STK_SPAN_LIT("SSL_CLIENT_I_DN"), info->issuer);
            n = secure_add(vars, n, STK_SPAN_LIT("SSL_CLIENT_SERIAL"), info->serial);
            n = secure_add(vars, n, STK_SPAN_LIT("SSL_CLIENT_FINGERPRINT"), info->fingerprint);
            n = secure_add(vars, n, STK_SPAN_LIT("SSL_CLIENT_CERT"), info->pem);
        }
    }
    rq->base.vars = vars;
    rq->base.nvars = n;
}

bool stk_secure_view(const struct stk_request *req, struct stk_tls_view *ret_view)
{
    const struct stk_serve_request *rq = (const void *)req;
    const struct stk_tls_info *info;

    if (rq->conn->tls == NULL)
        return false;
    info = stk_tls_info(rq->conn->tls);
    *ret_view = (struct stk_tls_view){
        .version = info->version,
        .suite = info->suite,
        .server_cert = stk_span_str(info->server_cert),
        .client_certs = stk_span_str(info->chain),
        .client_name = stk_span_str(info->subject),
    };
    return true;
}

void stk_secure_end(struct stk_conn *conn)
{
    switch ((enum stk_close_reason)conn->close_reason) {
    case STK_CLOSE_RESET:
    case STK_CLOSE_SEND_TIMEOUT:
    case STK_CLOSE_TRUNCATED:
    case STK_CLOSE_CUT:
    case STK_CLOSE_NO_MEMORY:
    case STK_CLOSE_IO_ERROR:
        return;
    default:
        if (!stk_conn_is_gone(conn) && !stk_conn_has_queued(conn))
            stk_tls_end(conn->tls);
    }
}

void stk_secure_set_store(struct stk_server *server, struct stk_tls_store *store)
{
    stk_tls_store_free(server->tls);
    server->tls = store;
}
