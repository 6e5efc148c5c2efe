/*
 * A connection that is offered to another worker (ipc/transfer.h) is busy, out of the epoll set and
 * of the queue of jobs: nobody serves it until the other has taken it, or it has been withdrawn.
 * Offers are looked after by the stand-by at every tick, whoever leads: what comes back goes into
 * the queue of jobs, or is released. What was taken is forgotten by the owner of the loop, who is
 * told by an eventfd.
 *
 * A request moves to a worker in which a thread has nothing to do, when it has waited for a tick,
 * or the threads here have been in the same calls for long.
 *
 * It moves from a worker that is stuck in its calls to one that gets on so well that the request
 * would begin there before long. What has already taken long takes as long again, as a rule: the
 * time that the calls have taken so far, times some, is what is compared with the queue there,
 * which may be longer than the one here only when that time is. So calls that are long as a rule,
 * here as there, move little.
 *
 * And it moves from a queue that is much longer than another: the newest go, which would wait
 * longest. Else the oldest go first, and queues are kept by age, so that a request that was moved
 * is not served behind younger ones. A request moves at most MOVE_HOPS times, but for one that
 * would be left in a worker that is stuck for long.
 *
 * Beside an event loop there are two kinds of threads (MOVE_KINDS), and each kind's requests go
 * where a thread of that kind has nothing to do. Its leader then is the event loop's thread as a
 * rule, which does what needs the owner of the loop in its turns; the stand-by rings for it.
 *
 * While draining, everything that is between two requests goes to a worker of the newest
 * generation, bytes that are there already with it. The socket itself is not touched, so a client
 * that sends at this moment loses nothing.
 */
#include "serve/move.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "ipc/transfer.h"
#include "serve/body.h"
#include "serve/carry.h"
#include "serve/conn.h"
#include "serve/http1.h"
#include "serve/peers.h"
#include "serve/proxied.h"
#include "serve/server.h"
#include "wire/fastcgi.h"

enum {
    MOVE_HOPS = 8,                     /* as a rule */
    MOVE_HOPS_MAX = 100,               /* from a worker that is stuck for long */
    MOVE_LOOK_NS = 100 * 1000,         /* between two looks at the others */
    MOVE_TICK_NS = 250 * 1000,         /* a request may wait so long before it moves */
    MOVE_LONG_NS = 1000 * 1000,        /* with calls longer than this it need not wait */
    MOVE_STUCK_NS = 5 * 1000 * 1000,   /* calls longer than this are stuck */
    MOVE_WORSE_NS = 20 * 1000 * 1000,  /* a longer queue is taken for a call beyond this */
    MOVE_STUCK_TIMES = 4,              /* see above */
    MOVE_FRESH_NS = 2 * 1000 * 1000,   /* a younger queue is looked at every tick */
    MOVE_BALANCE_NS = 5 * 1000 * 1000, /* a queue is worth balancing when its oldest has waited */
    MOVE_TAKE_NS = 100 * 1000 * 1000,  /* for the receiver to take a request */
    MOVE_GIVE_NS = 1000 * 1000 * 1000, /* or a connection without one */
    MOVE_SETTLE_MS = 64,               /* when no stand-by looks after offers */
    MOVE_RING_NS = 1000 * 1000,        /* between two calls for an event loop's thread */
    MOVE_KINDS = 2, /* of requests: for the threads beside an event loop (or any), and for that */
    MOVE_INBOX_BATCH = 64,
    MOVE_LOG_MS = 10 * 1000,
};

struct move_offer {
    struct stk_conn *conn; /* NULL: a free place */
    struct stk_transfer_ticket ticket;
    unsigned to;
    uint64_t pid;
    stk_nsec since;
    bool request;
};

struct stk_move {
    struct stk_server *server;
    struct stk_lead *lead;
    struct stk_transfer *transfer;
    struct stk_peers *peers;
    unsigned row;
    struct stk_source inbox;
    struct stk_source wake; /* an eventfd: the owner of the loop has something to do here */
    struct stk_timer timer;
    _Atomic bool disinherited;
    bool standby; /* there is one */
    char *buf;    /* for a request whose body was gathered */

