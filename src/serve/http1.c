/*
 * HTTP/1 on a connection: input becomes requests, requests become calls of the application or jobs.
 *
 * All input is processed in the read buffer of the thread that has the connection: what a
 * connection kept (the part of a head, a complete request that waited) is copied there first, what
 * is left over is kept again. So a connection owns memory only while a request of it is incomplete,
 * and one parser runs over contiguous bytes. A head whose body is still on its way is kept as bytes
 * and parsed again when the body is there: 200 ns against 6 KiB of parsed head for each slow
 * upload.
 *
 * The stand-by thread does all of it but the call: there it keeps the request, marks the connection
 * busy, and posts a job.
 */
#include "serve/http1.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/log.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "serve/access_log.h"
#include "serve/body.h"
#include "serve/carry.h"
#include "serve/compress.h"
#include "serve/conn.h"
#include "serve/conn_io.h"
#include "serve/deadline.h"
#include "serve/detach.h"
#include "serve/fcgi.h"
#include "serve/http1_end.h"
#include "serve/http1_priv.h"
#include "serve/move.h"
#include "serve/proto.h"
#include "serve/proxied.h"
#include "serve/request.h"
#include "serve/router.h"
#include "serve/secure.h"
#include "serve/server.h"
#include "serve/trust.h"
#include "serve/uroute.h"
#include "serve/websocket.h"
#include "wire/http1.h"
#include "wire/uwsgi.h"

void stk_http1_continue(struct stk_conn *conn, const struct stk_head *head)
{
    static char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct iovec iov = {text, sizeof text - 1};

    if (!head->expect_continue || conn->continued)
        return;
    conn->continued = true;
    if (stk_conn_send(conn, &iov, 1) < 0)
        return; /* the client is gone, as the next read will show */
    stk_scoreboard_add(conn->server->row, STK_COUNTER_responses_1xx, 1);
    stk_scoreboard_add(conn->server->row, STK_COUNTER_bytes_out, sizeof text - 1);
}

/* What a request is by its connection and its head. */
static inline void http1_fill_request(struct stk_serve_request *rq, struct stk_conn *conn,
                                      struct stk_serve_thread *t, const struct stk_head *head)
{
    memset(rq, 0, sizeof *rq);
    rq->conn = conn;
    rq->t = t;
    rq->base.ops = &stk_serve_request_ops;
    rq->base.head = head;
    rq->base.endpoint = conn->endpoint;
    rq->base.peer = conn->peer;
    rq->base.scheme = conn->endpoint->scheme;
    rq->base.host = stk_span_make(head->base + head->host_off, head->host_len);
    rq->base.script_name = stk_span_make("", 0);
    if (stk_unlikely(conn->tls != NULL))
        stk_secure_apply(rq);
    if (stk_unlikely(conn->proxied != NULL))
        stk_proxied_apply(rq);
    if (stk_unlikely(head->path_apart) ? stk_proto_apply(rq) : conn->trusted)
        stk_trust_apply(&rq->base, t->server);
    if (stk_unlikely(head->path_apart))
        stk_proto_note_begun(rq);
}

void stk_http1_init_request(struct stk_serve_request *rq, struct stk_conn *conn,
                            struct stk_serve_thread *t, const struct stk_head *head)
{
    struct stk_server *server = t->server;

    if (stk_likely(!head->path_apart) || !stk_proto_begin_again(rq, conn, t, head))
        http1_fill_request(rq, conn, t, head);
    rq->keep_alive = head->keep_alive && server->config->keepalive_timeout > 0;
    t->out.mark = t->out.len;
    rq->base.id = t->next_id;
    t->next_id += server->nthreads;
    if (stk_unlikely(conn->job.since != 0)) /* it has waited for a thread */
        rq->base.started = conn->job.since;
    else if (server->timed)
        rq->base.started = stk_time_mono_ns();
}

