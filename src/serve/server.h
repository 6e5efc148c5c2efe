/*
 * The server of one worker: its listeners, connections and the state of each thread that serves
 * them.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "app/host.h"
#include "base/list.h"
#include "base/time.h"
#include "ipc/channel.h"
#include "loop/lead.h"
#include "loop/loop.h"
#include "net/cidr.h"
#include "serve/logvar.h"
#include "serve/request.h"
#include "wire/http1.h"
#include "wire/http_date.h"

struct stk_config;
struct stk_coder;
struct stk_cold;
struct stk_compress;
struct stk_deadline;
struct stk_detach;
struct stk_handler;
struct stk_listener;
struct stk_move;
struct stk_proto_gateway;
struct stk_router;
struct stk_sendfile;
struct stk_statics;
struct stk_scoreboard_row;
struct stk_tls_store;
struct stk_access_log;
struct stk_access_memo;
struct stk_conn;
struct stk_serve_request;
struct stk_server;

enum stk_close_reason {
#define STK_CLOSE(id, name, linger, description) STK_CLOSE_##id,
#include "serve/close_reason.def"
#undef STK_CLOSE
    STK_CLOSE_REASONS,
};

/* The name of a reason; "?" for another number. */
const char *stk_close_reason_name(unsigned reason);

/* A listening socket that this worker accepts from. */
struct stk_server_listener {
    struct stk_source src;
    struct stk_server *server;
    const struct stk_endpoint *endpoint;
    unsigned slot;
    bool shared; /* with other workers: one accept a turn */
    bool begins; /* its connections begin with a PROXY header, or a handshake */
    bool attached;
};

enum {
    STK_SERVE_READ_BUFFER = 128 * 1024,
    STK_SERVE_OUT_BUFFER =
        64 * 1024,                  /* gathered responses and blocks; a response head fits in it */
    STK_SERVE_COPY_MAX = 16 * 1024, /* larger blocks are sent from where they are */
    STK_SERVE_DATE_LINE = 6 + STK_HTTP_DATE_LEN + 2,
    STK_SERVE_SERVER_LINE = 256,
    STK_SERVE_SPARE_CONNS = 64, /* as many as are accepted in a turn */
    STK_SERVE_CONN_VARS = 12,   /* STK_SECURE_VARS and the server's address */
    STK_SERVE_PROXIED_SENTENCES = 4,
};

struct stk_server {
    const struct stk_config *config;
    char server_line[STK_SERVE_SERVER_LINE]; /* the Server field, rendered */
    size_t server_line_len;
    struct stk_loop *loop;
    struct stk_lead *lead;
    const struct stk_host_ops *host_ops;
    void *host;
    struct stk_scoreboard_row *row;
    struct stk_access_log *access_log; /* NULL: off */
    struct stk_move *move;             /* NULL: connections stay; set by the owner of the server */
    struct stk_compress *compress;     /* NULL: off */
    struct stk_cold *cold;             /* NULL until a disk was waited for */
    bool response_rules;               /* heads of responses are looked at before they leave */
    bool counts_heads;                 /* their bytes and fields are counted, for the access log */
    struct stk_router *router;         /* NULL: every request is the application's */
    struct stk_tls_store *tls;         /* NULL: no TLS; a reference of its own */
    stk_msec tls_failed_logged;
    struct stk_statics *statics;   /* NULL: none */
    struct stk_sendfile *sendfile; /* NULL: the application names no files */
    unsigned slot;
    bool timed; /* the times of requests are wanted, for the access log or statistics */

    struct stk_http1_limits limits;
    struct stk_cidr_set trusted;
    uint64_t max_connections;

    struct stk_endpoint *endpoints;
    size_t nendpoints;
    struct stk_server_listener *listeners; /* nslots for each endpoint that has its own sockets */
    size_t nlisteners;

