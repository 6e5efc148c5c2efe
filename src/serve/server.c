/*
 * A worker's server: accepting, the limit on connections, draining.
 *
 * Each worker accepts from its own SO_REUSEPORT socket, and from those of slots whose worker is
 * gone or not ready yet. Shared sockets (unix:, fd://) are accepted from one connection a turn that
 * stays, so that the workers get even parts.
 */
#include "serve/server.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "net/addr.h"
#include "net/listen.h"
#include "net/tls_store.h"
#include "serve/access_log.h"
#include "serve/body.h"
#include "serve/carry.h"
#include "serve/cold.h"
#include "serve/compress.h"
#include "serve/conn.h"
#include "serve/deadline.h"
#include "serve/detach.h"
#include "serve/http1.h"
#include "serve/move.h"
#include "serve/proto.h"
#include "serve/proxied.h"
#include "serve/router.h"
#include "serve/secure.h"
#include "serve/sendfile.h"
#include "serve/static.h"

enum {
    SERVER_ACCEPT_BATCH = 64,
    SERVER_ACCEPT_PAUSE_MS = 200,    /* after running out of descriptors */
    SERVER_CUT_SAID = 16,            /* connections named when they are cut */
    SERVER_CROWD_LOOK = 256,         /* connections looked at to find an idle one */
    SERVER_FRESH_MS = 1000,          /* of a client's time for its first byte */
    SERVER_FD_RESERVE = 64,          /* descriptors left to the application, at least */
    SERVER_DRAIN_LOOK_MS = 250,      /* between two looks for connections that have become idle */
    SERVER_DRAIN_PATIENCE_MS = 5000, /* for one more request of idle connections */
    SERVER_DRAIN_FIRST_MS = 1000, /* for the first request of a connection that was accepted late */
};

/* What requests of new connections may take before those of others have their turn. */
#define SERVER_ACCEPT_TURN STK_NSEC_PER_MSEC

bool stk_server_is_patient(const struct stk_server *server)
{
    return stk_loop_now(server->loop) < atomic_load(&server->patient_until);
}

/* Since when a connection has been idle: its deadline counts from there. */
static stk_msec server_idle_since(const struct stk_server *server, const struct stk_conn *conn)
{
    return conn->deadline -
           (conn->served ? server->config->keepalive_timeout : server->config->head_timeout);
}

/* Whether a connection was accepted a moment ago: the bytes of its first request are on their way.
 */
static bool server_is_fresh(const struct stk_server *server, const struct stk_conn *conn)
{
    return !conn->served &&
           stk_loop_now(server->loop) - server_idle_since(server, conn) <
               (server->config->head_timeout < SERVER_FRESH_MS ? server->config->head_timeout
                                                               : SERVER_FRESH_MS);
}

/*
 * Makes room by closing the connection that has been idle longest among some, but for those whose
 * request has come and was not read yet, or is about to come; false: none is idle.
 */
static bool server_evict(struct stk_server *server, struct stk_lead_thread *thread)
{
    struct stk_conn *victim = NULL;
    unsigned looked = 0;

    stk_list_for_each (it, &server->conns) {
        struct stk_conn *conn = stk_container_of(it, struct stk_conn, link);

        if (looked++ == SERVER_CROWD_LOOK)
            break;
        if (!(atomic_load(&conn->word) & STK_CONN_BUSY) &&
            (conn->state == STK_CONN_IDLE || conn->state == STK_CONN_PREFACE) &&
            (victim == NULL ||
             server_idle_since(server, conn) < server_idle_since(server, victim)) &&
            !server_is_fresh(server, conn) && !stk_conn_has_input(conn))
            victim = conn;
    }
    if (victim == NULL)
        return false;
    stk_conn_close(victim, thread, STK_CLOSE_CROWDED);
    return true;
}

static void server_crowded(struct stk_server *server, const char *what)
{
    stk_msec now = stk_loop_now(server->loop);

    if (server->crowded_logged != 0 && now - server->crowded_logged < 10 * 1000)
        return;
    server->crowded_logged = now;
    stk_log_warning("%s (%llu connections open): idle ones are closed to make room; raise "
                    "max-connections or the limit on open files (ulimit -n) if this is normal load",
                    what, (unsigned long long)server->nconns);
}