/* Counters and the access log, after a response. */
void stk_http1_account(struct stk_serve_request *rq)
{
    struct stk_server *server = rq->t->server;

    rq->t->answered[0]++;
    rq->t->answered[rq->status / 100 % 6]++;
    rq->t->exceptions += rq->failed;
    if (server->timed) {
        struct stk_access_entry entry = {
            .req = &rq->base,
            .body_bytes = rq->body_bytes,
            .duration = stk_time_mono_ns() - rq->base.started,
            .memo = rq->t->access_memo,
        };

        stk_scoreboard_latency(server->row, rq->t->lead_thread->own,
                               (uint64_t)(entry.duration / STK_NSEC_PER_USEC));
        if (stk_unlikely(rq->uroute != NULL) && !stk_uroute_end(rq))
            return;
        if (server->access_log != NULL)
            stk_access_log_write(server->access_log, &entry);
    }
}

/* Sends what the thread's buffer holds and closes; the connection is not to be touched afterwards.
 */
enum http1_step stk_http1_finish_close(struct stk_conn *conn, struct stk_lead_thread *thread,
                                       enum stk_close_reason reason)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);

    if (stk_gather_send(t, conn, NULL, 0) < 0) {
        t->out.len = 0;
        reason = STK_CLOSE_RESET;
    }
    stk_http1_close_sent(conn, thread, reason);
    return STEP_DONE;
}

/* The end of a call whose connection was answered, cut, or found left, by the stand-by. */
static STK_COLD enum http1_step http1_expired(struct stk_serve_request *rq,
                                              struct stk_lead_thread *thread)
{
    struct stk_conn *conn = rq->conn;

    stk_gather_end(rq->t);
    stk_compress_release(rq);
    rq->t->out.len = 0;
    return stk_http1_finish_close(conn, thread, stk_http1_end_expired(rq));
}

/* Calls the application and ends its response; the connection is busy from here to its release. */
static enum http1_step http1_call(struct stk_serve_request *rq, struct stk_lead_thread *thread)
{
    struct stk_conn *conn = rq->conn;
    struct stk_server *server = conn->server;
    struct stk_serve_thread *t = rq->t;
    enum stk_close_reason reason;
    enum stk_host_call how;
    enum stk_fate fate;
    bool own;

    stk_conn_acquire(conn);
    stk_conn_begin_request(conn);
    if (stk_unlikely(conn->job.since != 0)) {
        stk_scoreboard_waiting(
            server->row, (uint64_t)((stk_time_mono_ns() - conn->job.since) / STK_NSEC_PER_USEC));
        conn->job.since = 0;
    }
    if (t->out.len > 0)
        stk_gather_begin(t, conn); /* answers of pipelined requests do not wait for this one */
    rq->of_app = true;
    stk_deadline_begin(rq);
    stk_lead_enter(thread);
    how = server->host_ops->call(server->host, thread->host_thread, &rq->base);
    own = stk_lead_leave(thread);
    if (stk_unlikely(how == STK_HOST_PENDING)) {
        stk_detach_time(conn, thread);
        return STEP_DETACHED;
    }
    fate = stk_deadline_end(rq);
    if (stk_unlikely(!stk_server_has_standby(server)) && own)
        stk_lead_note_call(server->lead);
    if (stk_unlikely(fate != STK_FATE_NONE))
        return http1_expired(rq, thread);
    stk_response_end(rq);
    if (stk_likely(stk_http1_end_call(rq, &reason)))
        return STEP_ANSWERED;
    return stk_http1_finish_close(conn, thread, reason);
}

static inline bool http1_has_body(const struct stk_head *head)
{
    return head->chunked || head->records || (head->has_content_length && head->content_length > 0);
}

/* Bytes that the body takes, if all of it lies at data; -1: it does not. */
static int64_t http1_body_here(const struct stk_serve_request *rq, char *data, size_t len)
{
    const struct stk_head *head = rq->base.head;

    if (rq->conn->body != NULL) /* gathered before: what lies here comes behind it */
        return stk_body_is_complete(rq->conn->body) ? 0 : -1;
    if (head->records)
        return stk_fcgi_body_here(rq->conn, head, data, len, NULL);
    return head->chunked || head->content_length > len ? -1 : (int64_t)head->content_length;
}

