/*
 * The descriptor is all that is carried: who the client is and which address it came to is asked of
 * the kernel again, because the new server may have other addresses, and trust others.
 */
#include "serve/carry.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "loop/lead.h"
#include "net/addr.h"
#include "net/cidr.h"
#include "serve/conn.h"
#include "serve/server.h"

bool stk_carry_is_on(const struct stk_server *server)
{
    return stk_unlikely(atomic_load_explicit(&server->carries, memory_order_relaxed));
}

bool stk_carry_may(const struct stk_conn *conn)
{
    return conn->state == STK_CONN_IDLE && conn->in_len == 0 && conn->tls == NULL &&
           conn->proxied == NULL;
}

bool stk_carry_stays(const struct stk_conn *conn)
{
    return conn->tls != NULL || (conn->proxied != NULL && stk_carry_is_on(conn->server));
}

bool stk_carry_out(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    struct stk_server *server = conn->server;
    int r;

    if (!stk_carry_may(conn))
        return false;
    /* The description would go on reporting to this loop, wherever its descriptors are. */
    stk_loop_del(server->loop, &conn->src);
    atomic_fetch_or(&conn->word, STK_CONN_DISARMED);
    r = server->carry(server->carry_arg, conn->src.fd, conn->served);
    if (r == 0) {
        stk_scoreboard_add(server->row, STK_COUNTER_connections_handed_over, 1);
        stk_conn_leave(conn, thread);
        return true;
    }
    if (r != -EAGAIN) {
        stk_log_warning("the new server takes no connections: %s", strerror(-r));
        atomic_store(&server->carries, false);
    }
    return false;
}

/* The endpoint whose listener has the address of a socket, or its port on all interfaces. */
static const struct stk_endpoint *carry_endpoint(const struct stk_server *server, int fd)
{
    struct stk_addr own = {.len = sizeof own.ss};
    const struct stk_endpoint *any = NULL;

    if (getsockname(fd, (struct sockaddr *)&own.ss, &own.len) < 0)
        return NULL;
    for (size_t i = 0; i < server->nlisteners; i++) {
        struct stk_addr bound = {.len = sizeof bound.ss};

        if (getsockname(server->listeners[i].src.fd, (struct sockaddr *)&bound.ss, &bound.len) < 0)
            continue;
        if (stk_addr_eq(&bound, &own))
            return server->listeners[i].endpoint;
        if (stk_addr_is_wildcard(&bound) && stk_addr_port(&bound) == stk_addr_port(&own))
            any = server->listeners[i].endpoint;
    }
    return any;
}

int stk_carry_in(struct stk_server *server, int fd, bool served)
{
    const struct stk_endpoint *endpoint = carry_endpoint(server, fd);
    struct stk_lead_thread nobody = {.own = true};
    struct stk_addr addr = {.len = sizeof addr.ss};
    struct stk_conn *conn;
    struct stk_peer peer;
    int r = 0;

    if (endpoint == NULL)
        r = -EADDRNOTAVAIL;
    else if (getpeername(fd, (struct sockaddr *)&addr.ss, &addr.len) < 0)
        r = -errno;
    if (r < 0) {
        stk_fd_close(&fd);
        return r;
    }
    memset(&peer, 0, sizeof peer);
    peer.addr_len = (uint8_t)stk_addr_format(&addr, peer.addr, &peer.port);
    r = stk_conn_open(server, endpoint, fd, &peer, stk_cidr_set_match(&server->trusted, &addr),
                      &conn);
    if (r < 0)
        return r;
    conn->copied = true; /* the master has it until it has seen that it is taken */
    conn->served = served;
    if (served)
        stk_conn_set_state(conn, STK_CONN_IDLE, server->config->keepalive_timeout);
    stk_conn_release(conn, &nobody);
    return 0;
}