    struct stk_conn *spare[STK_SERVE_SPARE_CONNS]; /* memory; of the owner of the loop, as conns */
    unsigned nspare;
    struct stk_list conns; /* struct stk_conn.link; of the owner of the loop */
    uint64_t nconns;
    struct stk_timer
        accept_timer; /* listens again after running out of descriptors; later drains */
    bool accept_paused;
    stk_msec crowded_logged;
    _Atomic stk_msec tls_hint_logged;
    _Atomic stk_msec gateway_logged;
    _Atomic stk_msec refused_logged[4]; /* by kind: each is said once in a while */
    _Atomic stk_msec proxied_logged[STK_SERVE_PROXIED_SENTENCES]; /* likewise */

    struct stk_logvars logvars;

    _Atomic bool draining;
    /* Of a hot upgrade, set before draining (serve/carry.h): gives a descriptor, which stays the
     * caller's, to the new server. 0; -EAGAIN: later; else it takes none. */
    int (*carry)(void *arg, int fd, bool served);
    void *carry_arg;
    _Atomic bool carries;
    _Atomic stk_msec
        patient_until; /* draining: idle connections may send one more request until then */
    void (*on_drained)(void *arg); /* all connections are gone; by the owner of the loop */
    void *on_drained_arg;

    struct stk_detach *detach;     /* NULL: the host has no event loop; set by the server's owner */
    struct stk_deadline *deadline; /* NULL: nobody watches the requests in the application */
    /* By the stand-by: the worker is to be replaced, with an enum stk_channel_retire and its value;
     * and, while draining: only calls are left that do not return. */
    void (*on_retire)(void *arg, unsigned reason, int64_t value);
    void *on_retire_arg;
    void (*on_abandoned)(void *arg);
    void *on_abandoned_arg;

    /* One byte a descriptor, set for connections: a child that the application forks closes them.
     */
    uint8_t *conn_fds;
    size_t conn_fds_len;

    pthread_mutex_t garbage_mutex; /* host buffers freed by threads that may not use the host */
    void **garbage;
    size_t ngarbage, garbage_cap;
    _Atomic bool has_garbage;

    struct stk_serve_thread *threads; /* of the application, then the stand-by */
    unsigned nthreads;
    _Atomic unsigned gathering; /* threads with gathered bytes */
};

/* Bytes that go to one socket together. */
struct stk_out {
    char *buf;
    size_t len, cap;
    size_t mark; /* where the head of the present request's response begins */
};

/* What a thread needs to serve: big buffers that connections borrow while they are served. */
struct stk_serve_thread {
    struct stk_server *server;
    struct stk_lead_thread *lead_thread;
    char *read_buf;
    struct stk_out out;
    struct stk_head head;
    struct stk_serve_request request;  /* not on the stack, which a host may switch (greenlets) */
    struct stk_http1_memo memo;        /* of head */
    struct stk_proto_gateway *gateway; /* NULL where only HTTP is spoken */
    uint64_t next_id;
    /* What this thread has answered since it was last added to the scoreboard: [0] all, [1-5] by
     * class. */
    uint32_t answered[6];
    uint32_t exceptions;
    uint32_t handled; /* requests of handlers, which count nowhere else */
    uint64_t bytes_in, bytes_out;
    uint64_t gil_wait_us;
    struct stk_access_memo *access_memo; /* NULL: no access log */
    time_t date_second;
    char date[STK_SERVE_DATE_LINE];

    struct stk_var conn_vars[STK_SERVE_CONN_VARS]; /* TLS's and PROXY's, of the present request */

    /* The request in the application, and who looks at it from outside: serve/deadline.h. */
    _Atomic(struct stk_serve_request *) running;
    _Atomic uint32_t interfere;
    pthread_mutex_t interfere_mutex;
    uint8_t named; /* under the mutex: its place in the scoreboard, from 1 on; 0: it has none */