/* Gives what is between two requests to the worker that comes next; false: there is none. */
static bool server_give_idle(struct stk_server *server, struct stk_lead_thread *thread)
{
    if (!stk_move_has_heir(server->move))
        return false;
    stk_list_for_each_safe (it, &server->conns) {
        struct stk_conn *conn = stk_container_of(it, struct stk_conn, link);

        if (atomic_load(&conn->word) & STK_CONN_BUSY ||
            (conn->state != STK_CONN_IDLE && conn->state != STK_CONN_HEAD) || conn->tls != NULL ||
            (stk_carry_is_on(server) && !stk_carry_may(conn)))
            continue;
        if (!stk_move_give(server->move, conn, thread)) {
            stk_conn_release(conn, thread);
            break; /* as many as can be are on their way */
        }
    }
    return true;
}

/* Lets no connection that only waits for its client's end stay longer than it has to. */
static void server_hurry(struct stk_server *server)
{
    stk_list_for_each (it, &server->conns) {
        struct stk_conn *conn = stk_container_of(it, struct stk_conn, link);

        if (!(atomic_load(&conn->word) & STK_CONN_BUSY) && conn->state == STK_CONN_LINGER)
            stk_conn_check_timer(conn);
    }
}

/* While draining: the first bytes of a client that has just connected are waited for, but not long.
 */
static void server_shorten(struct stk_server *server, struct stk_conn *conn)
{
    if (conn->deadline <= stk_loop_now(server->loop) + SERVER_DRAIN_FIRST_MS)
        return;
    stk_conn_set_state(conn, (enum stk_conn_state)conn->state, SERVER_DRAIN_FIRST_MS);
    stk_conn_check_timer(conn);
}

/*
 * While draining: closes the connections that are idle, and looks again for those that become so.
 * A request that has come already is served, and a client that has just connected may send one.
 */
static void server_close_idle(struct stk_server *server)
{
    struct stk_lead_thread nobody = {.own = true};
    bool given;

    stk_timer_set(server->loop, &server->accept_timer, SERVER_DRAIN_LOOK_MS);
    server_hurry(server);
    given = server_give_idle(server, &nobody);
    stk_list_for_each_safe (it, &server->conns) {
        struct stk_conn *conn = stk_container_of(it, struct stk_conn, link);

        if (atomic_load(&conn->word) & STK_CONN_BUSY)
            continue;
        if (conn->state == STK_CONN_PREFACE)
            server_shorten(server, conn);
        if (conn->state != STK_CONN_IDLE || (given && !stk_carry_stays(conn)) ||
            stk_conn_has_input(conn))
            continue;
        if (conn->served && stk_server_is_patient(server))
            continue;
        if (conn->served)
            stk_conn_close(conn, &nobody, STK_CLOSE_DRAINING);
        else
            server_shorten(server, conn);
    }
}

/* Stops accepting for a moment. */
static void server_pause(struct stk_server *server)
{
    if (server->accept_paused)
        return;
    server->accept_paused = true;
    for (size_t i = 0; i < server->nlisteners; i++) {
        if (server->listeners[i].attached)
            stk_loop_del(server->loop, &server->listeners[i].src);
    }
    stk_timer_set(server->loop, &server->accept_timer, SERVER_ACCEPT_PAUSE_MS);
}

void stk_server_resume(struct stk_server *server)
{
    if (atomic_load(&server->draining))
        return;
    stk_timer_stop(server->loop, &server->accept_timer);
    server->accept_paused = false;
    for (size_t i = 0; i < server->nlisteners; i++) {
        struct stk_server_listener *l = &server->listeners[i];

        if (l->attached && l->src.events == 0 && stk_loop_add(server->loop, &l->src, EPOLLIN) < 0) {
            server_pause(server);
            return;
        }
    }
}