    pthread_mutex_t mutex; /* of what follows */
    struct move_offer offers[STK_TRANSFER_SLOTS];
    _Atomic unsigned noffers;
    struct stk_list leaving; /* busy connections, by job.link, that have had their response */

    stk_nsec rung_at; /* of the stand-by */

    /* of the owner of the loop, where there is an event loop with threads beside it; else of the
     * stand-by */
    struct {
        uint64_t calls; /* begun and ended here, and since when that has not changed */
        stk_nsec calls_at;
        stk_nsec stuck; /* for so long, at the last look */
    } kinds[MOVE_KINDS];
    bool loop; /* the kind of requests that are looked at: job.loop; with mixed */
    stk_nsec looked_at;
    _Atomic stk_msec refused_logged;
    _Atomic uint64_t refused; /* since then; one thread may count while another tells */
};

static struct stk_conn *move_conn_of(struct stk_job *job)
{
    return stk_container_of(job, struct stk_conn, job);
}

static void move_wake(struct stk_move *move)
{
    uint64_t one = 1;

    if (write(move->wake.fd, &one, sizeof one) < 0) {
        /* The counter is full: the owner knows. */
    }
}

/* --- Offers --------------------------------------------------------------------------------- */

/* What stands before and behind the bytes of a body. */
struct move_framing {
    char front[24], back[8];
    size_t nfront, nback;
};

/* How a body of that length would have come in one piece: as it is, a chunk or a record. */
static void move_frame(struct move_framing *f, const struct stk_conn *conn, size_t len)
{
    if (conn->fcgi_id != 0) {
        _Static_assert(sizeof f->back >= STK_FASTCGI_HEADER, "a header fits");
        _Static_assert(STK_TRANSFER_BYTES_MAX - sizeof *f <= STK_FASTCGI_CONTENT_MAX, "one record");
        if (len > 0)
            f->nfront = STK_FASTCGI_HEADER;
        f->nback = STK_FASTCGI_HEADER;
        stk_fastcgi_put_header(f->front, STK_FASTCGI_STDIN, conn->fcgi_id, len);
        stk_fastcgi_put_header(f->back, STK_FASTCGI_STDIN, conn->fcgi_id, 0);
    } else if (stk_body_is_chunked(conn->body)) {
        if (len > 0)
            f->nfront = (size_t)snprintf(f->front, sizeof f->front, "%zx\r\n", len);
        f->nback = len > 0 ? 7 : 5;
        memcpy(f->back, len > 0 ? "\r\n0\r\n\r\n" : "0\r\n\r\n", f->nback);
    }
}

/* The head and the body of a request whose body was gathered apart, as they may have come; 0: it
 * does not fit. */
static size_t move_join(struct stk_move *move, const struct stk_conn *conn)
{
    struct stk_body_view view;
    struct move_framing f = {0};
    size_t head = conn->head_len, rest = conn->in_len - conn->head_len;
    char *p = move->buf;

    if (stk_body_peek(conn->body, &view) < 0 || (int64_t)view.len != stk_body_length(conn->body) ||
        head + view.len + sizeof f + rest > STK_TRANSFER_BYTES_MAX)
        return 0;
    move_frame(&f, conn, view.len);
    p = mempcpy(p, conn->in, head);
    p = mempcpy(p, f.front, f.nfront);
    if (view.len > 0)
        p = mempcpy(p, view.ptr, view.len);
    p = mempcpy(p, f.back, f.nback);
    p = mempcpy(p, conn->in + head, rest);
    return (size_t)(p - move->buf);
}

/* Puts the PROXY header of a connection in front of its bytes; 0: it does not fit. */
static size_t move_prefix(struct stk_move *move, const struct stk_conn *conn, const char *bytes,
                          size_t len)
{
    size_t size = stk_proxied_size(conn);

    if (size + len > STK_TRANSFER_BYTES_MAX)
        return 0;
    if (len > 0)
        memmove(move->buf + size, bytes, len);
    stk_proxied_save(conn, move->buf);
    return size + len;
}

