/*
 * Gathering. Bytes for one connection are put together in the thread's output buffer: the head and
 * a small body, the answers of pipelined requests, the fast blocks of a stream. While the
 * application runs with bytes lying there, the stand-by thread sends them after a tick, so that
 * nothing waits for the next block (PEP 3333 allows transmission in parallel with the application).
 * Without a stand-by nothing lies.
 *
 * What may be sent so is the front of the buffer, up to gather_len: behind it the thread writes the
 * head of its next response without a lock. The mutex is only taken by a thread that has
 * `gathering` set, which the plain request never does.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/assert.h"
#include "base/sys.h"
#include "loop/lead.h"
#include "serve/compress.h"
#include "serve/conn.h"
#include "serve/request.h"
#include "serve/server.h"
#include "serve/websocket.h"

enum {
    GATHER_AGE_NS = 200 * 1000,
};

/* Removes what has been sent from the front of the buffer. Mutex held. */
static void gather_compact(struct stk_serve_thread *t)
{
    size_t sent = t->gather_sent;

    if (sent == 0)
        return;
    t->out.len -= sent;
    t->out.mark -= t->out.mark < sent ? t->out.mark : sent;
    t->gather_len -= sent;
    t->gather_sent = 0;
    memmove(t->out.buf, t->out.buf + sent, t->out.len);
}

void stk_gather_begin(struct stk_serve_thread *t, struct stk_conn *conn)
{
    if (t->gathering)
        return;
    pthread_mutex_lock(&t->gather_mutex);
    t->gathering = true;
    t->gather_conn = conn;
    t->gather_len = t->out.len;
    t->gather_sent = 0;
    t->gather_since = stk_time_mono_ns();
    t->gather_blocked = false;
    pthread_mutex_unlock(&t->gather_mutex);
    atomic_fetch_add(&t->server->gathering, 1);
    stk_lead_rouse(t->lead_thread->lead);
}

void stk_gather_begin_coder(struct stk_serve_thread *t, struct stk_conn *conn,
                            struct stk_coder *coder)
{
    if (t->gathering)
        pthread_mutex_lock(&t->gather_mutex);
    t->gather_coder = coder;
    if (t->gathering)
        pthread_mutex_unlock(&t->gather_mutex);
    stk_gather_begin(t, conn);
}

void stk_gather_end(struct stk_serve_thread *t)
{
    if (!t->gathering)
        return;
    pthread_mutex_lock(&t->gather_mutex);
    t->gathering = false;
    t->gather_coder = NULL;
    gather_compact(t);
    pthread_mutex_unlock(&t->gather_mutex);
    atomic_fetch_sub(&t->server->gathering, 1);
}

int stk_gather_send(struct stk_serve_thread *t, struct stk_conn *conn, struct iovec *more, int n)
{
    struct iovec iov[4];
    int count = 0;
    size_t total;
    int r;

    STK_ASSERT(n <= 3);
    stk_gather_end(t);
    total = t->out.len;
    if (t->out.len > 0)
        iov[count++] = (struct iovec){t->out.buf, t->out.len};
    for (int i = 0; i < n; i++) {
        if (more[i].iov_len > 0)
            iov[count++] = more[i];
        total += more[i].iov_len;
    }
    if (count == 0)
        return 0;
    r = stk_conn_send(conn, iov, count);
    if (r == 0)
        t->bytes_out += total;
    if (r != -EAGAIN)
        t->out.len = 0;
    return r;
}

int stk_gather_append(struct stk_serve_thread *t, struct stk_conn *conn, struct iovec *iov, int n)
{
    size_t total = 0;
    bool locked = t->gathering;

    for (int i = 0; i < n; i++)
        total += iov[i].iov_len;
    if (locked) {
        pthread_mutex_lock(&t->gather_mutex);
        gather_compact(t);
    }
    if (t->out.len + total > t->out.cap) {
        if (locked)
            pthread_mutex_unlock(&t->gather_mutex);
        return stk_gather_send(t, conn, iov, n);
    }
    for (int i = 0; i < n; i++) {
        memcpy(t->out.buf + t->out.len, iov[i].iov_base, iov[i].iov_len);
        t->out.len += iov[i].iov_len;
    }
    if (locked) {
        if (t->gather_len == 0)
            t->gather_since = stk_time_mono_ns();
        t->gather_len = t->out.len;
        pthread_mutex_unlock(&t->gather_mutex);
    }
    return 0;
}

/* The bytes in the thread's buffer; false: the connection did not take them. */
static bool gather_flush_out(struct stk_serve_thread *t, uint64_t *sent)
{
    struct iovec iov = {t->out.buf + t->gather_sent, t->gather_len - t->gather_sent};

    if (iov.iov_len == 0)
        return true;
    if (stk_conn_send(t->gather_conn, &iov, 1) != 0)
        return false;
    t->gather_sent = t->gather_len;
    *sent += iov.iov_len;
    return true;
}

/*
 * Sends what one thread has gathered, by the stand-by, which acts as the thread while it holds the
 * mutex: what the socket does not take goes to the queue. True while the thread gathers.
 */
static bool gather_flush(struct stk_serve_thread *t, stk_nsec now, uint64_t *sent)
{
    bool left;

    if (pthread_mutex_trylock(&t->gather_mutex) != 0)
        return true; /* it is at it, and may code for a while */
    left = t->gathering;
    if (left && !t->gather_blocked && now - t->gather_since >= GATHER_AGE_NS &&
        (!gather_flush_out(t, sent) ||
         (t->gather_coder != NULL && stk_encode_gathered(t, sent) != 0)))
        t->gather_blocked = true; /* the thread itself finds out at its next send */
    pthread_mutex_unlock(&t->gather_mutex);
    return left;
}

bool stk_server_flush_gathered(struct stk_server *server)
{
    stk_nsec now;
    bool left = false;

    if (atomic_load(&server->gathering) == 0 && !stk_websocket_has_held(server))
        return false;
    now = stk_time_mono_ns();
    left = stk_websocket_flush_held(server, now);
    for (unsigned i = 0; i < server->nthreads; i++)
        left = gather_flush(&server->threads[i], now,
                            &server->threads[server->nthreads - 1].bytes_out) ||
               left;
    return left;
}
