/*
 * A pthread_atfork handler that closes, in the child, every connection, listening socket, the epoll
 * set and the channel. It runs for fork() by whatever means (os.fork, multiprocessing); exec closes
 * them anyhow. Connections are found by the byte map of server.h, because the list may be
 * half-changed by a thread that does not exist in the child.
 */
#include "worker/fork_guard.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

#include "ipc/heritage.h"
#include "ipc/transfer.h"
#include "net/listen.h"
#include "serve/server.h"

static struct {
    struct stk_server *server;
    const struct stk_heritage *heritage;
    int loop_fd, term_fd;
    void (*handlers[2])(int);
    bool registered;
} fork_guard;

/* Signals that the worker handles and the application does not, as in a program of its own. */
static void fork_guard_reset_signals(void)
{
    for (int sig = 1; sig < NSIG; sig++) {
        struct sigaction sa;

        if (sigaction(sig, NULL, &sa) == 0 &&
            (sa.sa_handler == fork_guard.handlers[0] || sa.sa_handler == fork_guard.handlers[1]))
            signal(sig, SIG_DFL);
    }
}

static void fork_guard_child(void)
{
    struct stk_server *server = fork_guard.server;
    const struct stk_heritage *h = fork_guard.heritage;

    if (server == NULL)
        return;
    fork_guard.server = NULL;
    fork_guard_reset_signals();
    for (size_t fd = 0; fd < server->conn_fds_len; fd++) {
        if (server->conn_fds[fd])
            close((int)fd);
    }
    for (size_t i = 0; i < h->nlisteners; i++) {
        for (unsigned s = 0; s < (h->listeners[i]->shared ? 1 : h->listeners[i]->nslots); s++) {
            if (h->listeners[i]->slots[s] >= 0)
                close(h->listeners[i]->slots[s]);
        }
    }
    if (h->transfer != NULL)
        stk_transfer_close(h->transfer);
    close(h->channel);
    close(fork_guard.loop_fd);
    close(fork_guard.term_fd);
}

void stk_fork_guard_set(struct stk_server *server, const struct stk_heritage *heritage, int loop_fd,
                        int term_fd, void (*const handlers[2])(int))
{
    fork_guard.handlers[0] = handlers[0];
    fork_guard.handlers[1] = handlers[1];
    fork_guard.heritage = heritage;
    fork_guard.loop_fd = loop_fd;
    fork_guard.term_fd = term_fd;
    fork_guard.server = server;
    if (!fork_guard.registered)
        fork_guard.registered = pthread_atfork(NULL, NULL, fork_guard_child) == 0;
}

void stk_fork_guard_clear(void)
{
    fork_guard.server = NULL;
}