/* Offers a busy connection that is out of the queue. 0; -EAGAIN: not now; -EMSGSIZE: never. */
static int move_offer(struct stk_move *move, struct stk_conn *conn, unsigned to, bool request)
{
    struct stk_server *server = move->server;
    struct stk_transfer_conn tc = {.fd = conn->src.fd,
                                   .flags = (request ? STK_TRANSFER_REQUEST : 0) |
                                            (conn->served ? STK_TRANSFER_SERVED : 0) |
                                            (conn->continued ? STK_TRANSFER_CONTINUED : 0) |
                                            (conn->trusted ? STK_TRANSFER_TRUSTED : 0),
                                   .hops = conn->hops + 1U,
                                   .endpoint = conn->endpoint->index,
                                   .since = conn->job.since,
                                   .addr_len = conn->peer.addr_len,
                                   .port = conn->peer.port,
                                   .len = conn->in_len};
    struct move_offer offer = {.conn = conn,
                               .to = to,
                               .pid = stk_peers_pid(move->peers, to),
                               .since = stk_time_mono_ns(),
                               .request = request};
    const char *bytes = conn->in;
    int r;

    _Static_assert(sizeof tc.addr >= sizeof conn->peer.addr, "an address fits");
    memcpy(tc.addr, conn->peer.addr, sizeof conn->peer.addr);
    if (conn->body != NULL) {
        bytes = move->buf;
        tc.len = move_join(move, conn);
        if (tc.len == 0)
            return -EMSGSIZE;
    }
    if (conn->proxied != NULL) {
        tc.flags |= STK_TRANSFER_PROXIED;
        tc.len = move_prefix(move, conn, bytes, tc.len);
        bytes = move->buf;
        if (tc.len == 0)
            return -EMSGSIZE;
    }
    /* The description would go on reporting to this loop, wherever its descriptors are. */
    stk_loop_del(server->loop, &conn->src);
    atomic_fetch_or(&conn->word, STK_CONN_DISARMED);
    r = stk_transfer_send(move->transfer, to, (pid_t)offer.pid, &tc, bytes, &offer.ticket);
    if (r < 0)
        return r;
    STK_ASSERT(move->offers[offer.ticket.slot].conn == NULL);
    move->offers[offer.ticket.slot] = offer;
    if (atomic_fetch_add(&move->noffers, 1) == 0 && !move->standby)
        stk_timer_set(server->loop, &move->timer, MOVE_SETTLE_MS);
    return 0;
}

/* The connection is this worker's again. From any thread. */
static void move_return(struct stk_move *move, struct move_offer *offer,
                        struct stk_lead_thread *thread)
{
    struct stk_conn *conn = stk_steal(&offer->conn);

    stk_peers_unclaim(move->peers, offer->to);
    stk_transfer_settle(move->transfer, &offer->ticket);
    atomic_fetch_sub(&move->noffers, 1);
    conn->copied = true;
    if (!offer->request) {
        stk_conn_release(conn, thread);
        return;
    }
    if (conn->hops < MOVE_HOPS_MAX)
        conn->hops++;
    stk_lead_post(move->lead, &conn->job);
    if (!thread->own)
        stk_loop_wake(move->server->loop);
}

/* The connection is another worker's; by the owner of the loop. */
static void move_forget(struct stk_move *move, struct move_offer *offer,
                        struct stk_lead_thread *thread)
{
    struct stk_scoreboard_row *row = move->server->row;
    struct stk_conn *conn = stk_steal(&offer->conn);

    stk_transfer_settle(move->transfer, &offer->ticket);
    atomic_fetch_sub(&move->noffers, 1);
    stk_scoreboard_add(
        row, offer->request ? STK_COUNTER_requests_moved_out : STK_COUNTER_connections_handed_over,
        1);
    stk_conn_leave(conn, thread);
}