/* Asks the router; `len` bytes lie behind the head. */
static STK_COLD enum stk_router_result http1_route(struct stk_serve_request *rq, char *data,
                                                   size_t len)
{
    bool keep_alive = rq->keep_alive;
    enum stk_router_result how;

    /* An answer says "close" where a body will be left unread. */
    if (http1_has_body(rq->base.head) && http1_body_here(rq, data, len) < 0)
        rq->keep_alive = false;
    how = stk_router_decide(rq);
    if (how == STK_ROUTER_PASS) {
        rq->keep_alive = keep_alive;
        rq->started = false;
    }
    return how;
}

/* After an answer in C; a body that is not here already is not read: that ends the connection. */
static enum http1_step http1_answered(struct stk_serve_request *rq, struct stk_lead_thread *thread,
                                      enum stk_router_result how, char *buf, size_t len,
                                      size_t *off)
{
    struct stk_conn *conn = rq->conn;
    struct stk_server *server = conn->server;
    bool has_body = http1_has_body(rq->base.head);
    int64_t here = has_body ? http1_body_here(rq, buf + *off, len - *off) : 0;

    has_body = here < 0;
    if (has_body)
        rq->keep_alive = false;
    else
        *off += (size_t)here;
    if (how == STK_ROUTER_ANSWERED) {
        stk_response_end(rq);
        stk_http1_account(rq);
    } else {
        rq->t->handled++;
        stk_fcgi_end(rq);
    }
    conn->served = true;
    /* Where it had waited: for its body, or for a thread. */
    conn->body = stk_body_free(conn->body);
    conn->continued = false;
    conn->hops = 0;
    conn->job.since = 0;
    if (rq->keep_alive)
        return STEP_ANSWERED;
    if (rq->body_bytes > STK_HTTP1_LINGER_BYTES)
        conn->lingers = true;
    return stk_http1_finish_close(conn, thread,
                                  rq->gone        ? STK_CLOSE_RESET
                                  : rq->truncated ? STK_CLOSE_TRUNCATED
                                  : atomic_load_explicit(&server->draining, memory_order_relaxed)
                                      ? STK_CLOSE_DRAINING
                                  : has_body ? STK_CLOSE_BODY_UNREAD
                                             : STK_CLOSE_REQUESTED);
}

/* Keeps the head at buf[off] with what follows its body at buf[rest..len), for when the body is
 * there. */
static bool http1_keep_head(struct stk_conn *conn, char *buf, size_t off, size_t head_len,
                            size_t rest, size_t len)
{
    memmove(buf + rest - head_len, buf + off, head_len);
    conn->head_len = (uint32_t)head_len;
    return stk_conn_keep(conn, buf + rest - head_len, head_len + len - rest);
}

/* Sends what FastCGI records of others among the body are answered. */
static inline void http1_reply(struct stk_conn *conn)
{
    struct stk_fastcgi_replies *replies = stk_body_replies(conn->body);

    if (stk_unlikely(replies != NULL))
        stk_fcgi_reply(conn, replies);
}

/* Starts a body that is not whole behind its head. */
static int http1_begin_body(struct stk_conn *conn, struct stk_lead_thread *thread,
                            const struct stk_head *head, bool streams, const char *data, size_t len,
                            size_t *ret_used)
{
    int r;

    conn->body = stk_body_new(conn, head, !thread->standby, streams);
    if (conn->body == NULL)
        return -ENOMEM;
    r = stk_body_feed(conn->body, data, len, ret_used);
    http1_reply(conn);
    return r;
}

/* Gives a complete request, kept by the connection, to a thread of the application. */
static enum http1_step http1_post(const struct stk_serve_request *rq,
                                  struct stk_lead_thread *thread)
{
    struct stk_conn *conn = rq->conn;

    __atomic_store_n(&conn->fresh, false, __ATOMIC_RELAXED); /* several may do so at once */
    conn->job.loop = stk_detach_is_async(conn->server, rq->base.app);
    conn->job.gated = true;
    stk_conn_begin_request(conn);
    stk_conn_acquire(conn);
    if (stk_unlikely(!thread->standby))
        stk_deadline_expect(conn->server->deadline, thread);
    stk_lead_post(conn->server->lead, &conn->job);
    return STEP_DONE;
}

/* Whether the body is the application's to receive, in its event loop. */
static bool http1_streams(const struct stk_serve_request *rq, const struct stk_head *head)
{
    return stk_detach_is_async(rq->conn->server, rq->base.app) &&
           (head->chunked || head->content_length > STK_DETACH_BODY);
}

