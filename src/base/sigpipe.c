/*
 * The signal of a broken pipe is sent to the thread that wrote, so blocking it in that thread and
 * taking it from there is enough; whatever else wants it (the application's handler, for its own
 * pipes) is not touched. The disposition is asked for each time, for the application may change it
 * at any time, and a system call more is a few per cent of a sendfile().
 */
#include "base/sigpipe.h"

#include <errno.h>
#include <sys/sendfile.h>
#include <time.h>

#include "base/assert.h"
#include "base/macros.h"

static STK_COLD void sigpipe_block(struct stk_sigpipe *g)
{
    sigset_t pipe, pending;

    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    STK_ASSERT(pthread_sigmask(SIG_BLOCK, &pipe, &g->mask) == 0);
    STK_ASSERT(sigpending(&pending) == 0);
    g->pending = sigismember(&pending, SIGPIPE) == 1;
    g->held = true;
}

void stk_sigpipe_hold(struct stk_sigpipe *g)
{
    struct sigaction now;

    g->held = false;
    STK_ASSERT(sigaction(SIGPIPE, NULL, &now) == 0);
    if (stk_unlikely(now.sa_handler != SIG_IGN))
        sigpipe_block(g);
}

static STK_COLD void sigpipe_unblock(struct stk_sigpipe *g, bool broken)
{
    const struct timespec none = {0};
    int error = errno;
    sigset_t pipe;

    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    if (broken && !g->pending)
        while (sigtimedwait(&pipe, NULL, &none) < 0 && errno == EINTR)
            continue;
    STK_ASSERT(pthread_sigmask(SIG_SETMASK, &g->mask, NULL) == 0);
    errno = error;
}

void stk_sigpipe_release(struct stk_sigpipe *g, bool broken)
{
    if (stk_unlikely(g->held))
        sigpipe_unblock(g, broken);
}

ssize_t stk_sigpipe_sendfile(int sock, int fd, off_t *off, size_t len)
{
    struct stk_sigpipe guard;
    ssize_t n;

    stk_sigpipe_hold(&guard);
    n = sendfile(sock, fd, off, len);
    stk_sigpipe_release(&guard, n < 0 && errno == EPIPE);
    return n;
}
