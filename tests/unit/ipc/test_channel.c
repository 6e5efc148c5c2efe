/* Channels: messages and descriptors arrive as sent, and what is no message is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "ipc/channel.h"

static unsigned count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static int setup(void **state)
{
    int *fds = malloc(2 * sizeof *fds);

    assert_non_null(fds);
    assert_int_equal(stk_channel_pair(fds), 0);
    *state = fds;
    return 0;
}

static int teardown(void **state)
{
    int *fds = *state;

    stk_fd_close(&fds[0]);
    stk_fd_close(&fds[1]);
    free(fds);
    return 0;
}

static void test_all_types(void **state)
{
    static const struct {
        unsigned receivers;
        bool has_fd;
    } rows[] = {
#define STK_MESSAGE(name, receivers, has_fd, description) {receivers, has_fd},
#include "ipc/message.def"
#undef STK_MESSAGE
    };
    static const enum stk_channel_role roles[] = {STK_CHANNEL_MASTER, STK_CHANNEL_WORKER,
                                                  STK_CHANNEL_TEMPLATE};
    int *fds = *state;
    unsigned before = count_fds();

    for (unsigned t = 0; t < STK_MESSAGE_TYPES; t++) {
        for (unsigned i = 0; i < 3; i++) {
            struct stk_message msg = {.type = (enum stk_message_type)t,
                                      .slot = 7,
                                      .value = INT64_MIN + t,
                                      .fd = rows[t].has_fd ? STDIN_FILENO : -1};
            struct stk_message got;
            int r;

            assert_int_equal(stk_channel_send(fds[0], &msg), 0);
            r = stk_channel_recv(fds[1], roles[i], &got);
            if (!(rows[t].receivers & roles[i])) {
                assert_int_equal(r, STK_CHANNEL_E_BAD);
                continue;
            }
            assert_int_equal(r, 0);
            assert_int_equal(got.type, t);
            assert_int_equal(got.slot, 7);
            assert_true(got.value == INT64_MIN + t);
            assert_int_equal(got.fd >= 0, rows[t].has_fd);
            if (got.fd >= 0)
                assert_true(fcntl(got.fd, F_GETFD) & FD_CLOEXEC);
            stk_fd_close(&got.fd);
        }
    }
    assert_int_equal(count_fds(), before);
    assert_string_equal(stk_channel_type_name(STK_MESSAGE_READY), "READY");
    assert_null(stk_channel_type_name(STK_MESSAGE_TYPES));
}

static void test_empty_and_eof(void **state)
{
    int *fds = *state;
    struct stk_message got = {.slot = 42};

    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_WORKER, &got), -EAGAIN);
    assert_int_equal(stk_channel_send_simple(fds[0], STK_MESSAGE_STOP, 0, 0), 0);
    stk_fd_close(&fds[0]);
    /* What was sent before the end is still heard. */
    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_WORKER, &got), 0);
    assert_int_equal(got.type, STK_MESSAGE_STOP);
    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_WORKER, &got), STK_CHANNEL_E_EOF);
    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_WORKER, &got), STK_CHANNEL_E_EOF);
    assert_int_equal(stk_channel_send_simple(fds[1], STK_MESSAGE_READY, 0, 0), -EPIPE);
}

/* A receiver that does not read blocks nobody. */
static void test_full(void **state)
{
    int *fds = *state;
    struct stk_message got;
    int sent = 0, received = 0, r;

    while ((r = stk_channel_send_simple(fds[0], STK_MESSAGE_ADOPT, (uint32_t)sent, 0)) == 0)
        sent++;
    assert_int_equal(r, -EAGAIN);
    assert_true(sent > 0);
    while (stk_channel_recv(fds[1], STK_CHANNEL_WORKER, &got) == 0)
        assert_int_equal(got.slot, received++);
    assert_int_equal(received, sent);
}

static void send_raw(int fd, const void *data, size_t len, const int *passed, size_t npassed)
{
    union {
        char buf[CMSG_SPACE(sizeof(int) * 16)];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};

    if (npassed > 0) {
        struct cmsghdr *c;

        hdr.msg_control = control.buf;
        hdr.msg_controllen = CMSG_SPACE(sizeof(int) * npassed);
        c = CMSG_FIRSTHDR(&hdr);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * npassed);
        memcpy(CMSG_DATA(c), passed, sizeof(int) * npassed);
    }
    assert_true(sendmsg(fd, &hdr, MSG_NOSIGNAL) >= 0);
}