/* Whether this thread is to call the application: else it is another's to do. */
static STK_COLD bool http1_is_for(const struct stk_serve_request *rq,
                                  const struct stk_lead_thread *thread)
{
    return !thread->picky ||
           stk_lead_is_for(thread, stk_detach_is_async(rq->conn->server, rq->base.app));
}

/* A request with a body: *ret_used bytes of data are its. STEP_ANSWERED: go on and call. */
static enum http1_step http1_body(struct stk_serve_request *rq, struct stk_lead_thread *thread,
                                  const struct stk_head *head, char *data, size_t len,
                                  size_t *ret_used)
{
    struct stk_conn *conn = rq->conn;
    const struct stk_config *config = conn->server->config;
    bool streams;
    int r;

    if (conn->body != NULL) { /* gathered before */
        rq->body = conn->body;
        rq->base.body_length =
            head->has_content_length ? (int64_t)head->content_length : stk_body_length(conn->body);
        return STEP_ANSWERED;
    }
    if (config->limit_request_body > 0 && head->has_content_length &&
        head->content_length > (uint64_t)config->limit_request_body)
        return stk_http1_refuse_body(conn, thread, head, -EFBIG);
    if (stk_unlikely(head->records)) {
        stk_span body = {0};
        int64_t here =
            stk_fcgi_body_here(conn, head, data, len, http1_is_for(rq, thread) ? &body : NULL);

        if (here >= 0) {
            rq->body_ptr = body.ptr;
            rq->body_left = body.len;
            rq->base.body_length = (int64_t)body.len;
            *ret_used = (size_t)here;
            return STEP_ANSWERED;
        }
    } else if (head->has_content_length && len >= head->content_length) {
        rq->body_ptr = data;
        rq->body_left = (size_t)head->content_length;
        rq->base.body_length = (int64_t)head->content_length;
        *ret_used = rq->body_left;
        return STEP_ANSWERED;
    }
    streams = config->body_stream || http1_streams(rq, head);
    r = http1_begin_body(conn, thread, head, streams, data, len, ret_used);
    if (r < 0)
        return stk_http1_refuse_body(conn, thread, head, r);
    rq->body = conn->body;
    rq->base.body_length = stk_body_length(conn->body);
    if (r == STK_BODY_COMPLETE)
        return STEP_ANSWERED;
    if (streams) {
        if (head->has_content_length)
            rq->base.body_length = (int64_t)head->content_length;
        return STEP_ANSWERED;
    }
    return STEP_MORE;
}

/* The front end has taken a request back before it was complete. */
static STK_COLD enum http1_step http1_aborted(struct stk_serve_request *rq,
                                              struct stk_lead_thread *thread)
{
    struct stk_conn *conn = rq->conn;
    bool there = stk_fcgi_end_aborted(conn);

    conn->body = stk_body_free(conn->body);
    conn->served = true;
    return there && rq->keep_alive ? STEP_ANSWERED
                                   : stk_http1_finish_close(conn, thread, STK_CLOSE_REQUESTED);
}

/* Waits for the rest of a body; what follows the bytes of it that were taken is at buf[rest..len).
 */
static enum http1_step http1_await_body(struct stk_conn *conn, struct stk_lead_thread *thread,
                                        char *buf, size_t off, size_t rest, size_t len)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    struct stk_head *head = &t->head;

    if (!http1_keep_head(conn, buf, off, head->len, rest, len))
        return stk_http1_refuse_body(conn, thread, head, -ENOMEM);
    if (conn->proto == STK_PROTO_HTTP1)
        head->base = buf + rest - head->len;
    if (head->expect_continue && t->out.len > 0 && stk_gather_send(t, conn, NULL, 0) < 0)
        t->out.len = 0; /* the client is gone, as the next read will show */
    stk_http1_continue(conn, head);
    stk_conn_set_state(conn, STK_CONN_BODY, conn->server->config->body_timeout);
    return STEP_KEPT;
}

/* A request that asks for another protocol. False: it has been answered. */
static STK_COLD bool http1_upgrade(struct stk_serve_request *rq)
{
    return rq->conn->proto != STK_PROTO_HTTP1 ||
           !stk_detach_is_async(rq->conn->server, rq->base.app) || stk_websocket_check(rq);
}