    /* Bytes at the front of `out` that the stand-by may send on behalf of this thread. */
    pthread_mutex_t gather_mutex;
    bool gathering; /* under the mutex, as what follows */
    struct stk_conn *gather_conn;
    size_t gather_len;              /* so many bytes */
    size_t gather_sent;             /* of which it has sent these */
    stk_nsec gather_since;          /* of the oldest byte */
    struct stk_coder *gather_coder; /* bytes lie inside of it, too; or NULL */
    bool gather_blocked; /* the queue is full or the client gone: leave it to the thread */
};

struct stk_server_params {
    const struct stk_config *config;
    struct stk_loop *loop;
    const struct stk_host_ops *host_ops;
    void *host;
    struct stk_listener *const *listeners;
    size_t nlisteners;
    unsigned slot;
    unsigned threads;
    struct stk_scoreboard_row *row;
    struct stk_access_log *access_log;
    bool timed;                         /* count latencies although there is no access log */
    const struct stk_handler *handlers; /* answered in C; alive as long as the server */
    size_t nhandlers;
    const char *handlers_address; /* where nothing else is answered; NULL: none */
    struct stk_tls_store *tls;    /* for https:// listeners; NULL: there are none. Is taken. */
};

/* Builds a server; nothing listens yet. 0, or a negative errno. */
int stk_server_new(struct stk_server **ret_server, const struct stk_server_params *params)
    STK_MUST_CHECK;
/* Frees it with all connections. Interpreter locked. Accepts NULL; returns NULL. */
struct stk_server *stk_server_free(struct stk_server *server);
/* Ties the server's threads to those of a lead; before any of them runs. */
void stk_server_attach_lead(struct stk_server *server, struct stk_lead *lead);
/* Accepts from the sockets of a slot (its own, or an orphan's); by the owner of the loop. */
int stk_server_listen(struct stk_server *server, unsigned slot) STK_MUST_CHECK;
/* Stops accepting from them. */
void stk_server_unlisten(struct stk_server *server, unsigned slot);
/*
 * Finishes what was begun: stops accepting (DRAIN_LAST: after taking what is queued, because no
 * other worker will), closes or gives away idle connections, and calls on_drained when the last one
 * is gone. Said again, the new kind holds: a server that drains for its successor may learn that
 * all the others go, too. By the owner of the loop.
 */
void stk_server_drain(struct stk_server *server, enum stk_channel_drain kind);
/*
 * While draining: whether idle connections that nobody takes over may send one more request, whose
 * response says that it is the last one.
 */
bool stk_server_is_patient(const struct stk_server *server);
/* While draining: looks again for connections that are idle; by the owner of the loop. */
void stk_server_drain_more(struct stk_server *server);
/* Closes every connection that is not in the application; by the owner of the loop. */
void stk_server_abort(struct stk_server *server);
/* Adds what a thread has counted to the scoreboard; by that thread. */
void stk_server_publish(struct stk_serve_thread *t);
/* Tells the scoreboard how many threads are in the application, and how many requests wait. */
void stk_server_gauge(struct stk_server *server);
/* Sends what threads have gathered for longer than a tick; true while some is left. By the
 * stand-by. */
bool stk_server_flush_gathered(struct stk_server *server);
/* Frees host buffers that were given back by threads without the interpreter. Locked. */
void stk_server_collect(struct stk_server *server);
/* Gives back a host buffer from any thread. */
void stk_server_discard(struct stk_server *server, void *buffer);

/* Notes that a descriptor is, or is no longer, a connection's. */
static inline void stk_server_note_fd(struct stk_server *server, int fd, bool used)
{
    if ((size_t)fd < server->conn_fds_len)
        server->conn_fds[fd] = used;
}

/* Accepts again, after running out of descriptors: one has been closed. By the loop's owner. */
void stk_server_resume(struct stk_server *server);
/* Whether a stand-by thread turns the loop while the application runs. */
static inline bool stk_server_has_standby(const struct stk_server *server)
{
    return server->threads[server->nthreads - 1].lead_thread != NULL;
}

/* The serving state of a thread. */
static inline struct stk_serve_thread *stk_serve_thread_of(struct stk_lead_thread *thread)
{
    return thread->user;
}