static void server_on_accept_timer(struct stk_timer *timer, void *who)
{
    struct stk_server *server = stk_container_of(timer, struct stk_server, accept_timer);

    if (atomic_load(&server->draining))
        server_close_idle(server);
    else
        stk_server_resume(server);
}

/* Makes a connection of an accepted socket; NULL: it was closed, the reason logged. */
static struct stk_conn *server_open(struct stk_server_listener *l, int fd,
                                    const struct stk_addr *addr)
{
    struct stk_server *server = l->server;
    struct stk_conn *conn = NULL;
    struct stk_peer peer;
    int r;

    memset(&peer, 0, sizeof peer);
    peer.addr_len = (uint8_t)stk_addr_format(addr, peer.addr, &peer.port);
    r = stk_conn_open(server, l->endpoint, fd, &peer, stk_cidr_set_match(&server->trusted, addr),
                      &conn);
    if (r < 0)
        stk_log_error("a connection could not be taken: %s", strerror(-r));
    else
        stk_scoreboard_add_owned(server->row, STK_COUNTER_connections, 1);
    return conn;
}

/*
 * Takes a connection and serves what it has sent already: a client that sends as it connects, and
 * closes after the answer, never enters the epoll set. `later`: what it has sent comes as an event,
 * behind those that are there.
 */
static void server_take(struct stk_server_listener *l, struct stk_lead_thread *thread, int fd,
                        const struct stk_addr *addr, bool later)
{
    struct stk_conn *conn = server_open(l, fd, addr);

    if (conn == NULL)
        return;
    if (stk_unlikely(later && !l->begins))
        stk_conn_release(conn, thread);
    else if (stk_likely(!l->begins)) {
        conn->fresh = true;
        stk_http1_readable(conn, thread);
    } else if (l->endpoint->proxy_protocol != STK_PROXY_PROTOCOL_OFF)
        stk_proxied_begin(conn, thread);
    else
        stk_secure_begin(conn, thread, NULL, 0);
}

/* As accept4(), of a connection that does not block; the client's address, or that it has none. */
static int server_accept(const struct stk_server_listener *l, struct stk_addr *ret_addr)
{
    ret_addr->len = sizeof ret_addr->ss;
    if (!l->endpoint->is_unix)
        return stk_sys_accept4(l->src.fd, (struct sockaddr *)&ret_addr->ss, &ret_addr->len,
                               SOCK_NONBLOCK | SOCK_CLOEXEC);
    ret_addr->ss.ss_family = AF_UNIX;
    ret_addr->len = sizeof ret_addr->ss.ss_family;
    return stk_sys_accept4(l->src.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* Takes all that wait in a socket which nobody will accept from again; their requests come as
 * events. */
static void server_accept_rest(struct stk_server_listener *l)
{
    struct stk_lead_thread nobody = {.own = true};

    for (;;) {
        struct stk_addr addr;
        int fd = server_accept(l, &addr);
        struct stk_conn *conn;

        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            return;
        }
        conn = server_open(l, fd, &addr);
        if (conn == NULL)
            continue;
        if (!l->begins)
            stk_conn_release(conn, &nobody);
        else if (l->endpoint->proxy_protocol != STK_PROXY_PROTOCOL_OFF)
            stk_proxied_await(conn, &nobody);
        else
            stk_secure_begin(conn, &nobody, NULL, 0);
    }
}

static void server_on_accept(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_server_listener *l = stk_container_of(src, struct stk_server_listener, src);
    struct stk_server *server = l->server;
    struct stk_lead_thread *thread = who;
    /* Without a stand-by thread their requests are served in a row: others wait behind them. And an
     * event loop of the application's has callbacks that wait as well. */
    stk_nsec turn = stk_server_has_standby(server) && stk_likely(server->detach == NULL)
                        ? 0
                        : stk_time_mono_ns() + SERVER_ACCEPT_TURN;
    bool later = false;

    for (int i = 0; i < SERVER_ACCEPT_BATCH; i++) {
        struct stk_addr addr;
        int fd;

        if (stk_unlikely(server->nconns >= server->max_connections)) {
            if (i > 0)
                return; /* perhaps nobody waits: the next event tells */
            server_crowded(server, "max-connections is reached");
            if (!server_evict(server, who)) {
                server_pause(server);
                return;
            }
        }
        fd = server_accept(l, &addr);
        if (fd >= 0) {
            uint64_t before = server->nconns;

            server_take(l, thread, fd, &addr, later);
            if (!thread->own)
                return; /* its request took long: the loop has gone to another thread */
            /* One that ended with its request is no burden that workers should have even parts of.
             */
            if (l->shared && server->nconns > before)
                return;
            later = later || (turn != 0 && stk_time_mono_ns() > turn);
            continue;
        }
        if (errno == EAGAIN)
            return;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            server_crowded(server, strerror(errno));
            if (!server_evict(server, who))
                server_pause(server);
            return;
        }
        /* EINTR, ECONNABORTED and the network's errors concern one connection only. */
    }
}