/* One request at buf[*off]. */
static enum http1_step http1_next(struct stk_conn *conn, struct stk_lead_thread *thread, char *buf,
                                  size_t len, size_t *off)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    struct stk_head *head = &t->head;
    struct stk_serve_request *rq = &t->request;
    enum stk_http1_result result;
    enum http1_step step;
    size_t used = 0, body_off;

    result = stk_proto_parse(conn, t, buf, len, off);
    if (result == STK_HTTP1_PARTIAL)
        return STEP_MORE;
    if (stk_unlikely(result != STK_HTTP1_OK))
        return stk_http1_refuse_parse(conn, thread, result, buf + *off, len - *off);
    stk_http1_init_request(rq, conn, t, head);
    body_off = *off + head->len;
    rq->head_end = (uint32_t)body_off;
    if (stk_unlikely(conn->server->router != NULL)) {
        enum stk_router_result how = http1_route(rq, buf + body_off, len - body_off);

        if (how != STK_ROUTER_PASS) {
            *off = body_off;
            return http1_answered(rq, thread, how, buf, len, off);
        }
    }
    if (stk_unlikely(head->has_upgrade) && !http1_upgrade(rq)) {
        stk_http1_account(rq);
        return stk_http1_finish_close(conn, thread, STK_CLOSE_BAD_REQUEST);
    }
    if (http1_has_body(head)) {
        step = http1_body(rq, thread, head, buf + body_off, len - body_off, &used);
        if (step == STEP_DONE)
            return step;
        if (step == STEP_MORE)
            return http1_await_body(conn, thread, buf, *off, body_off + used, len);
        if (stk_unlikely(rq->body != NULL && stk_body_was_aborted(rq->body))) {
            *off = body_off + used;
            return http1_aborted(rq, thread);
        }
    }
    if (stk_unlikely(thread->picky) && !http1_is_for(rq, thread)) {
        bool kept;

        if (t->out.len > 0 && stk_gather_send(t, conn, NULL, 0) < 0)
            t->out.len = 0; /* the client is gone, as the application's answer will show */
        kept = conn->body != NULL
                   ? http1_keep_head(conn, buf, *off, head->len, body_off + used, len)
                   : stk_conn_keep(conn, buf + *off, len - *off);

        return kept ? http1_post(rq, thread) : stk_http1_refuse_body(conn, thread, head, -ENOMEM);
    }
    *off = body_off + used;
    if (stk_unlikely(rq->body != NULL && !stk_body_is_complete(rq->body)) && t->out.len > 0 &&
        stk_gather_send(t, conn, NULL, 0) < 0)
        t->out.len = 0; /* 100 Continue may come between; a client that is gone is seen by that */
    conn->lingers = *off < len;
    return http1_call(rq, thread);
}

/* The input is used up but for rest: sends the answers and waits for what comes next. */
static void http1_settle(struct stk_conn *conn, struct stk_lead_thread *thread, const char *rest,
                         size_t len, bool kept)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    bool busy = atomic_load_explicit(&conn->word, memory_order_relaxed) & STK_CONN_BUSY;

    if (t->out.len > 0 && stk_gather_send(t, conn, NULL, 0) < 0) {
        t->out.len = 0;
        stk_conn_close(conn, thread, STK_CLOSE_RESET);
        return;
    }
    if (!kept && (len > 0 || conn->in != NULL) && !stk_conn_keep(conn, rest, len)) {
        stk_conn_close(conn, thread, STK_CLOSE_NO_MEMORY);
        return;
    }
    stk_http1_wait_next(conn, thread, len, kept, busy);
}

/* Whether requests in one piece have kept an event loop of the application's for long enough. */
static bool http1_is_long(stk_nsec *until)
{
    stk_nsec now = stk_time_mono_ns();

    if (*until == 0)
        *until = now + STK_NSEC_PER_MSEC;
    return now > *until;
}

