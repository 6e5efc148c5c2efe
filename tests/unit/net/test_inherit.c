/* Listening sockets that come from elsewhere: activation, and the text between two servers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "net/inherit.h"
#include "net/listen.h"

static void open_with(struct stk_listen_set *set, const char *spec, unsigned nslots,
                      struct stk_inherit *inherit)
{
    const struct stk_listen_options options = {
        .backlog = 64, .socket_mode = -1, .inherit = inherit};
    char *error = NULL;

    if (stk_listen_set_open(set, spec, nslots, &options, &error) != 0)
        fail_msg("%s: %s", spec, error);
}

/* The sockets of a set as another process would find them: copies, by their text. */
static void hand_over(const struct stk_listen_set *set, struct stk_inherit *ret_inherit)
{
    for (size_t i = 0; i < set->n; i++) {
        char *text = stk_inherit_text(set, i);

        assert_non_null(text);
        assert_null(strchr(text, ' '));
        assert_int_equal(stk_inherit_add_text(ret_inherit, text), 0);
        free(text);
    }
    /* This process has them already; of the other they are copies. */
    for (size_t i = 0; i < ret_inherit->n; i++)
        for (size_t j = 0; j < ret_inherit->groups[i].n; j++) {
            ret_inherit->groups[i].fds[j] =
                fcntl(ret_inherit->groups[i].fds[j], F_DUPFD_CLOEXEC, 0);
            assert_true(ret_inherit->groups[i].fds[j] >= 0);
        }
}

static unsigned count_connections(const struct stk_listener *l, unsigned *ret_slots)
{
    unsigned n = 0;

    *ret_slots = 0;
    for (unsigned i = 0; i < l->nslots; i++) {
        int fd;

        while ((fd = accept4(l->slots[i], NULL, NULL, SOCK_CLOEXEC)) >= 0) {
            *ret_slots |= 1u << i;
            n++;
            close(fd);
        }
    }
    return n;
}

static void connect_many(const struct stk_listener *l, int fds[], unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        fds[i] = socket(l->addr.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], (const struct sockaddr *)&l->addr.ss, l->addr.len), 0);
    }
}

static void close_many(int fds[], unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
}

/* Whatever the two numbers of slots are, what is queued before and after is found in the new set.
 */
static void check_slots(unsigned before, unsigned after)
{
    struct stk_listen_set old = {0}, new = {0};
    struct stk_inherit inherit = {0};
    int early[32], late[32];
    unsigned slots;

    open_with(&old, "127.0.0.1:0", before, NULL);
    hand_over(&old, &inherit);
    connect_many(old.items[0], early, 32);
    open_with(&new, "127.0.0.1:0", after, &inherit);
    assert_int_equal(new.n, 1);
    assert_true(stk_addr_eq(&new.items[0]->addr, &old.items[0]->addr));
    assert_int_equal(new.items[0]->nslots, before > after ? before : after);
    assert_true(inherit.groups[0].taken);
    assert_int_equal(new.nwarnings, old.nwarnings);
    stk_inherit_deinit(&inherit);
    stk_listen_set_deinit(&old);
    connect_many(new.items[0], late, 32);
    assert_int_equal(count_connections(new.items[0], &slots), 64);
    if (after > 1)
        assert_true((slots & (slots - 1)) != 0); /* more than one */
    close_many(early, 32);
    close_many(late, 32);
    stk_listen_set_deinit(&new);
}

static void test_numbers_of_slots(void **state)
{
    check_slots(1, 1);
    check_slots(4, 4);
    check_slots(2, 5);
    check_slots(1, 3);
    check_slots(5, 2);
    check_slots(4, 1);
}

/* Another port is another address, and what nobody takes is closed. */
static void test_another_address(void **state)
{
    struct stk_listen_set old = {0}, new = {0};
    struct stk_inherit inherit = {0};
    int fd;

    open_with(&old, "127.0.0.1:0", 2, NULL);
    hand_over(&old, &inherit);
    fd = inherit.groups[0].fds[0];
    open_with(&new, "127.0.0.2:0", 2, &inherit);
    assert_false(inherit.groups[0].taken);
    stk_inherit_deinit(&inherit);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    stk_listen_set_deinit(&old);
    stk_listen_set_deinit(&new);
}

/* The file is whose who says so last. */
static void test_unix_socket(void **state)
{
    STK_CLEANUP(stk_mem_freep)
    char *path = stk_mem_printf("/tmp/stk-inherit-%d a:b,c%%", (int)getpid());
    STK_CLEANUP(stk_mem_freep) char *spec = stk_mem_printf("unix:%s", path);
    struct stk_listen_set old = {0}, new = {0};
    struct stk_inherit inherit = {0};
    struct stat st;

    open_with(&old, spec, 2, NULL);
    hand_over(&old, &inherit);
    assert_string_equal(inherit.groups[0].spec, spec);
    open_with(&new, spec, 3, &inherit);
    assert_true(new.items[0]->shared);
    assert_int_equal(new.items[0]->slots[2], new.items[0]->slots[0]);
    stk_inherit_deinit(&inherit);
    /* The new one is not the owner yet. */
    stk_listen_set_own(&old, false);
    stk_listen_set_deinit(&old);
    assert_int_equal(stat(path, &st), 0);
    stk_listen_set_own(&new, true);
    stk_listen_set_deinit(&new);
    assert_int_equal(stat(path, &st), -1);
}