/* Bytes of any length and kind, with any number of descriptors, leave nothing open. */
static void test_garbage(void **state)
{
    int *fds = *state;
    struct stk_message got, before;
    unsigned open_fds = count_fds();
    static const int passed[12] = {0};
    char bytes[64];

    memset(&got, 0x11, sizeof got);
    before = got;
    for (size_t len = 1; len <= sizeof bytes; len++) {
        for (size_t n = 0; n <= 12; n++) {
            memset(bytes, (int)(len * 7 + n), sizeof bytes);
            send_raw(fds[0], bytes, len, passed, n);
            assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_MASTER, &got), STK_CHANNEL_E_BAD);
            assert_memory_equal(&got, &before, sizeof got);
            assert_int_equal(count_fds(), open_fds);
        }
    }
}

/* A true frame with a wrong type, or with a descriptor too many or too few. */
static void test_wrong_frames(void **state)
{
    int *fds = *state;
    struct stk_message got;
    unsigned open_fds = count_fds();
    static const int passed[2] = {0};
    char frame[16];
    ssize_t n;
    int raw[2];

    assert_int_equal(stk_channel_send_simple(fds[0], STK_MESSAGE_READY, 1, 2), 0);
    n = recv(fds[1], frame, sizeof frame, 0);
    assert_int_equal(n, sizeof frame);
    raw[0] = fds[0];
    send_raw(raw[0], frame, sizeof frame, NULL, 0);
    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_MASTER, &got), 0);
    send_raw(raw[0], frame, sizeof frame, passed, 1);
    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_MASTER, &got), STK_CHANNEL_E_BAD);
    send_raw(raw[0], frame, sizeof frame - 1, NULL, 0);
    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_MASTER, &got), STK_CHANNEL_E_BAD);
    frame[2] = (char)STK_MESSAGE_TYPES;
    send_raw(raw[0], frame, sizeof frame, NULL, 0);
    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_MASTER, &got), STK_CHANNEL_E_BAD);
    frame[2] = (char)STK_MESSAGE_SOURCES;
    send_raw(raw[0], frame, sizeof frame, NULL, 0);
    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_MASTER, &got), STK_CHANNEL_E_BAD);
    send_raw(raw[0], frame, sizeof frame, passed, 2);
    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_MASTER, &got), STK_CHANNEL_E_BAD);
    assert_int_equal(count_fds(), open_fds);
}

static void test_sources(void **state)
{
    static const char *const paths[] = {"/a.py", "/b\nc.py", "", "/d e.py", NULL};
    static const char *const none[] = {NULL};
    int *fds = *state;
    struct stk_message got;
    char *text = NULL;
    size_t len = 0;

    assert_int_equal(stk_channel_send_sources(fds[0], paths), 0);
    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_MASTER, &got), 0);
    assert_int_equal(got.type, STK_MESSAGE_SOURCES);
    assert_int_equal(stk_channel_read_sources(got.fd, &text, &len), 0);
    assert_string_equal(text, "/a.py\n/d e.py\n");
    assert_int_equal(len, strlen(text));
    free(text);
    stk_fd_close(&got.fd);

    assert_int_equal(stk_channel_send_sources(fds[0], none), 0);
    assert_int_equal(stk_channel_recv(fds[1], STK_CHANNEL_MASTER, &got), 0);
    assert_int_equal(stk_channel_read_sources(got.fd, &text, &len), 0);
    assert_string_equal(text, "");
    free(text);
    stk_fd_close(&got.fd);
}

static void test_sources_refused(void **state)
{
    int *fds = *state;
    char *text = NULL;
    size_t len = 5;
    int big = memfd_create("big", MFD_CLOEXEC);

    assert_int_equal(stk_channel_read_sources(fds[0], &text, &len), -EINVAL);
    assert_int_equal(ftruncate(big, (off_t)1 << 40), 0);
    assert_int_equal(stk_channel_read_sources(big, &text, &len), -EFBIG);
    assert_null(text);
    assert_int_equal(len, 5);
    close(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_types, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty_and_eof, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_frames, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sources, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sources_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
