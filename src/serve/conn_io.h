/*
 * Bytes of a connection, in and out: the one place that knows whether there is TLS between. Nothing
 * else calls a socket to read or write what a client sends or gets. As the system calls of these
 * names on a non-blocking socket: -1 and errno.
 */
#pragma once

#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/macros.h"
#include "base/sys.h"
#include "net/tls.h"
#include "serve/conn.h"

static inline ssize_t stk_conn_io_recv(struct stk_conn *conn, void *buf, size_t len)
{
    if (stk_likely(conn->tls == NULL))
        return stk_sys_recv(conn->src.fd, buf, len, MSG_DONTWAIT);
    return stk_tls_recv(conn->tls, buf, len);
}

/* How many bytes a recv would find for sure; 0: unknown, or none. */
static inline size_t stk_conn_io_ready(const struct stk_conn *conn)
{
    int n = 0;

    return conn->tls == NULL && ioctl(conn->src.fd, FIONREAD, &n) == 0 && n > 0 ? (size_t)n : 0;
}

enum { STK_CONN_IO_MAX = 1024 }; /* pieces that the kernel takes at once: IOV_MAX */

/*
 * Of more pieces than STK_CONN_IO_MAX the first are sent. What TLS takes has been encrypted: it may
 * still lie there, which is output that the connection has (stk_conn_has_queued).
 */
static inline ssize_t stk_conn_io_sendmsg(struct stk_conn *conn, struct iovec *iov, int n)
{
    if (stk_likely(conn->tls == NULL)) {
        struct msghdr msg = {.msg_iov = iov,
                             .msg_iovlen = (size_t)(n < STK_CONN_IO_MAX ? n : STK_CONN_IO_MAX)};

        if (n == 1)
            return stk_sys_send(conn->src.fd, iov->iov_base, iov->iov_len,
                                MSG_NOSIGNAL | MSG_DONTWAIT);
        return stk_sys_sendmsg(conn->src.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    return stk_tls_sendmsg(conn->tls, iov, n);
}

/* Whether there is input that no event tells of: TLS has it already. */
static inline bool stk_conn_io_hides(const struct stk_conn *conn)
{
    return stk_unlikely(conn->tls != NULL) && stk_tls_has_input(conn->tls);
}

/* Ends the sending direction, with TLS's own end before it. As shutdown(). */
static inline int stk_conn_io_end(struct stk_conn *conn)
{
    if (stk_unlikely(conn->tls != NULL))
        stk_tls_end(conn->tls);
    return shutdown(conn->src.fd, SHUT_WR);
}