static void test_bad_texts(void **state)
{
    static const char *const texts[] = {"", "a", ":1", "a:x", "a:1,,2", "a:-1", "a:99999999999"};
    struct stk_inherit inherit = {0};

    for (size_t i = 0; i < STK_ARRAY_LEN(texts); i++)
        assert_int_equal(stk_inherit_add_text(&inherit, texts[i]), -22);
    stk_inherit_deinit(&inherit);
    /* What is no listening socket, or not open, is left out. */
    assert_int_equal(stk_inherit_add_text(&inherit, "a:0,1,2,900"), 0);
    assert_int_equal(inherit.groups[0].n, 0);
    assert_null(stk_inherit_find_name(&inherit, "a"));
    stk_inherit_deinit(&inherit);
}

/* In a child, whose descriptors 3 and on are free to be replaced. */
static void activated(const char *names, void (*check)(struct stk_inherit *inherit))
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        struct stk_listen_set set = {0};
        struct stk_inherit inherit = {0};
        char number[16];
        int fds[2];

        open_with(&set, "127.0.0.1:0", 2, NULL);
        fds[0] = fcntl(set.items[0]->slots[0], F_DUPFD_CLOEXEC, 100);
        fds[1] = fcntl(set.items[0]->slots[1], F_DUPFD_CLOEXEC, 100);
        for (int i = 0; i < 2; i++)
            if (dup2(fds[i], STK_INHERIT_FIRST_FD + i) < 0)
                _exit(90);
        snprintf(number, sizeof number, "%d", (int)getpid());
        if (stk_inherit_add_activated(&inherit, number, "2", names) != 0 || inherit.n != 2)
            _exit(91);
        if ((fcntl(STK_INHERIT_FIRST_FD, F_GETFD) & FD_CLOEXEC) == 0)
            _exit(92);
        check(&inherit);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void check_names(struct stk_inherit *inherit)
{
    struct stk_listen_set set = {0};

    if (strcmp(inherit->groups[0].spec, "fd://web") != 0 ||
        strcmp(inherit->groups[1].spec, "fd://admin") != 0)
        _exit(80);
    if (stk_inherit_find_name(inherit, "admin") != &inherit->groups[1])
        _exit(81);
    open_with(&set, "fd://admin", 4, inherit);
    if (set.items[0]->slots[3] != STK_INHERIT_FIRST_FD + 1 || !inherit->groups[1].taken ||
        inherit->groups[0].taken)
        _exit(82);
}

static void check_numbers(struct stk_inherit *inherit)
{
    if (strcmp(inherit->groups[0].spec, "fd://web") != 0 ||
        strcmp(inherit->groups[1].spec, "fd://4") != 0)
        _exit(80);
}

static void test_activation(void **state)
{
    struct stk_inherit inherit = {0};
    char number[16];

    activated("web:admin", check_names);
    activated("web:web", check_numbers);
    activated("web", check_numbers);
    activated("web:12", check_numbers);
    activated("web:unknown", check_numbers);
    /* For somebody else, or nothing. */
    assert_int_equal(stk_inherit_add_activated(&inherit, "1", "1", NULL), 0);
    assert_int_equal(stk_inherit_add_activated(&inherit, NULL, "1", NULL), 0);
    assert_int_equal(stk_inherit_add_activated(&inherit, "x", "1", NULL), 0);
    snprintf(number, sizeof number, "%d", (int)getpid());
    assert_int_equal(stk_inherit_add_activated(&inherit, number, NULL, NULL), 0);
    assert_int_equal(stk_inherit_add_activated(&inherit, number, "0", NULL), 0);
    assert_int_equal(stk_inherit_add_activated(&inherit, number, "-1", NULL), -22);
    assert_int_equal(inherit.n, 0);
}

static void test_unknown_name(void **state)
{
    const struct stk_listen_options options = {.backlog = 64, .socket_mode = -1};
    struct stk_listen_set set = {0};
    char *error = NULL;

    assert_int_equal(stk_listen_set_open(&set, "fd://web", 1, &options, &error),
                     STK_LISTEN_E_FAILED);
    assert_non_null(strstr(error, "FileDescriptorName=web"));
    free(error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_of_slots), cmocka_unit_test(test_another_address),
        cmocka_unit_test(test_unix_socket),      cmocka_unit_test(test_bad_texts),
        cmocka_unit_test(test_activation),       cmocka_unit_test(test_unknown_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