/* Works on the bytes from off to len in the thread's read buffer. */
static void http1_go_on(struct stk_conn *conn, struct stk_lead_thread *thread, size_t off,
                        size_t len)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    enum http1_step step = STEP_MORE;
    stk_nsec until = 0;

    while (off < len) {
        step = http1_next(conn, thread, t->read_buf, len, &off);
        if (step != STEP_ANSWERED)
            break;
        if (stk_unlikely(conn->server->detach != NULL) && off < len && thread->index == 0 &&
            http1_is_long(&until)) {
            stk_http1_yield(conn, thread, t->read_buf + off, len - off);
            return;
        }
        /* The client does not read its answers: it gets no further ones before it does. */
        if (stk_unlikely(stk_conn_has_output(conn)))
            break;
    }
    if (stk_unlikely(step == STEP_DETACHED))
        stk_http1_keep_rest(conn, t->read_buf + off, len - off);
    else if (step != STEP_DONE)
        http1_settle(conn, thread, t->read_buf + off, len - off, step == STEP_KEPT);
}

static void http1_process(struct stk_conn *conn, struct stk_lead_thread *thread, size_t len)
{
    http1_go_on(conn, thread, 0, len);
}

/* Brings what the connection keeps into the thread's read buffer; its length. */
static size_t http1_load(struct stk_conn *conn, struct stk_serve_thread *t)
{
    size_t len = conn->in_len;

    STK_ASSERT(len <= STK_SERVE_READ_BUFFER);
    if (len > 0)
        memcpy(t->read_buf, conn->in, len);
    return len;
}

void stk_http1_job(struct stk_job *job, struct stk_lead_thread *thread)
{
    struct stk_conn *conn = stk_container_of(job, struct stk_conn, job);

    STK_CHECK_MAGIC(conn, STK_CONN_MAGIC);
    http1_process(conn, thread, http1_load(conn, stk_serve_thread_of(thread)));
    stk_server_publish(stk_serve_thread_of(thread));
    stk_server_gauge(stk_serve_thread_of(thread)->server);
}

/* 503 with the time after which to try again. */
static void http1_answer_busy(struct stk_serve_request *rq)
{
    static const char text[] = "503 Service Unavailable: too many requests wait\n";

    if (stk_response_start(&rq->base, 503, STK_SPAN_LIT("Service Unavailable")) != 0 ||
        stk_response_header(&rq->base, STK_SPAN_LIT("Content-Type"),
                            STK_SPAN_LIT("text/plain; charset=utf-8")) != 0 ||
        stk_response_header(&rq->base, STK_SPAN_LIT("Retry-After"), STK_SPAN_LIT("1")) != 0 ||
        stk_response_write(&rq->base, text, sizeof text - 1, STK_WRITE_END) < 0)
        rq->keep_alive = false;
}

void stk_http1_refuse_job(struct stk_job *job, struct stk_lead_thread *thread)
{
    struct stk_conn *conn = stk_container_of(job, struct stk_conn, job);
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    struct stk_head *head = &t->head;
    struct stk_serve_request rq;
    size_t len = http1_load(conn, t), used = 0, off = 0;

    STK_CHECK_MAGIC(conn, STK_CONN_MAGIC);
    if (stk_proto_parse(conn, t, t->read_buf, len, &off) != STK_HTTP1_OK) {
        stk_conn_close(conn, thread, STK_CLOSE_BAD_REQUEST); /* it was good when it was queued */
        return;
    }
    stk_http1_init_request(&rq, conn, t, head);
    job->since = 0;
    if (http1_has_body(head) && http1_body(&rq, thread, head, t->read_buf + head->len,
                                           len - head->len, &used) != STEP_ANSWERED)
        return;
    if (rq.body != NULL && !stk_body_is_complete(rq.body))
        rq.keep_alive = false;
    http1_answer_busy(&rq);
    stk_response_end(&rq);
    stk_http1_account(&rq);
    conn->served = true;
    conn->continued = false;
    conn->hops = 0;
    conn->body = stk_body_free(conn->body);
    if (rq.keep_alive)
        http1_go_on(conn, thread, head->len + used, len);
    else
        (void)stk_http1_finish_close(conn, thread, STK_CLOSE_REQUESTED);
}

