/* A broken pipe raises no signal, whatever the application has made of SIGPIPE. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/sigpipe.h"

static volatile sig_atomic_t raised;

static void on_pipe(int sig)
{
    raised = sig;
}

static bool is_pending(void)
{
    sigset_t set;

    assert_int_equal(sigpending(&set), 0);
    return sigismember(&set, SIGPIPE) == 1;
}

static bool is_blocked(void)
{
    sigset_t set;

    assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &set), 0);
    return sigismember(&set, SIGPIPE) == 1;
}

/* Sends a byte to a socket whose other end is closed, and to one whose is not. */
static void send_both(void)
{
    int file = memfd_create("file", MFD_CLOEXEC), pair[2];
    off_t off = 0;

    assert_true(file >= 0);
    assert_int_equal(write(file, "ab", 2), 2);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(stk_sigpipe_sendfile(pair[0], file, &off, 1), 1);
    close(pair[1]);
    assert_int_equal(stk_sigpipe_sendfile(pair[0], file, &off, 1), -1);
    assert_int_equal(errno, EPIPE);
    assert_int_equal(off, 1);
    close(pair[0]);
    close(file);
}

static void test_every_disposition(void **state)
{
    static void (*const handlers[])(int) = {SIG_IGN, SIG_DFL, on_pipe};

    (void)state;
    for (size_t i = 0; i < sizeof handlers / sizeof handlers[0]; i++) {
        signal(SIGPIPE, handlers[i]);
        send_both();
        assert_false(is_pending());
        assert_false(is_blocked());
        assert_int_equal(raised, 0);
    }
}

/* One that somebody else has raised is theirs. */
static void test_a_signal_that_was_pending(void **state)
{
    sigset_t pipe;

    (void)state;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    signal(SIGPIPE, on_pipe);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &pipe, NULL), 0);
    send_both();
    assert_false(is_pending());
    assert_true(is_blocked());
    assert_int_equal(pthread_kill(pthread_self(), SIGPIPE), 0);
    send_both();
    assert_true(is_pending());
    assert_int_equal(raised, 0);
    assert_int_equal(pthread_sigmask(SIG_UNBLOCK, &pipe, NULL), 0);
    assert_int_equal(raised, SIGPIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_disposition),
        cmocka_unit_test(test_a_signal_that_was_pending),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