static void server_make_endpoints(struct stk_server *server, const struct stk_server_params *params)
{
    size_t n = 0;

    server->nendpoints = params->nlisteners;
    server->endpoints = stk_new0_array(struct stk_endpoint, params->nlisteners);
    for (size_t i = 0; i < params->nlisteners; i++)
        n += params->listeners[i]->shared ? 1 : params->listeners[i]->nslots;
    server->listeners = stk_new0_array(struct stk_server_listener, n);
    for (size_t i = 0; i < params->nlisteners; i++) {
        const struct stk_listener *from = params->listeners[i];
        unsigned slots = from->shared ? 1 : from->nslots;

        server->endpoints[i] = (struct stk_endpoint){
            .index = (unsigned)i,
            .scheme = stk_span_str(strcmp(from->scheme, "https") == 0 ? "https" : "http"),
            .server_name = stk_span_str(from->server_name),
            .server_port = stk_span_str(from->server_port),
            .is_unix = from->is_unix,
            .path = stk_listener_path(from),
        };
        stk_proto_set_scheme(&server->endpoints[i], from->scheme);
        if (params->handlers_address == NULL || strcmp(from->spec, params->handlers_address) != 0)
            server->endpoints[i].proxy_protocol =
                (uint8_t)(from->proxy_protocol >= 0 ? from->proxy_protocol
                                                    : params->config->proxy_protocol);
        for (unsigned s = 0; s < slots; s++) {
            server->listeners[server->nlisteners++] = (struct stk_server_listener){
                .src = {.fn = server_on_accept, .fd = from->slots[s]},
                .server = server,
                .endpoint = &server->endpoints[i],
                .slot = s,
                .shared = from->shared,
                .begins = strcmp(from->scheme, "https") == 0 ||
                          server->endpoints[i].proxy_protocol != STK_PROXY_PROTOCOL_OFF,
            };
        }
    }
}

/* Descriptors that are open already: the sockets and inboxes of all workers. */
static uint64_t server_count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    uint64_t n = 0;

    while (dir != NULL && readdir(dir) != NULL)
        n++;
    if (dir != NULL)
        closedir(dir);
    return n;
}

static void server_make_limits(struct stk_server *server)
{
    const struct stk_config *config = server->config;
    struct rlimit rl = {.rlim_cur = 1024};

    server->limits = (struct stk_http1_limits){
        .line_max = (uint32_t)config->limit_request_line,
        .head_max = (uint32_t)config->limit_request_head,
        .fields_max = (uint16_t)config->limit_request_fields,
    };
    if (server->limits.head_max > STK_SERVE_READ_BUFFER / 2)
        server->limits.head_max = STK_SERVE_READ_BUFFER / 2;
    if (server->limits.fields_max > STK_HEAD_FIELDS_MAX)
        server->limits.fields_max = STK_HEAD_FIELDS_MAX;
    if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
        stk_log_warning("getrlimit: %m");
    if (rl.rlim_cur == RLIM_INFINITY || rl.rlim_cur > 1 << 20)
        rl.rlim_cur = 1 << 20;
    server->max_connections = (uint64_t)config->max_connections;
    if (server->max_connections == 0) {
        uint64_t reserve = SERVER_FD_RESERVE + rl.rlim_cur / 10 + server_count_fds() +
                           stk_statics_descriptors(server->statics);

        server->max_connections = rl.rlim_cur > 2 * reserve ? rl.rlim_cur - reserve : reserve;
    }
    server->conn_fds_len = rl.rlim_cur;
    server->conn_fds = stk_new0_array(uint8_t, server->conn_fds_len);
}