/* Whether a thread here has nothing to do but this, which it has offered. */
static bool move_is_idle(const struct stk_move *move, const struct stk_conn *conn)
{
    const struct stk_scoreboard_row *row = move->server->row;
    bool mixed = stk_lead_is_mixed(move->lead);

    if ((!mixed || !conn->job.loop) && stk_lead_idle(move->lead) > 0)
        return true;
    return (!mixed || conn->job.loop) &&
           stk_lead_is_at_rest(atomic_load(&row->lead_word), atomic_load(&row->resting));
}

static bool move_is_over(const struct stk_move *move, const struct move_offer *offer, stk_nsec now)
{
    if (stk_peers_pid(move->peers, offer->to) != offer->pid)
        return true;
    if (!offer->request)
        return now - offer->since > MOVE_GIVE_NS;
    return now - offer->since > MOVE_TAKE_NS ||
           (now - offer->since > MOVE_LONG_NS && move_is_idle(move, offer->conn));
}

/* Sees what has become of the offers. Mutex held. */
static void move_settle(struct stk_move *move, struct stk_lead_thread *thread)
{
    stk_nsec now = stk_time_mono_ns();
    bool taken = false;

    for (unsigned i = 0; i < STK_TRANSFER_SLOTS && atomic_load(&move->noffers) > 0; i++) {
        struct move_offer *offer = &move->offers[i];

        if (offer->conn == NULL)
            continue;
        switch (stk_transfer_look(move->transfer, &offer->ticket)) {
        case STK_TRANSFER_OFFERED:
            if (move_is_over(move, offer, now) &&
                stk_transfer_withdraw(move->transfer, &offer->ticket))
                move_return(move, offer, thread);
            break;
        case STK_TRANSFER_TAKEN:
            if (thread->own)
                move_forget(move, offer, thread);
            else
                taken = true;
            break;
        default:
            move_return(move, offer, thread);
            break;
        }
    }
    if (taken)
        move_wake(move);
}

/* --- Requests ------------------------------------------------------------------------------- */

static bool move_may(void *arg, struct stk_job *job)
{
    const struct stk_move *move = arg;
    struct stk_conn *conn;

    if (job->run != stk_http1_job || (stk_lead_is_mixed(move->lead) && job->loop != move->loop))
        return false;
    conn = move_conn_of(job);
    if (conn->hops >= (move->kinds[move->loop].stuck < MOVE_WORSE_NS ? MOVE_HOPS : MOVE_HOPS_MAX) ||
        stk_conn_is_gone(conn) || stk_conn_has_output(conn) || conn->tls != NULL ||
        conn->in_len > STK_TRANSFER_BYTES_MAX)
        return false;
    return conn->body == NULL || stk_body_is_small(conn->body, STK_TRANSFER_BYTES_MAX);
}

/* Moves one request to a worker that was claimed for it; false: no other can be moved now. */
static bool move_request(struct stk_move *move, unsigned to, bool newest)
{
    struct stk_job *job = stk_lead_withdraw(move->lead, newest, move_may, move);
    struct stk_conn *conn;
    int r;

    if (job == NULL) {
        stk_peers_unclaim(move->peers, to);
        return false;
    }
    conn = move_conn_of(job);
    r = move_offer(move, conn, to, true);
    if (r == 0)
        return true;
    stk_peers_unclaim(move->peers, to);
    if (r == -EMSGSIZE)
        conn->hops = MOVE_HOPS_MAX;
    stk_lead_post(move->lead, job);
    return r == -EMSGSIZE;
}

/* Since when no call here has begun or ended. */
static void move_note_stuck(struct stk_move *move, stk_nsec now)
{
    for (unsigned i = 0; i < MOVE_KINDS; i++) {
        uint64_t calls = stk_lead_calls_of(move->lead, i != 0);

        if (calls != move->kinds[i].calls || move->kinds[i].calls_at == 0) {
            move->kinds[i].calls = calls;
            move->kinds[i].calls_at = now;
        }
        move->kinds[i].stuck = now - move->kinds[i].calls_at;
    }
}

