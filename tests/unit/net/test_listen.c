/* Listening sockets: who can connect, who is refused, and what the refusal says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "net/listen.h"

static const struct stk_listen_options listen_options = {.backlog = 64, .socket_mode = -1};

static void must_open(struct stk_listen_set *set, const char *spec, unsigned nslots)
{
    char *error = NULL;

    if (stk_listen_set_open(set, spec, nslots, &listen_options, &error) != 0)
        fail_msg("%s: %s", spec, error);
    assert_null(error);
}

/* Asserts that the spec is refused with a sentence that holds `says`, and that the set stays. */
static void must_fail(struct stk_listen_set *set, const char *spec, const char *says)
{
    size_t n = set->n;
    char *error = NULL;

    assert_int_equal(stk_listen_set_open(set, spec, 2, &listen_options, &error),
                     STK_LISTEN_E_FAILED);
    assert_int_equal(set->n, n);
    if (strstr(error, says) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", error, says);
    free(error);
}

static int connect_to(const struct stk_addr *addr)
{
    int fd = socket(addr->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&addr->ss, addr->len) < 0)
        stk_fd_close(&fd);
    return fd;
}

/* Accepts one connection on any slot; its index. */
static unsigned accept_any(const struct stk_listener *l)
{
    struct pollfd pfds[16];
    int fd;

    for (unsigned i = 0; i < l->nslots; i++)
        pfds[i] = (struct pollfd){.fd = l->slots[i], .events = POLLIN};
    assert_true(poll(pfds, l->nslots, 5000) > 0);
    for (unsigned i = 0; i < l->nslots; i++) {
        if (pfds[i].revents == 0)
            continue;
        fd = accept4(l->slots[i], NULL, NULL, SOCK_CLOEXEC);
        assert_true(fd >= 0);
        close(fd);
        return i;
    }
    return UINT32_MAX;
}

static char *temp_path(const char *name)
{
    return stk_mem_printf("/tmp/stk-listen-%d-%s", (int)getpid(), name);
}

static void test_slots_share_the_port(void **state)
{
    struct stk_listen_set set = {0};
    struct stk_listener *l;
    unsigned seen = 0;

    must_open(&set, "127.0.0.1:0", 4);
    assert_int_equal(set.n, 1);
    l = set.items[0];
    assert_int_equal(l->nslots, 4);
    assert_false(l->shared);
    assert_false(l->is_unix);
    assert_false(l->is_wildcard);
    assert_string_equal(l->scheme, "http");
    assert_string_equal(l->server_name, "127.0.0.1");
    assert_int_equal(atoi(l->server_port), stk_addr_port(&l->addr));
    assert_true(stk_addr_port(&l->addr) != 0);
    for (int i = 0; i < 64 && seen != 15; i++) {
        int fd = connect_to(&l->addr);

        assert_true(fd >= 0);
        seen |= 1u << accept_any(l);
        close(fd);
    }
    assert_int_equal(seen, 15);
    stk_listen_set_deinit(&set);
    assert_int_equal(set.n, 0);
}

static void test_socket_options(void **state)
{
    struct stk_listen_set set = {0};

    must_open(&set, "127.0.0.1:0", 2);
    for (unsigned i = 0; i < 2; i++) {
        int fd = set.items[0]->slots[i];
        int v = 0;
        socklen_t len = sizeof v;

        assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &len), 0);
        assert_true(v != 0);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    }
    stk_listen_set_deinit(&set);
}