/* Renders the Server field; an empty server-header leaves it out. */
static void server_make_line(struct stk_server *server)
{
    const char *value = server->config->server_header;
    int n;

    if (value == NULL || *value == '\0')
        return;
    n = snprintf(server->server_line, sizeof server->server_line, "Server: %.200s\r\n", value);
    STK_ASSERT(n > 0 && n < (int)sizeof server->server_line);
    server->server_line_len = (size_t)n;
}

static void server_make_threads(struct stk_server *server, unsigned n)
{
    bool gateways = false;

    for (size_t i = 0; i < server->nendpoints; i++)
        gateways = gateways || server->endpoints[i].proto != STK_PROTO_HTTP1;
    server->nthreads = n;
    server->threads = stk_new0_array(struct stk_serve_thread, n);
    for (unsigned i = 0; i < n; i++) {
        struct stk_serve_thread *t = &server->threads[i];

        t->server = server;
        t->read_buf = stk_new0_array(char, STK_SERVE_READ_BUFFER);
        if (gateways)
            t->gateway = stk_proto_gateway_new(&server->limits);
        t->out.buf = stk_new0_array(char, STK_SERVE_OUT_BUFFER);
        t->out.cap = STK_SERVE_OUT_BUFFER;
        if (server->access_log != NULL)
            t->access_memo = stk_new0(struct stk_access_memo);
        t->next_id = i + 1;
        t->memo.serial = (uint64_t)i << 48;
        pthread_mutex_init(&t->gather_mutex, NULL);
        pthread_mutex_init(&t->interfere_mutex, NULL);
    }
}

static int server_make_compress(struct stk_server *server)
{
    char error[STK_COMPRESS_ERROR_MAX];
    int r = stk_compress_new(&server->compress, server->config, server->loop, error);

    if (r > 0)
        stk_log_error("%s", error);
    server->response_rules = server->response_rules || server->compress != NULL;
    return r > 0 ? -EINVAL : r;
}

int stk_server_new(struct stk_server **ret_server, const struct stk_server_params *params)
{
    struct stk_server *server = stk_new0(struct stk_server);
    int r;

    server->config = params->config;
    server->loop = params->loop;
    server->host_ops = params->host_ops;
    server->host = params->host;
    server->row = params->row;
    server->access_log = params->access_log;
    server->timed = params->timed || params->access_log != NULL;
    server->slot = params->slot;
    server->tls = params->tls;
    if (stk_statics_new(&server->statics, params->config) < 0) {
        free(server);
        return -ENOMEM;
    }
    stk_list_init(&server->conns);
    stk_timer_init(&server->accept_timer, server_on_accept_timer);
    pthread_mutex_init(&server->garbage_mutex, NULL);
    stk_logvars_init(&server->logvars);
    server_make_endpoints(server, params);
    server_make_limits(server);
    server_make_line(server);
    server_make_threads(server, params->threads + 1);
    for (size_t i = 0; i < params->config->forwarded_allow.n; i++) {
        char *error = NULL;

        if (stk_cidr_set_add(&server->trusted, params->config->forwarded_allow.items[i], &error) !=
            0) {
            stk_log_error("forwarded-allow: %s", error);
            free(error);
            stk_server_free(server);
            return -EINVAL;
        }
    }
    r = server_make_compress(server);
    if (r < 0) {
        stk_server_free(server);
        return r;
    }
    if (stk_router_new(&server->router, server, params) < 0) {
        stk_server_free(server);
        return -EINVAL;
    }
    server->sendfile = stk_sendfile_new(params->config, server->statics);
    server->response_rules |= stk_router_has_heads(server->router) || server->sendfile != NULL;
    server->timed |= stk_router_has_ends(server->router);
    stk_access_log_serve(server->access_log, server);
    *ret_server = server;
    return 0;
}

