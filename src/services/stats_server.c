/*
 * Bounded in every way: at most STATS_CLIENTS readers, each with one document and STATS_CLIENT_MS
 * to take it. Beyond that number connections wait in the kernel's queue until a reader has gone.
 *
 * A client of HTTP sends a request, which nobody reads before the answer has left. Closing a socket
 * with unread input would reset the connection and destroy what the client has not read yet, so the
 * socket is shut down for writing first, and closed at the client's end, or a moment later.
 */
#include "services/stats_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "loop/loop.h"
#include "net/listen.h"

#define STATS_SERVER_MAGIC 0x53545356u
#define STATS_CLIENT_MAGIC 0x5354434cu

enum {
    STATS_CLIENTS = 16,
    STATS_CLIENT_MS = 5000,
    STATS_LINGER_MS = 1000,
    STATS_PAUSE_MS = 200, /* after running out of descriptors */
};

struct stats_listener {
    struct stk_source src;
    struct stk_stats_server *server;
};

struct stk_stats_server {
    uint32_t magic;
    struct stk_stats_server_params params;
    struct stats_listener *listeners;
    size_t nlisteners;
    struct stk_list clients;
    unsigned nclients;
    bool paused;
    struct stk_timer pause;
    struct stk_deferred deferred;
};

struct stats_client {
    uint32_t magic;
    struct stk_stats_server *server;
    struct stk_list link;
    struct stk_deferred deferred;
    struct stk_source src;
    struct stk_timer timer;
    char *text;
    size_t len, sent;
    bool lingers;
};

static int stats_accept_start(struct stk_stats_server *server)
{
    for (size_t i = 0; i < server->nlisteners; i++) {
        int r = stk_loop_add(server->params.loop, &server->listeners[i].src, EPOLLIN);

        if (r < 0)
            return r;
    }
    server->paused = false;
    return 0;
}

static void stats_accept_stop(struct stk_stats_server *server)
{
    for (size_t i = 0; i < server->nlisteners; i++)
        stk_loop_del(server->params.loop, &server->listeners[i].src);
    server->paused = true;
}

static void stats_on_pause(struct stk_timer *timer, void *who)
{
    struct stk_stats_server *server = stk_container_of(timer, struct stk_stats_server, pause);

    if (stats_accept_start(server) < 0) {
        stats_accept_stop(server);
        stk_timer_set(server->params.loop, timer, STATS_PAUSE_MS);
    }
}

static void stats_client_reap(struct stk_deferred *deferred)
{
    struct stats_client *client = stk_container_of(deferred, struct stats_client, deferred);

    STK_CHECK_MAGIC(client, STATS_CLIENT_MAGIC);
    client->magic = 0;
    free(client->text);
    free(client);
}

static void stats_client_close(struct stats_client *client)
{
    struct stk_stats_server *server = client->server;

    stk_loop_del(server->params.loop, &client->src);
    stk_timer_stop(server->params.loop, &client->timer);
    stk_fd_close(&client->src.fd);
    stk_list_remove(&client->link);
    server->nclients--;
    stk_loop_defer(server->params.loop, &client->deferred);
    if (server->paused && !stk_timer_is_set(&server->pause))
        stats_on_pause(&server->pause, NULL);
}

/* All has left: waits for the client's end. */
static void stats_client_finish(struct stats_client *client)
{
    client->lingers = true;
    if (shutdown(client->src.fd, SHUT_WR) < 0 ||
        stk_loop_mod(client->server->params.loop, &client->src, EPOLLIN) < 0) {
        stats_client_close(client);
        return;
    }
    stk_timer_set(client->server->params.loop, &client->timer, STATS_LINGER_MS);
}

/* Sends what the socket takes. */
static void stats_client_send(struct stats_client *client)
{
    while (client->sent < client->len) {
        ssize_t n = send(client->src.fd, client->text + client->sent, client->len - client->sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            stats_client_close(client);
            return;
        }
        client->sent += (size_t)n;
    }
    stats_client_finish(client);
}