/* A second server of the same user must not share the port, although SO_REUSEPORT would let it. */
static void test_port_in_use(void **state)
{
    struct stk_listen_set set = {0}, other = {0};
    char *spec, *pid;
    int pipe_fds[2], status;
    pid_t child;
    char byte;

    must_open(&set, "127.0.0.1:0", 2);
    spec = stk_mem_printf("127.0.0.1:%s", set.items[0]->server_port);
    assert_int_equal(pipe(pipe_fds), 0);
    child = fork();
    if (child == 0) {
        close(pipe_fds[1]);
        _exit(read(pipe_fds[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(pipe_fds[0]);
    /* From here on the port is the child's: it inherited the sockets. */
    stk_listen_set_deinit(&set);
    must_fail(&other, spec, "in use by another process");
    pid = stk_mem_printf("(%d, ", (int)child);
    must_fail(&other, spec, pid);
    free(pid);
    close(pipe_fds[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    must_open(&other, spec, 2);
    stk_listen_set_deinit(&other);
    free(spec);
}

static void test_own_port_twice(void **state)
{
    struct stk_listen_set set = {0};
    char *spec, *wild;

    must_open(&set, "127.0.0.1:0", 2);
    spec = stk_mem_printf("http://127.0.0.1:%s", set.items[0]->server_port);
    wild = stk_mem_printf("0.0.0.0:%s", set.items[0]->server_port);
    must_open(&set, spec, 2);
    assert_int_equal(set.n, 1);
    assert_int_equal(set.nwarnings, 1);
    assert_non_null(strstr(set.warnings[0], "already"));
    must_fail(&set, wild, "this server's own");
    stk_listen_set_deinit(&set);
    free(spec);
    free(wild);
}

static void test_wildcard(void **state)
{
    struct stk_listen_set set = {0};
    struct sockaddr_in *in4;
    struct stk_addr addr = {0};
    char *spec;
    int fd;

    must_open(&set, ":0", 2);
    assert_int_equal(set.n, 1);
    assert_true(set.items[0]->is_wildcard);
    assert_true(strlen(set.items[0]->server_name) > 0);
    /* IPv4 reaches it, whichever family it is. */
    in4 = (struct sockaddr_in *)&addr.ss;
    in4->sin_family = AF_INET;
    in4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    in4->sin_port = htons(stk_addr_port(&set.items[0]->addr));
    addr.len = sizeof *in4;
    fd = connect_to(&addr);
    assert_true(fd >= 0);
    accept_any(set.items[0]);
    close(fd);
    /* What it covers is no error. */
    spec = stk_mem_printf("127.0.0.1:%s", set.items[0]->server_port);
    must_open(&set, spec, 2);
    assert_int_equal(set.n, 1);
    free(spec);
    stk_listen_set_deinit(&set);
}

/* Both of the usual pair, in the order that leaves IPv4 to the first. */
static void test_v4_then_v6_wildcard(void **state)
{
    struct stk_listen_set set = {0};
    char *spec;
    int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (probe < 0)
        skip();
    close(probe);
    must_open(&set, "0.0.0.0:0", 2);
    spec = stk_mem_printf("[::]:%s", set.items[0]->server_port);
    must_open(&set, spec, 2);
    assert_int_equal(set.n, 2);
    free(spec);
    stk_listen_set_deinit(&set);
}

static void test_name_with_several_addresses(void **state)
{
    struct stk_listen_set set = {0};

    must_open(&set, "localhost:0", 2);
    assert_true(set.n >= 1);
    for (size_t i = 0; i < set.n; i++) {
        assert_string_equal(set.items[i]->server_name, "localhost");
        assert_string_equal(set.items[i]->server_port, set.items[0]->server_port);
        close(connect_to(&set.items[i]->addr));
        accept_any(set.items[i]);
    }
    stk_listen_set_deinit(&set);
}

static void test_refused_addresses(void **state)
{
    struct stk_listen_set set = {0};

    must_fail(&set, "192.0.2.1:24003", "not an address of this machine");
    must_fail(&set, "127.0.0.1:x", "port");
    must_fail(&set, "nowhere.invalid:24003", "no address");
    assert_null(set.items);
    stk_listen_set_deinit(&set);
}

static void test_privileged_port(void **state)
{
    struct stk_listen_set set = {0};
    int status;
    pid_t child = fork();

    if (child == 0) {
        char *error = NULL;
        bool ok;

        if (getuid() == 0 && setuid(65534) != 0)
            _exit(77);
        ok = stk_listen_set_open(&set, "127.0.0.1:81", 1, &listen_options, &error) != 0 &&
             strstr(error, "ip_unprivileged_port_start=81") != NULL;
        if (error == NULL)
            _exit(77); /* this machine lets everybody bind it */
        _exit(ok ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_backlog_warning(void **state)
{
    struct stk_listen_options options = listen_options;
    struct stk_listen_set set = {0};
    char *error = NULL;

    options.backlog = 1 << 30;
    assert_int_equal(stk_listen_set_open(&set, "127.0.0.1:0", 2, &options, &error), 0);
    assert_int_equal(stk_listen_set_open(&set, "127.0.0.1:0", 2, &options, &error), 0);
    assert_int_equal(set.nwarnings, 1);
    assert_non_null(strstr(set.warnings[0], "somaxconn"));
    stk_listen_set_deinit(&set);
}

static void test_unix_socket(void **state)
{
    struct stk_listen_set set = {0};
    char *path = temp_path("a");
    char *spec = stk_mem_printf("unix:%s?mode=640", path);
    struct stat st;
    int fd;

    must_open(&set, spec, 3);
    assert_true(set.items[0]->shared);
    assert_true(set.items[0]->is_unix);
    assert_string_equal(set.items[0]->server_name, "localhost");
    assert_string_equal(set.items[0]->server_port, "");
    assert_int_equal(set.items[0]->slots[0], set.items[0]->slots[2]);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    fd = connect_to(&set.items[0]->addr);
    assert_true(fd >= 0);
    close(fd);
    stk_listen_set_close(&set);
    assert_int_equal(stat(path, &st), -1);
    stk_listen_set_close(&set);
    assert_int_equal(set.items[0]->slots[2], -1);
    stk_listen_set_deinit(&set);
    free(spec);
    free(path);
}

static void test_unix_options_by_default(void **state)
{
    struct stk_listen_options options = {.backlog = 8, .socket_mode = 0600};
    struct stk_listen_set set = {0};
    char *path = temp_path("b");
    char *owner = stk_mem_printf("%u:%u", getuid(), getgid());
    char *error = NULL;
    struct stat st;

    options.socket_owner = owner;
    assert_int_equal(stk_listen_set_open(&set, path, 1, &options, &error), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    stk_listen_set_deinit(&set);
    options.socket_owner = "no-such-user-here";
    assert_int_equal(stk_listen_set_open(&set, path, 1, &options, &error), STK_LISTEN_E_FAILED);
    assert_non_null(strstr(error, "no-such-user-here"));
    free(error);
    /* The half-made socket is gone. */
    assert_int_equal(stat(path, &st), -1);
    free(owner);
    free(path);
}

static void test_unix_stale_file(void **state)
{
    struct stk_listen_set set = {0};
    char *path = temp_path("c");
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    close(fd);
    must_open(&set, path, 1);
    stk_listen_set_deinit(&set);
    free(path);
}

static void test_unix_live_server(void **state)
{
    struct stk_listen_set set = {0}, other = {0};
    char *path = temp_path("d");

    must_open(&set, path, 1);
    must_fail(&other, path, "in use by another server");
    /* The living one has lost nothing. */
    close(connect_to(&set.items[0]->addr));
    accept_any(set.items[0]);
    stk_listen_set_deinit(&set);
    free(path);
}

static void test_unix_not_a_socket(void **state)
{
    struct stk_listen_set set = {0};
    char *path = temp_path("e");
    struct stat st;
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    close(fd);
    must_fail(&set, path, "not a socket");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(unlink(path), 0);
    must_fail(&set, "unix:/nonexistent/folder/x", "create its folder");
    free(path);
}

/* A child that ends, or a newer server's file at the same path, costs nobody the socket. */
static void test_unix_file_of_others_stays(void **state)
{
    struct stk_listen_set set = {0}, newer = {0};
    char *path = temp_path("f");
    struct stat st;
    int status;
    pid_t child;

    must_open(&set, path, 1);
    child = fork();
    if (child == 0) {
        stk_listen_set_deinit(&set);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(unlink(path), 0);
    must_open(&newer, path, 1);
    stk_listen_set_deinit(&set);
    assert_int_equal(stat(path, &st), 0);
    stk_listen_set_deinit(&newer);
    assert_int_equal(stat(path, &st), -1);
    free(path);
}

static void test_abstract(void **state)
{
    struct stk_listen_set set = {0}, other = {0};
    char *spec = stk_mem_printf("unix:@stk-listen-%d", (int)getpid());
    int fd;

    must_open(&set, spec, 2);
    assert_string_equal(set.items[0]->display, spec);
    must_fail(&other, spec, "in use");
    fd = connect_to(&set.items[0]->addr);
    assert_true(fd >= 0);
    close(fd);
    stk_listen_set_deinit(&set);
    free(spec);
}

static void test_fd(void **state)
{
    struct stk_listen_set set = {0}, from = {0};
    char *spec;
    int fd;

    must_open(&from, "127.0.0.1:0", 1);
    fd = dup(from.items[0]->slots[0]);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_SETFD, 0), 0);
    spec = stk_mem_printf("fd://%d", fd);
    must_open(&set, spec, 2);
    assert_true(set.items[0]->shared);
    assert_string_equal(set.items[0]->server_port, from.items[0]->server_port);
    assert_string_equal(set.items[0]->display, from.items[0]->display);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    must_fail(&set, spec, "another --bind");
    stk_listen_set_deinit(&set);
    stk_listen_set_deinit(&from);
    must_fail(&set, spec, "not open");
    free(spec);
}

static void test_fd_refused(void **state)
{
    struct stk_listen_set set = {0};
    int pair[2], stream, dgram, file;
    char spec[32];

    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair), 0);
    stream = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    dgram = pair[0];
    file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    snprintf(spec, sizeof spec, "fd://%d", stream);
    must_fail(&set, spec, "does not listen");
    snprintf(spec, sizeof spec, "fd://%d", dgram);
    must_fail(&set, spec, "stream");
    snprintf(spec, sizeof spec, "fd://%d", file);
    must_fail(&set, spec, "not a socket");
    close(stream);
    close(pair[0]);
    close(pair[1]);
    close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_share_the_port),
        cmocka_unit_test(test_socket_options),
        cmocka_unit_test(test_port_in_use),
        cmocka_unit_test(test_own_port_twice),
        cmocka_unit_test(test_wildcard),
        cmocka_unit_test(test_v4_then_v6_wildcard),
        cmocka_unit_test(test_name_with_several_addresses),
        cmocka_unit_test(test_refused_addresses),
        cmocka_unit_test(test_privileged_port),
        cmocka_unit_test(test_backlog_warning),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_unix_options_by_default),
        cmocka_unit_test(test_unix_stale_file),
        cmocka_unit_test(test_unix_live_server),
        cmocka_unit_test(test_unix_not_a_socket),
        cmocka_unit_test(test_unix_file_of_others_stays),
        cmocka_unit_test(test_abstract),
        cmocka_unit_test(test_fd),
        cmocka_unit_test(test_fd_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