/* A place for the oldest request, or (*ret_newest) for the newest; -1: there is none now. */
static int move_find(struct stk_move *move, stk_nsec now, bool *ret_newest)
{
    bool draining = atomic_load(&move->server->draining);
    bool mixed = stk_lead_is_mixed(move->lead), loop = move->loop;
    enum stk_peers_kind kind = !mixed ? STK_PEERS_ANY : loop ? STK_PEERS_LOOP : STK_PEERS_BESIDE;
    stk_nsec stuck = move->kinds[loop].stuck;
    stk_nsec oldest = stk_lead_oldest_of(move->lead, loop);
    stk_nsec waited = oldest != 0 ? now - oldest : 0;
    unsigned jobs = stk_lead_jobs_of(move->lead, loop);
    stk_nsec pace = stk_peers_own_pace(move->peers);
    int to = -1;

    *ret_newest = false;
    if (oldest == 0 || (!loop && atomic_load(&move->server->row->parked) > 0))
        return -1;
    if (waited >= MOVE_TICK_NS || stuck >= MOVE_LONG_NS || draining)
        to = stk_peers_claim_idle(move->peers, kind);
    if (kind == STK_PEERS_BESIDE) /* the pace of a worker is that of its event loop, too */
        return to;
    if (to < 0 && stuck >= MOVE_STUCK_NS)
        to = stk_peers_claim_quick(move->peers, stuck < MOVE_WORSE_NS ? jobs : UINT_MAX,
                                   stuck * MOVE_STUCK_TIMES);
    if (to < 0 && waited >= MOVE_BALANCE_NS && pace > 0 && jobs > 2) {
        *ret_newest = true;
        to = stk_peers_claim_quick(move->peers, jobs, pace * jobs / 2);
    }
    return to;
}

/* Finds requests that wait a better place. By the owner of the loop, mutex held. */
static void move_share(struct stk_move *move, stk_nsec now)
{
    bool newest;
    int to;

    stk_peers_look(move->peers, now);
    move_note_stuck(move, now);
    for (unsigned i = 0; i < MOVE_KINDS; i++) {
        move->loop = i != 0;
        while (stk_lead_jobs_of(move->lead, move->loop) > 0 &&
               (to = move_find(move, now, &newest)) >= 0) {
            if (!move_request(move, (unsigned)to, newest))
                break;
        }
    }
}

/* --- Bounds --------------------------------------------------------------------------------- */

static bool move_any(void *arg, struct stk_job *job)
{
    return job->run == stk_http1_job;
}

/* `last`: nothing more will be said. */
static void move_log_refused(struct stk_move *move, bool last)
{
    const struct stk_config *config = move->server->config;
    stk_msec now = stk_time_mono_coarse_ms(), logged = atomic_load(&move->refused_logged);
    uint64_t n;

    if ((!last && logged != 0 && now - logged < MOVE_LOG_MS) ||
        (n = atomic_exchange(&move->refused, 0)) == 0)
        return;
    stk_log_warning(
        "answered 503 to %llu request%s: all threads were busy%s and the queue was at its limit "
        "(%s); add workers or threads, find what is slow, or raise the limit if waiting is right",
        (unsigned long long)n, n == 1 ? "" : "s",
        config->max_concurrency > 0 ? ", or max-concurrency requests ran," : "",
        config->max_queue > 0 && config->max_queue_age > 0 ? "max-queue, max-queue-age"
        : config->max_queue > 0                            ? "max-queue"
                                                           : "max-queue-age");
    atomic_store(&move->refused_logged, now);
}

/* Whether the oldest request waits for longer than it may. */
static bool move_is_old(const struct stk_move *move, stk_nsec now)
{
    stk_nsec most = move->server->config->max_queue_age * STK_NSEC_PER_MSEC;
    stk_nsec oldest = most > 0 ? stk_lead_oldest(move->lead) : 0;

    return oldest != 0 && now - oldest > most;
}