static void server_destroy_conns(struct stk_server *server)
{
    struct stk_lead_thread nobody = {.own = true};

    server->on_drained = NULL;
    stk_list_for_each_safe (it, &server->conns) {
        struct stk_conn *conn = stk_container_of(it, struct stk_conn, link);

        atomic_store(&conn->word, STK_CONN_GONE);
        stk_conn_close(conn, &nobody, STK_CLOSE_DRAINING);
    }
    stk_loop_reap(server->loop);
    while (server->nspare > 0)
        free(server->spare[--server->nspare]);
}

struct stk_server *stk_server_free(struct stk_server *server)
{
    if (server == NULL)
        return NULL;
    server_destroy_conns(server);
    server->deadline = stk_deadline_free(server->deadline);
    stk_server_collect(server);
    stk_timer_stop(server->loop, &server->accept_timer);
    for (unsigned i = 0; i < server->nthreads; i++) {
        free(server->threads[i].read_buf);
        stk_proto_gateway_free(server->threads[i].gateway);
        free(server->threads[i].access_memo);
        free(server->threads[i].out.buf);
        pthread_mutex_destroy(&server->threads[i].gather_mutex);
        pthread_mutex_destroy(&server->threads[i].interfere_mutex);
    }
    stk_cidr_set_deinit(&server->trusted);
    server->cold = stk_cold_free(server->cold);
    server->compress = stk_compress_free(server->compress);
    server->router = stk_router_free(server->router);
    server->tls = stk_tls_store_free(server->tls);
    server->sendfile = stk_sendfile_free(server->sendfile);
    server->statics = stk_statics_free(server->statics);
    pthread_mutex_destroy(&server->garbage_mutex);
    stk_logvars_deinit(&server->logvars);
    free(server->garbage);
    free(server->threads);
    free(server->listeners);
    free(server->endpoints);
    free(server->conn_fds);
    free(server);
    return NULL;
}

void stk_server_attach_lead(struct stk_server *server, struct stk_lead *lead)
{
    struct stk_lead_thread *standby = stk_lead_standby(lead);

    server->lead = lead;
    for (unsigned i = 0; i + 1 < server->nthreads; i++) {
        struct stk_lead_thread *t = stk_lead_thread_get(lead, i);

        t->user = &server->threads[i];
        server->threads[i].lead_thread = t;
    }
    if (standby != NULL) {
        standby->user = &server->threads[server->nthreads - 1];
        server->threads[server->nthreads - 1].lead_thread = standby;
    }
}

int stk_server_listen(struct stk_server *server, unsigned slot)
{
    for (size_t i = 0; i < server->nlisteners; i++) {
        struct stk_server_listener *l = &server->listeners[i];
        int r;

        if ((!l->shared && l->slot != slot) || l->attached || atomic_load(&server->draining))
            continue;
        r = stk_loop_add(server->loop, &l->src, EPOLLIN);
        if (r < 0)
            return r;
        l->attached = true;
    }
    return 0;
}

void stk_server_unlisten(struct stk_server *server, unsigned slot)
{
    for (size_t i = 0; i < server->nlisteners; i++) {
        struct stk_server_listener *l = &server->listeners[i];

        if (l->attached && !l->shared && l->slot == slot) {
            stk_loop_del(server->loop, &l->src);
            l->attached = false;
        }
    }
}

/* How long idle connections are kept for one more request, whose response says that it is the last:
 * closing one at the moment in which its client sends would cost that request. */
static stk_msec server_patience(const struct stk_server *server)
{
    stk_msec half = server->config->graceful_timeout / 2;

    return half < SERVER_DRAIN_PATIENCE_MS ? half : SERVER_DRAIN_PATIENCE_MS;
}

