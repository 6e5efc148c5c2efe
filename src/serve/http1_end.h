/* How a request ends on its connection: for one that was answered in its call, and for a detached
 * one. Private to http1.c and http1_end.c. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/epoll.h>

#include "config/config.h"
#include "serve/body.h"
#include "serve/carry.h"
#include "serve/conn.h"
#include "serve/conn_io.h"
#include "serve/http1.h"
#include "serve/move.h"
#include "serve/request.h"
#include "serve/server.h"

/* Why a connection is closed after a response; `reason` where nothing else is the matter. */
enum stk_close_reason stk_http1_close_reason(struct stk_serve_request *rq,
                                             enum stk_close_reason reason);
/* Ends what was answered, cut, or found left, without its application (rq->fate); why to close. */
enum stk_close_reason stk_http1_end_expired(struct stk_serve_request *rq);
/* Closes when everything has left that is queued; the connection is not to be touched afterwards.
 */
void stk_http1_close_sent(struct stk_conn *conn, struct stk_lead_thread *thread,
                          enum stk_close_reason reason);

/* Counts an ended response; true: the connection goes on, else *ret_reason says why not. */
static inline bool stk_http1_end_call(struct stk_serve_request *rq,
                                      enum stk_close_reason *ret_reason)
{
    struct stk_conn *conn = rq->conn;

    *ret_reason = STK_CLOSE_REQUESTED;
    stk_http1_account(rq);
    conn->served = true;
    conn->continued = false;
    conn->hops = 0;
    if (rq->body != NULL) {
        if (!stk_body_is_over(rq->body)) {
            rq->keep_alive = false;
            *ret_reason = STK_CLOSE_BODY_UNREAD;
        }
        conn->body = stk_body_free(rq->body);
    }
    if (stk_likely(rq->keep_alive))
        return true;
    *ret_reason = stk_http1_close_reason(rq, *ret_reason);
    return false;
}

/*
 * Waits for what comes next on a connection that keeps `len` bytes of it; `kept`: it is in state
 * BODY.
 */
static inline void stk_http1_wait_next(struct stk_conn *conn, struct stk_lead_thread *thread,
                                       size_t len, bool kept, bool busy)
{
    struct stk_server *server = conn->server;

    if (stk_unlikely(stk_conn_has_output(conn))) {
        stk_conn_set_state(conn, STK_CONN_DRAIN, server->config->send_timeout);
        conn->body_after_drain = kept;
    } else {
        if (stk_unlikely(conn->src_events != EPOLLIN || stk_conn_io_hides(conn)))
            stk_conn_want_input(conn);
        if (kept) {
            /* state BODY, set where it began */
        } else if (len == 0) {
            bool draining = atomic_load_explicit(&server->draining, memory_order_relaxed);

            bool heir =
                stk_unlikely(draining) && !stk_carry_stays(conn) && stk_move_has_heir(server->move);

            if (stk_unlikely(draining) && !heir && !stk_server_is_patient(server)) {
                stk_conn_close(conn, thread, STK_CLOSE_DRAINING);
                return;
            }
            stk_conn_set_state(conn, STK_CONN_IDLE, server->config->keepalive_timeout);
            if (stk_unlikely(heir)) {
                if (!stk_move_give(server->move, conn, thread))
                    stk_conn_release(conn, thread);
                return;
            }
        } else if (conn->state != STK_CONN_HEAD) {
            stk_conn_set_state(conn, STK_CONN_HEAD, server->config->head_timeout);
        }
    }
    if (thread->own && conn->state != STK_CONN_IDLE)
        stk_conn_check_timer(conn);
    if (busy || atomic_load_explicit(&conn->word, memory_order_relaxed) & STK_CONN_DISARMED)
        stk_conn_release(conn, thread);
}
