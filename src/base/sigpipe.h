/*
 * SIGPIPE for the calls that cannot be told to leave it out (sendfile() has no MSG_NOSIGNAL,
 * write() to a pipe neither). Python ignores the signal, but an application may give it back its
 * default action, as programs for the command line do, and then a client that leaves would end the
 * worker.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

struct stk_sigpipe {
    bool held;    /* it would not have been ignored */
    bool pending; /* one was there before */
    sigset_t mask;
};

/* Keeps the signal from this thread: one system call where it is ignored anyhow. */
void stk_sigpipe_hold(struct stk_sigpipe *g);
/* Ends that, and takes back what the call in between has raised; errno stays. */
void stk_sigpipe_release(struct stk_sigpipe *g, bool broken);
/* sendfile(2) without the signal. */
ssize_t stk_sigpipe_sendfile(int sock, int fd, off_t *off, size_t len);