void stk_server_drain(struct stk_server *server, enum stk_channel_drain kind)
{
    bool last = kind == STK_CHANNEL_DRAIN_LAST;

    /* Before the others see that it drains: it is what they look at then. */
    atomic_store(&server->patient_until,
                 last ? 0 : stk_loop_now(server->loop) + server_patience(server));
    atomic_store(&server->carries, kind == STK_CHANNEL_DRAIN_CARRY);
    if (kind != STK_CHANNEL_DRAIN_SUCCESSOR && server->move != NULL)
        stk_move_disinherit(server->move);
    if (atomic_exchange(&server->draining, true)) {
        stk_server_drain_more(server);
        return;
    }
    for (size_t i = 0; i < server->nlisteners; i++) {
        struct stk_server_listener *l = &server->listeners[i];

        if (l->attached) {
            stk_loop_del(server->loop, &l->src);
            if (last)
                server_accept_rest(l);
        }
        l->attached = false;
    }
    stk_detach_drain(server, !last);
    if (server->nconns > 0)
        server_close_idle(server);
    else if (server->on_drained != NULL)
        server->on_drained(server->on_drained_arg);
}

void stk_server_drain_more(struct stk_server *server)
{
    if (atomic_load(&server->draining) && server->nconns > 0)
        server_close_idle(server);
}

/* What a connection that is cut was about; NULL: nothing is lost by it. */
static const char *server_unfinished(const struct stk_conn *conn)
{
    switch (conn->state) {
    case STK_CONN_HEAD:
    case STK_CONN_BODY:
        return "its request was not complete";
    case STK_CONN_DRAIN:
        return "it has not read its response";
    default:
        return NULL;
    }
}

void stk_server_abort(struct stk_server *server)
{
    struct stk_lead_thread nobody = {.own = true};
    unsigned said = 0;

    stk_list_for_each_safe (it, &server->conns) {
        struct stk_conn *conn = stk_container_of(it, struct stk_conn, link);
        const char *what = server_unfinished(conn);

        if (atomic_load(&conn->word) & STK_CONN_BUSY) { /* the end of the process closes it */
            stk_detach_abort(conn, &said, SERVER_CUT_SAID);
            stk_scoreboard_close_reason(server->row, STK_CLOSE_CUT);
            continue;
        }
        if (what != NULL && said++ < SERVER_CUT_SAID)
            stk_log_warning("%.*s:%u: %s when graceful-timeout was over: the connection is cut",
                            conn->peer.addr_len, conn->peer.addr, conn->peer.port, what);
        atomic_fetch_or(&conn->word, STK_CONN_GONE);
        stk_conn_close(conn, &nobody, what != NULL ? STK_CLOSE_CUT : STK_CLOSE_DRAINING);
    }
}

void stk_server_discard(struct stk_server *server, void *buffer)
{
    pthread_mutex_lock(&server->garbage_mutex);
    if (server->ngarbage == server->garbage_cap) {
        size_t cap = server->garbage_cap ? server->garbage_cap * 2 : 16;
        void **more = stk_try_realloc(server->garbage, cap * sizeof *more);

        STK_ASSERT(more != NULL);
        server->garbage = more;
        server->garbage_cap = cap;
    }
    server->garbage[server->ngarbage++] = buffer;
    atomic_store(&server->has_garbage, true);
    pthread_mutex_unlock(&server->garbage_mutex);
}

void stk_server_collect(struct stk_server *server)
{
    void **buffers;
    size_t n;

    if (!atomic_load_explicit(&server->has_garbage, memory_order_relaxed))
        return;
    pthread_mutex_lock(&server->garbage_mutex);
    buffers = server->garbage;
    n = server->ngarbage;
    server->garbage = NULL;
    server->ngarbage = server->garbage_cap = 0;
    atomic_store(&server->has_garbage, false);
    pthread_mutex_unlock(&server->garbage_mutex);
    for (size_t i = 0; i < n; i++)
        server->host_ops->body_free(server->host, buffers[i]);
    free(buffers);
}