void stk_http1_job_expired(struct stk_job *job, struct stk_lead_thread *thread)
{
    struct stk_conn *conn = stk_container_of(job, struct stk_conn, job);
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    size_t len = http1_load(conn, t), off = 0;
    stk_nsec waited = stk_time_mono_ns() - job->since;
    const struct stk_head *head = NULL;
    stk_span method = STK_SPAN_LIT("?"), target = STK_SPAN_LIT("?");

    STK_CHECK_MAGIC(conn, STK_CONN_MAGIC);
    if (stk_proto_parse(conn, t, t->read_buf, len, &off) == STK_HTTP1_OK) {
        head = &t->head;
        method = stk_head_method(head);
        target = stk_head_target(head);
    }
    stk_log_error("%.*s %.*s: has waited %.3f s for a thread of the application, longer than its "
                  "limit; 504 was sent to client %.*s:%u",
                  (int)(method.len < 32 ? method.len : 32), method.ptr,
                  (int)(target.len < 200 ? target.len : 200), target.ptr,
                  (double)waited / (double)STK_NSEC_PER_SEC, conn->peer.addr_len, conn->peer.addr,
                  conn->peer.port);
    (void)stk_http1_refuse(conn, thread, head, 504, "no thread of the application was free in time",
                           STK_CLOSE_REQUEST_TIMEOUT);
}

/* More of a body that began in an earlier turn. */
static void http1_read_body(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    const struct stk_config *config = conn->server->config;
    size_t rest = 0;
    /* What follows the body goes to where its head will be in front of it. */
    int r = stk_body_recv(conn->body, conn, t->read_buf + conn->head_len,
                          STK_SERVE_READ_BUFFER - conn->head_len, &rest);

    t->bytes_in += stk_body_take_fresh(conn->body);
    http1_reply(conn);
    if (r == STK_BODY_PARTIAL) {
        if (stk_body_is_too_slow(conn->body, config->body_min_rate,
                                 stk_loop_now(conn->server->loop), STK_HTTP1_RATE_GRACE_MS)) {
            stk_http1_timed_out(conn, thread);
            return;
        }
        stk_conn_set_state(conn, STK_CONN_BODY, config->body_timeout);
        stk_conn_want_input(conn);
        return;
    }
    if (r < 0) {
        (void)stk_http1_refuse_body(conn, thread, stk_http1_kept_head(conn, t), r);
        return;
    }
    /* Head, then what follows the body: as if the body had never been between them. */
    memcpy(t->read_buf, conn->in, conn->head_len);
    http1_process(conn, thread, conn->head_len + rest);
}

void stk_http1_readable(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    size_t len;
    ssize_t n;

    if (conn->state == STK_CONN_BODY) {
        http1_read_body(conn, thread);
        return;
    }
    len = http1_load(conn, t);
    do
        n = stk_conn_io_recv(conn, t->read_buf + len, STK_SERVE_READ_BUFFER - len);
    while (stk_unlikely(n < 0 && errno == EINTR));
    if (stk_likely(n > 0)) {
        t->bytes_in += (uint64_t)n;
        http1_process(conn, thread, len + (size_t)n);
        return;
    }
    if (n < 0 && errno == EAGAIN) {
        stk_conn_want_input(conn);
        if (atomic_load_explicit(&conn->word, memory_order_relaxed) & STK_CONN_DISARMED)
            stk_conn_release(conn, thread); /* new: waits for its first byte */
        return;
    }
    conn->eof = n == 0;
    stk_conn_close(conn, thread, n == 0 ? STK_CLOSE_CLIENT : STK_CLOSE_RESET);
}

void stk_http1_import(struct stk_conn *conn, struct stk_lead_thread *thread, size_t len)
{
    if (len > 0)
        http1_process(conn, thread, len);
    else
        stk_http1_readable(conn, thread);
}

void stk_http1_drained(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);

    stk_conn_want_output(conn, false);
    if (conn->close_after_drain) {
        stk_conn_close(conn, thread, conn->close_reason);
        return;
    }
    if (conn->body_after_drain) {
        conn->body_after_drain = false;
        stk_conn_set_state(conn, STK_CONN_BODY, conn->server->config->body_timeout);
        stk_conn_want_input(conn);
        return;
    }
    stk_conn_set_state(conn, STK_CONN_IDLE, conn->server->config->keepalive_timeout);
    http1_process(conn, thread, http1_load(conn, t));
}