/* Refuses what is beyond the bounds of the queue. By the owner of the loop. */
static void move_bound(struct stk_move *move, struct stk_lead_thread *thread, stk_nsec now)
{
    int64_t most = move->server->config->max_queue;

    for (;;) {
        /* Of several that have come at once all but the first wait for the stand-by's next look,
         * which gives them to threads that have nothing to do. */
        bool many = most > 0 && stk_lead_jobs(move->lead) > most + stk_lead_spare(move->lead);
        bool old = move_is_old(move, now);
        struct stk_job *job =
            old || many ? stk_lead_withdraw(move->lead, !old, move_any, NULL) : NULL;

        if (job == NULL)
            break;
        atomic_fetch_add_explicit(&move->refused, 1, memory_order_relaxed);
        stk_scoreboard_add(move->server->row, STK_COUNTER_requests_refused, 1);
        stk_http1_refuse_job(job, thread);
    }
}

/* What is done about requests that wait, as the owner of the loop; true: some have come just now.
 */
static bool move_look(struct stk_move *move, struct stk_lead_thread *thread)
{
    stk_nsec now = stk_time_mono_ns();
    stk_nsec oldest;

    if (now - move->looked_at >= MOVE_LOOK_NS) {
        move->looked_at = now;
        pthread_mutex_lock(&move->mutex);
        move_share(move, now);
        pthread_mutex_unlock(&move->mutex);
    }
    move_bound(move, thread, now);
    oldest = stk_lead_oldest(move->lead);
    return oldest != 0 && now - oldest < MOVE_FRESH_NS;
}

/* The thread of the event loop leads, and is to look. */
static void move_ring(struct stk_move *move)
{
    stk_nsec now = stk_time_mono_ns();

    if (now - move->rung_at < MOVE_RING_NS)
        return;
    move->rung_at = now;
    stk_lead_ring(move->lead);
}

bool stk_move_tick(struct stk_move *move, struct stk_lead_thread *standby)
{
    unsigned before = atomic_load(&move->noffers);
    bool mixed = stk_lead_is_mixed(move->lead), fresh = false;

    if (standby->own || !mixed)
        move_log_refused(move, false); /* of the tick before, or of those that were silent */
    if (before > 0) {
        pthread_mutex_lock(&move->mutex);
        move_settle(move, standby);
        pthread_mutex_unlock(&move->mutex);
        if (atomic_load(&move->noffers) < before && atomic_load(&move->server->draining))
            move_wake(move); /* there is room for more */
    }
    if (standby->own && stk_lead_jobs(move->lead) > 0) {
        fresh = move_look(move, standby);
    } else if (stk_lead_is_held(move->lead) &&
               (!mixed || stk_lead_jobs_of(move->lead, false) == 0)) {
        if (move_is_old(move, stk_time_mono_ns())) /* nothing else changes until one ends */
            move_ring(move);
    } else if (mixed && stk_lead_jobs(move->lead) > 0) {
        move_ring(move);
        fresh = true;
    }
    return fresh || atomic_load(&move->noffers) > 0;
}

void stk_move_turn(struct stk_move *move, struct stk_lead_thread *thread)
{
    if (move == NULL || !thread->own)
        return;
    if (stk_unlikely(atomic_load_explicit(&move->refused, memory_order_relaxed) > 0))
        move_log_refused(move, false);
    if (stk_lead_jobs(move->lead) > 0)
        (void)move_look(move, thread);
}

/* --- Draining ------------------------------------------------------------------------------- */

void stk_move_disinherit(struct stk_move *move)
{
    atomic_store(&move->disinherited, true);
}

bool stk_move_has_heir(struct stk_move *move)
{
    return move != NULL && (stk_carry_is_on(move->server) ||
                            (!atomic_load(&move->disinherited) && stk_peers_has_heir(move->peers)));
}

/* Mutex held; by the owner of the loop. */
static bool move_give(struct stk_move *move, struct stk_conn *conn, struct stk_lead_thread *thread)
{
    int to = -1;

    stk_conn_acquire(conn);
    if (stk_carry_is_on(move->server))
        return stk_carry_out(conn, thread);
    if (!atomic_load(&move->disinherited) && conn->in_len <= STK_TRANSFER_BYTES_MAX)
        to = stk_peers_claim_heir(move->peers);
    if (to < 0)
        return false;
    if (move_offer(move, conn, (unsigned)to, false) == 0)
        return true;
    stk_peers_unclaim(move->peers, (unsigned)to);
    return false;
}