/* Drops what the client has sent; false: it has closed. */
static bool stats_client_drain(struct stats_client *client)
{
    char buf[4096];
    ssize_t n;

    n = recv(client->src.fd, buf, sizeof buf, MSG_DONTWAIT);
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void stats_on_client(struct stk_source *src, uint32_t events, void *who)
{
    struct stats_client *client = stk_container_of(src, struct stats_client, src);

    STK_CHECK_MAGIC(client, STATS_CLIENT_MAGIC);
    if (!client->lingers)
        stats_client_send(client);
    else if (!stats_client_drain(client))
        stats_client_close(client);
}

static void stats_on_client_timer(struct stk_timer *timer, void *who)
{
    stats_client_close(stk_container_of(timer, struct stats_client, timer));
}

/* The document with its head. */
static int stats_make_text(struct stk_stats_server *server, struct stats_client *client)
{
    static const char form[] = "HTTP/1.0 200 OK\r\n"
                               "Content-Type: application/json\r\n"
                               "Access-Control-Allow-Origin: *\r\n"
                               "Cache-Control: no-store\r\n"
                               "Connection: close\r\n"
                               "Content-Length: %zu\r\n\r\n";
    char head[sizeof form + 24];
    char *text = NULL;
    size_t len = 0;
    int n, r = server->params.text(server->params.arg, &text, &len);

    if (r < 0)
        return r;
    if (!server->params.http) {
        client->text = text;
        client->len = len;
        return 0;
    }
    n = snprintf(head, sizeof head, form, len);
    client->text = stk_try_alloc((size_t)n + len);
    if (client->text != NULL) {
        memcpy(client->text, head, (size_t)n);
        memcpy(client->text + n, text, len);
        client->len = (size_t)n + len;
    }
    free(text);
    return client->text != NULL ? 0 : -ENOMEM;
}

static void stats_serve(struct stk_stats_server *server, int fd)
{
    struct stats_client *client = stk_new0(struct stats_client);

    client->magic = STATS_CLIENT_MAGIC;
    client->server = server;
    client->src = (struct stk_source){.fn = stats_on_client, .fd = fd};
    client->deferred.free_fn = stats_client_reap;
    stk_timer_init(&client->timer, stats_on_client_timer);
    stk_list_init(&client->link);
    stk_list_append(&server->clients, &client->link);
    server->nclients++;
    if (stats_make_text(server, client) < 0 ||
        stk_loop_add(server->params.loop, &client->src, EPOLLOUT) < 0) {
        stats_client_close(client);
        return;
    }
    stk_timer_set(server->params.loop, &client->timer, STATS_CLIENT_MS);
    stats_client_send(client);
}

static void stats_on_accept(struct stk_source *src, uint32_t events, void *who)
{
    struct stats_listener *l = stk_container_of(src, struct stats_listener, src);
    struct stk_stats_server *server = l->server;
    int fd;

    STK_CHECK_MAGIC(server, STATS_SERVER_MAGIC);
    if (server->nclients >= STATS_CLIENTS) {
        stats_accept_stop(server); /* until one has gone */
        return;
    }
    fd = accept4(src->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        stats_serve(server, fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        stats_accept_stop(server);
        stk_timer_set(server->params.loop, &server->pause, STATS_PAUSE_MS);
    }
}

/* Events of the same batch may still name the listeners, until here. */
static void stats_server_reap(struct stk_deferred *deferred)
{
    struct stk_stats_server *server = stk_container_of(deferred, struct stk_stats_server, deferred);

    STK_CHECK_MAGIC(server, STATS_SERVER_MAGIC);
    server->magic = 0;
    free(server->listeners);
    free(server);
}

int stk_stats_server_new(struct stk_stats_server **ret_server,
                         const struct stk_stats_server_params *params)
{
    struct stk_stats_server *server = stk_new0(struct stk_stats_server);
    int r;

    server->magic = STATS_SERVER_MAGIC;
    server->params = *params;
    stk_list_init(&server->clients);
    stk_timer_init(&server->pause, stats_on_pause);
    server->deferred.free_fn = stats_server_reap;
    server->nlisteners = params->nlisteners;
    server->listeners = stk_new0_array(struct stats_listener, server->nlisteners);
    for (size_t i = 0; i < server->nlisteners; i++)
        server->listeners[i] = (struct stats_listener){
            .src = {.fn = stats_on_accept, .fd = params->listeners[i]->slots[0]}, .server = server};
    r = stats_accept_start(server);
    if (r < 0) {
        stk_stats_server_free(server);
        return r;
    }
    *ret_server = server;
    return 0;
}

struct stk_stats_server *stk_stats_server_free(struct stk_stats_server *server)
{
    if (server == NULL)
        return NULL;
    STK_CHECK_MAGIC(server, STATS_SERVER_MAGIC);
    stats_accept_stop(server);
    stk_timer_stop(server->params.loop, &server->pause);
    server->paused = false; /* nobody is to listen again */
    stk_list_for_each_safe (it, &server->clients) {
        stats_client_close(stk_container_of(it, struct stats_client, link));
    }
    stk_loop_defer(server->params.loop, &server->deferred);
    return NULL;
}

void stk_stats_server_leave(struct stk_stats_server *server)
{
    if (server == NULL)
        return;
    stk_list_for_each (it, &server->clients) {
        struct stats_client *client = stk_container_of(it, struct stats_client, link);

        stk_fd_close(&client->src.fd);
    }
}