bool stk_move_give(struct stk_move *move, struct stk_conn *conn, struct stk_lead_thread *thread)
{
    bool given;

    pthread_mutex_lock(&move->mutex);
    if (thread->own) {
        given = move_give(move, conn, thread);
    } else {
        stk_list_init(&conn->job.link);
        stk_list_append(&move->leaving, &conn->job.link);
        given = true;
    }
    pthread_mutex_unlock(&move->mutex);
    if (!thread->own)
        move_wake(move);
    else if (given && atomic_load(&move->noffers) == 1)
        stk_lead_rouse(move->lead); /* who goes on looking as long as there are offers */
    return given;
}

/* The owner of the loop does what others could not. */
static void move_work(struct stk_move *move, struct stk_lead_thread *thread)
{
    struct stk_list *node;

    pthread_mutex_lock(&move->mutex);
    move_settle(move, thread);
    while ((node = stk_list_pop(&move->leaving)) != NULL) {
        struct stk_conn *conn = stk_container_of(node, struct stk_conn, job.link);

        if (!move_give(move, conn, thread))
            stk_conn_release(conn, thread); /* the next look of the draining server finds it */
    }
    pthread_mutex_unlock(&move->mutex);
    if (atomic_load(&move->noffers) > 0)
        stk_lead_rouse(move->lead);
    stk_server_drain_more(move->server);
}

static void move_on_wake(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_move *move = stk_container_of(src, struct stk_move, wake);
    uint64_t n;

    if (read(src->fd, &n, sizeof n) < 0) {
        /* Heard already. */
    }
    move_work(move, who);
}

static void move_on_timer(struct stk_timer *timer, void *who)
{
    struct stk_move *move = stk_container_of(timer, struct stk_move, timer);

    move_work(move, who);
    if (atomic_load(&move->noffers) > 0)
        stk_timer_set(move->server->loop, timer, MOVE_SETTLE_MS);
}

/* --- The inbox ------------------------------------------------------------------------------ */

/* Serves a connection of another worker; its bytes are in the thread's read buffer. */
static void move_import(struct stk_move *move, struct stk_lead_thread *thread,
                        const struct stk_transfer_conn *tc)
{
    struct stk_server *server = move->server;
    struct stk_peer peer = {.addr_len = tc->addr_len, .port = tc->port};
    size_t len = tc->len;
    struct stk_conn *conn;
    int r;

    if (peer.addr_len > sizeof peer.addr)
        peer.addr_len = sizeof peer.addr;
    memcpy(peer.addr, tc->addr, sizeof peer.addr);
    r = stk_conn_open(server, &server->endpoints[tc->endpoint], tc->fd, &peer,
                      (tc->flags & STK_TRANSFER_TRUSTED) != 0, &conn);
    if (r < 0) {
        stk_log_error("a connection of another worker could not be taken: %s", strerror(-r));
        return;
    }
    conn->copied = true;
    conn->served = (tc->flags & STK_TRANSFER_SERVED) != 0;
    conn->continued = (tc->flags & STK_TRANSFER_CONTINUED) != 0;
    if (conn->served)
        stk_conn_set_state(conn, STK_CONN_IDLE, server->config->keepalive_timeout);
    if ((tc->flags & STK_TRANSFER_REQUEST) != 0) {
        conn->hops = (uint8_t)(tc->hops < MOVE_HOPS_MAX ? tc->hops : MOVE_HOPS_MAX);
        conn->job.since = tc->since;
        stk_scoreboard_add(server->row, STK_COUNTER_requests_moved_in, 1);
    }
    if ((tc->flags & STK_TRANSFER_PROXIED) != 0) {
        char *buf = stk_serve_thread_of(thread)->read_buf;
        size_t size = stk_proxied_restore(conn, buf, len);

        if (size == 0) {
            stk_conn_close(conn, thread, STK_CLOSE_NO_MEMORY);
            return;
        }
        len -= size;
        memmove(buf, buf + size, len);
    }
    stk_http1_import(conn, thread, len);
}

/* Serves a connection of another server, which the master had. */
static void move_import_carried(struct stk_server *server, const struct stk_transfer_conn *tc)
{
    int r = stk_carry_in(server, tc->fd, (tc->flags & STK_TRANSFER_SERVED) != 0);

    if (r < 0)
        stk_log_debug("a connection of the old server could not be taken: %s", strerror(-r));
}

/* Whether this worker can have one more. */
static bool move_is_welcome(const struct stk_move *move, const struct stk_transfer_conn *tc)
{
    const struct stk_server *server = move->server;

    return !atomic_load(&server->draining) && server->nconns < server->max_connections &&
           tc->endpoint < server->nendpoints;
}

static void move_on_inbox(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_move *move = stk_container_of(src, struct stk_move, inbox);
    struct stk_lead_thread *thread = who;
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    struct stk_server *server = move->server;

    for (int i = 0; i < MOVE_INBOX_BATCH && thread->own; i++) {
        struct stk_transfer_conn tc;
        struct stk_transfer_ticket ticket;
        int r = stk_transfer_recv(move->transfer, t->read_buf, &tc, &ticket);

        if (r == STK_TRANSFER_E_BAD)
            continue;
        if (r < 0)
            return;
        if (!move_is_welcome(move, &tc)) {
            stk_transfer_refuse(move->transfer, &ticket);
            stk_fd_close(&tc.fd);
            continue;
        }
        if (!stk_transfer_take(move->transfer, &ticket)) {
            stk_fd_close(&tc.fd);
            continue;
        }
        if ((tc.flags & STK_TRANSFER_CARRIED) != 0) {
            move_import_carried(server, &tc);
            continue;
        }
        stk_peers_unclaim(move->peers, move->row);
        move_import(move, thread, &tc);
    }
}

int stk_move_new(struct stk_move **ret_move, const struct stk_move_params *params)
{
    struct stk_move *move = stk_new0(struct stk_move);
    const struct stk_peers_params peers = {.scoreboard = params->scoreboard,
                                           .row = params->row,
                                           .max_connections = params->server->max_connections};
    int r;

    move->server = params->server;
    move->lead = params->server->lead;
    move->standby = stk_lead_standby(move->lead) != NULL;
    move->transfer = params->transfer;
    move->row = params->row;
    move->peers = stk_peers_new(&peers);
    move->buf = stk_new0_array(char, STK_TRANSFER_BYTES_MAX);
    pthread_mutex_init(&move->mutex, NULL);
    stk_list_init(&move->leaving);
    stk_timer_init(&move->timer, move_on_timer);
    atomic_store(&move->server->row->offers, 0);
    move->inbox = (struct stk_source){.fn = move_on_inbox, .fd = stk_transfer_fd(params->transfer)};
    move->wake =
        (struct stk_source){.fn = move_on_wake, .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    r = move->wake.fd < 0 ? -errno : 0;
    if (r == 0)
        r = stk_loop_add(move->server->loop, &move->wake, EPOLLIN);
    if (r == 0)
        r = stk_loop_add(move->server->loop, &move->inbox, EPOLLIN);
    if (r < 0) {
        stk_move_free(move);
        return r;
    }
    *ret_move = move;
    return 0;
}

struct stk_move *stk_move_free(struct stk_move *move)
{
    if (move == NULL)
        return NULL;
    move_log_refused(move, true);
    stk_loop_del(move->server->loop, &move->inbox);
    stk_loop_del(move->server->loop, &move->wake);
    stk_timer_stop(move->server->loop, &move->timer);
    stk_fd_close(&move->wake.fd);
    pthread_mutex_destroy(&move->mutex);
    stk_peers_free(move->peers);
    free(move->buf);
    free(move);
    return NULL;
}
