/*
 * Offers of connections: taken once, whoever dies or gives up. The source is included, so that
 * messages can be forged; a second struct with copies of the descriptors plays another worker in
 * this process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>

/* NOLINTNEXTLINE(bugprone-suspicious-include) */
#include "ipc/transfer.c"

enum { ROWS = 3 };

struct pair {
    struct stk_transfer *a, *b; /* owners of row 0 and 1 */
    int client, server;         /* a connection */
    char buf[STK_TRANSFER_BYTES_MAX];
};

static int dup_fd(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    assert_true(copy >= 0);
    return copy;
}

/* The same rows and inboxes, for another owner. */
static struct stk_transfer *another(const struct stk_transfer *t)
{
    struct stk_transfer *copy = stk_new0(struct stk_transfer);

    *copy = *t;
    copy->readers = stk_new0_array(int, t->nrows);
    copy->writers = stk_new0_array(int, t->nrows);
    for (unsigned i = 0; i < t->nrows; i++) {
        copy->readers[i] = t->readers[i] >= 0 ? dup_fd(t->readers[i]) : -1;
        copy->writers[i] = dup_fd(t->writers[i]);
    }
    return copy;
}

static void another_free(struct stk_transfer *copy)
{
    copy->rows = NULL;
    stk_transfer_free(copy);
}

static void pair_open(struct pair *p)
{
    int fds[2];

    assert_int_equal(stk_transfer_new(ROWS, &p->a), 0);
    p->b = another(p->a);
    stk_transfer_own(p->a, 0);
    stk_transfer_own(p->b, 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    p->client = fds[0];
    p->server = fds[1];
}

static void pair_close(struct pair *p)
{
    close(p->client);
    stk_fd_close(&p->server);
    another_free(p->b);
    stk_transfer_free(p->a);
}

static int offer_as(struct pair *p, const struct stk_transfer_conn *conn, const char *bytes,
                    struct stk_transfer_ticket *ticket)
{
    return stk_transfer_send(p->a, 1, getpid(), conn, bytes, ticket);
}

static struct stk_transfer_ticket offer(struct pair *p, const char *bytes)
{
    struct stk_transfer_conn conn = {.fd = p->server, .len = strlen(bytes), .addr_len = 3};
    struct stk_transfer_ticket ticket;

    memcpy(conn.addr, "::1", 3);
    assert_int_equal(offer_as(p, &conn, bytes, &ticket), 0);
    assert_int_equal(stk_transfer_look(p->a, &ticket), STK_TRANSFER_OFFERED);
    return ticket;
}

static unsigned count_free(const struct stk_transfer *t, unsigned row)
{
    unsigned n = 0;

    for (unsigned i = 0; i < STK_TRANSFER_SLOTS; i++)
        n += transfer_state(atomic_load(&t->rows[row].slots[i])) == STK_TRANSFER_FREE;
    return n;
}

static void an_offer_is_taken_as_it_was_made(void **state)
{
    struct stk_transfer_conn conn = {.flags = STK_TRANSFER_REQUEST | STK_TRANSFER_SERVED,
                                     .hops = 3,
                                     .endpoint = 7,
                                     .since = 123456789012345,
                                     .addr = "2001:db8::1",
                                     .addr_len = 11,
                                     .port = 65535,
                                     .len = STK_TRANSFER_BYTES_MAX};
    struct stk_transfer_conn got;
    struct stk_transfer_ticket mine, theirs;
    static struct pair p;
    static char bytes[STK_TRANSFER_BYTES_MAX];
    char c;

    pair_open(&p);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 7 + i / 256);
    conn.fd = p.server;
    assert_int_equal(offer_as(&p, &conn, bytes, &mine), 0);
    assert_int_equal(stk_transfer_recv(p.b, p.buf, &got, &theirs), 0);
    assert_int_equal(stk_transfer_recv(p.b, p.buf, &conn, &theirs), -EAGAIN);
    assert_int_equal(got.flags, STK_TRANSFER_REQUEST | STK_TRANSFER_SERVED);
    assert_int_equal(got.hops, 3);
    assert_int_equal(got.endpoint, 7);
    assert_int_equal(got.since, 123456789012345);
    assert_int_equal(got.addr_len, 11);
    assert_memory_equal(got.addr, "2001:db8::1", 11);
    assert_int_equal(got.port, 65535);
    assert_int_equal(got.len, sizeof bytes);
    assert_memory_equal(p.buf, bytes, sizeof bytes);
    assert_int_equal(stk_transfer_look(p.a, &mine), STK_TRANSFER_OFFERED);
    assert_true(stk_transfer_take(p.b, &theirs));
    assert_false(stk_transfer_take(p.b, &theirs));
    assert_int_equal(stk_transfer_look(p.a, &mine), STK_TRANSFER_TAKEN);
    assert_false(stk_transfer_withdraw(p.a, &mine));
    stk_transfer_settle(p.a, &mine);
    assert_int_equal(count_free(p.a, 0), STK_TRANSFER_SLOTS);
    /* The descriptor is another one of the same connection. */
    assert_true(got.fd >= 0 && got.fd != p.server);
    assert_true((fcntl(got.fd, F_GETFD) & FD_CLOEXEC) != 0);
    stk_fd_close(&p.server);
    assert_int_equal(write(got.fd, "x", 1), 1);
    assert_int_equal(read(p.client, &c, 1), 1);
    close(got.fd);
    assert_int_equal(read(p.client, &c, 1), 0);
    pair_close(&p);
}

static void one_of_taken_refused_withdrawn(void **state)
{
    struct stk_transfer_ticket mine, theirs;
    struct stk_transfer_conn got;
    static struct pair p;

    pair_open(&p);
    mine = offer(&p, "a");
    assert_true(stk_transfer_withdraw(p.a, &mine));
    assert_false(stk_transfer_withdraw(p.a, &mine));
    assert_int_equal(stk_transfer_recv(p.b, p.buf, &got, &theirs), 0);
    assert_false(stk_transfer_take(p.b, &theirs));
    stk_transfer_refuse(p.b, &theirs);
    assert_int_equal(stk_transfer_look(p.a, &mine), STK_TRANSFER_WITHDRAWN);
    stk_transfer_settle(p.a, &mine);
    close(got.fd);

    mine = offer(&p, "b");
    assert_int_equal(stk_transfer_recv(p.b, p.buf, &got, &theirs), 0);
    stk_transfer_refuse(p.b, &theirs);
    assert_false(stk_transfer_take(p.b, &theirs));
    assert_false(stk_transfer_withdraw(p.a, &mine));
    assert_int_equal(stk_transfer_look(p.a, &mine), STK_TRANSFER_REFUSED);
    stk_transfer_settle(p.a, &mine);
    close(got.fd);
    assert_int_equal(count_free(p.a, 0), STK_TRANSFER_SLOTS);
    pair_close(&p);
}

/* A message that is read when its slot has been used again. */
static void late_messages_match_nothing(void **state)
{
    struct stk_transfer_ticket first, second, theirs;
    struct stk_transfer_conn got;
    static struct pair p;

    pair_open(&p);
    first = offer(&p, "first");
    assert_true(stk_transfer_withdraw(p.a, &first));
    stk_transfer_settle(p.a, &first);
    p.a->next = first.slot;
    second = offer(&p, "second");
    assert_int_equal(first.slot, second.slot);
    assert_int_equal(stk_transfer_recv(p.b, p.buf, &got, &theirs), 0);
    assert_memory_equal(p.buf, "first", 5);
    assert_false(stk_transfer_take(p.b, &theirs));
    stk_transfer_refuse(p.b, &theirs);
    close(got.fd);
    assert_int_equal(stk_transfer_look(p.a, &second), STK_TRANSFER_OFFERED);
    assert_int_equal(stk_transfer_recv(p.b, p.buf, &got, &theirs), 0);
    assert_true(stk_transfer_take(p.b, &theirs));
    close(got.fd);
    pair_close(&p);
}

static void what_does_not_fit_is_not_sent(void **state)
{
    static char big[STK_TRANSFER_BYTES_MAX + 1];
    static struct pair p;
    struct stk_transfer_ticket tickets[STK_TRANSFER_SLOTS + 1];
    struct stk_transfer_conn conn;
    unsigned n = 0;
    int r;

    pair_open(&p);
    conn = (struct stk_transfer_conn){.fd = p.server, .len = sizeof big};
    assert_int_equal(offer_as(&p, &conn, big, &tickets[0]), -EMSGSIZE);
    assert_int_equal(count_free(p.a, 0), STK_TRANSFER_SLOTS);
    /* The inbox is full first: what was not sent keeps no slot. */
    conn.len = STK_TRANSFER_BYTES_MAX;
    while ((r = offer_as(&p, &conn, big, &tickets[n])) == 0)
        n++;
    assert_int_equal(r, -EAGAIN);
    assert_in_range(n, 1, STK_TRANSFER_SLOTS - 1);
    assert_int_equal(count_free(p.a, 0), STK_TRANSFER_SLOTS - n);
    stk_transfer_drain(p.b, 1);
    /* Then the slots. */
    conn.len = 0;
    while ((r = offer_as(&p, &conn, NULL, &tickets[n])) == 0)
        n++;
    assert_int_equal(r, -EAGAIN);
    assert_int_equal(n, STK_TRANSFER_SLOTS);
    for (unsigned i = 0; i < n; i++) {
        assert_true(stk_transfer_withdraw(p.a, &tickets[i]));
        stk_transfer_settle(p.a, &tickets[i]);
    }
    assert_int_equal(count_free(p.a, 0), STK_TRANSFER_SLOTS);
    pair_close(&p);
}

/* Sends a frame as it is, with so many descriptors. */
static void forge(struct pair *p, const void *data, size_t len, unsigned nfds)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    union transfer_control control;
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};

    memset(&control, 0, sizeof control);
    if (nfds > 0) {
        struct cmsghdr *cmsg;

        hdr.msg_control = control.buf;
        hdr.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        cmsg = CMSG_FIRSTHDR(&hdr);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        for (unsigned i = 0; i < nfds; i++)
            memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &p->server, sizeof(int));
    }
    assert_int_equal(sendmsg(p->a->writers[1], &hdr, 0), len);
}

static struct transfer_frame good_frame(struct pair *p, struct stk_transfer_ticket *ticket)
{
    struct stk_transfer_conn got;
    struct stk_transfer_ticket theirs;

    *ticket = offer(p, "");
    assert_int_equal(stk_transfer_recv(p->b, p->buf, &got, &theirs), 0);
    close(got.fd);
    return (struct transfer_frame){.mark = TRANSFER_MARK,
                                   .version = TRANSFER_VERSION,
                                   .row = ticket->row,
                                   .slot = ticket->slot,
                                   .word = ticket->word,
                                   .pid = (uint32_t)getpid()};
}

static void expect_bad(struct pair *p, const void *data, size_t len, unsigned nfds)
{
    struct stk_transfer_conn got;
    struct stk_transfer_ticket theirs;
    int before = dup_fd(0), after;

    close(before);
    forge(p, data, len, nfds);
    assert_int_equal(stk_transfer_recv(p->b, p->buf, &got, &theirs), STK_TRANSFER_E_BAD);
    after = dup_fd(0);
    close(after);
    assert_int_equal(before, after); /* no descriptor is left open */
}

static void forged_messages_are_thrown_away(void **state)
{
    struct stk_transfer_ticket ticket;
    struct transfer_frame good, f;
    static struct pair p;
    static char big[sizeof(struct transfer_frame) + STK_TRANSFER_BYTES_MAX + 64];
    int pipes[2], server;

    pair_open(&p);
    good = good_frame(&p, &ticket);
    expect_bad(&p, "x", 1, 1);
    expect_bad(&p, &good, sizeof good - 1, 1);
#define BAD(change) (f = good, change, expect_bad(&p, &f, sizeof f, 1))
    BAD(f.mark ^= 1);
    BAD(f.version++);
    BAD(f.pid++);
    BAD(f.row = ROWS); /* the master's, which does not say such things */
    BAD(f.row = ROWS + 1);
    BAD(f.row = 1); /* from itself */
    BAD(f.slot = STK_TRANSFER_SLOTS);
    BAD(f.word ^= 2);
    BAD(f.flags = STK_TRANSFER_FLAGS + 1);
    BAD(f.flags = STK_TRANSFER_REQUEST); /* without bytes */
    BAD(f.flags = STK_TRANSFER_PROXIED); /* likewise */
    BAD(f.flags = STK_TRANSFER_CARRIED); /* by a worker */
    BAD(f.addr_len = STK_TRANSFER_ADDR_MAX + 1);
    BAD(f.len = 1);
    BAD(f.len = UINT32_MAX);
#undef BAD
    f = good;
    f.len = STK_TRANSFER_BYTES_MAX + 64;
    memcpy(big, &f, sizeof f);
    expect_bad(&p, big, sizeof big, 1); /* cut by the kernel */
    assert_int_equal(stk_transfer_look(p.a, &ticket), STK_TRANSFER_OFFERED);
    /* A good one whose descriptor did not arrive, or is none of a socket, is given back. */
    expect_bad(&p, &good, sizeof good, 0);
    assert_int_equal(stk_transfer_look(p.a, &ticket), STK_TRANSFER_REFUSED);
    stk_transfer_settle(p.a, &ticket);
    good = good_frame(&p, &ticket);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    server = p.server;
    p.server = pipes[0];
    expect_bad(&p, &good, sizeof good, 1);
    p.server = server;
    assert_int_equal(stk_transfer_look(p.a, &ticket), STK_TRANSFER_REFUSED);
    stk_transfer_settle(p.a, &ticket);
    good = good_frame(&p, &ticket);
    expect_bad(&p, &good, sizeof good, 2);
    close(pipes[0]);
    close(pipes[1]);
    pair_close(&p);
}

/* What the row's former owner has left is forgotten, and its numbers go on. */
/* The master has slots and no inbox, and says nothing of a connection but that it had a response.
 */
static void the_master_offers_as_well(void **state)
{
    struct stk_transfer_conn conn, got;
    struct stk_transfer_ticket mine, theirs;
    struct stk_transfer *master;
    struct pair p;

    pair_open(&p);
    master = another(p.a);
    master->row = TRANSFER_NOWHERE;
    stk_transfer_own_master(master);
    conn = (struct stk_transfer_conn){.fd = p.server,
                                      .flags = STK_TRANSFER_CARRIED | STK_TRANSFER_SERVED};
    for (unsigned i = 0; i < 2 * STK_TRANSFER_SLOTS; i++) {
        assert_int_equal(stk_transfer_send(master, 1, getpid(), &conn, NULL, &mine), 0);
        assert_int_equal(mine.row, ROWS);
        assert_int_equal(stk_transfer_recv(p.b, p.buf, &got, &theirs), 0);
        assert_int_equal(got.flags, conn.flags);
        if (i % 2 == 0)
            assert_true(stk_transfer_withdraw(master, &mine));
        assert_int_equal(stk_transfer_take(p.b, &theirs), i % 2 == 1);
        stk_transfer_settle(master, &mine);
        close(got.fd);
    }
    /* What belongs to other offers is not believed. */
    conn.flags = STK_TRANSFER_CARRIED | STK_TRANSFER_TRUSTED;
    assert_int_equal(stk_transfer_send(master, 1, getpid(), &conn, NULL, &mine), 0);
    assert_int_equal(stk_transfer_recv(p.b, p.buf, &got, &theirs), STK_TRANSFER_E_BAD);
    conn.flags = STK_TRANSFER_CARRIED;
    conn.len = 1;
    assert_int_equal(stk_transfer_send(master, 1, getpid(), &conn, "x", &mine), 0);
    assert_int_equal(stk_transfer_recv(p.b, p.buf, &got, &theirs), STK_TRANSFER_E_BAD);
    another_free(master);
    pair_close(&p);
}

static void a_new_owner_starts_clean(void **state)
{
    struct stk_transfer_ticket old, back, theirs;
    struct stk_transfer_conn got, conn;
    struct stk_transfer *again;
    static struct pair p;
    char c;

    pair_open(&p);
    again = another(p.a);
    old = offer(&p, "old");
    conn = (struct stk_transfer_conn){.fd = p.server};
    assert_int_equal(stk_transfer_send(p.b, 0, getpid(), &conn, NULL, &back), 0);
    stk_transfer_own(again, 0);
    assert_int_equal(stk_transfer_recv(again, p.buf, &got, &theirs), -EAGAIN);
    assert_int_equal(stk_transfer_recv(p.b, p.buf, &got, &theirs), 0);
    assert_false(stk_transfer_take(p.b, &theirs));
    close(got.fd);
    assert_int_equal(count_free(again, 0), STK_TRANSFER_SLOTS);
    assert_true(stk_transfer_withdraw(p.b, &back));
    again->next = old.slot;
    assert_int_equal(stk_transfer_send(again, 1, getpid(), &conn, NULL, &theirs), 0);
    assert_int_equal(theirs.slot, old.slot);
    assert_true(theirs.word > old.word);
    stk_transfer_drain(p.b, 1);
    /* Nobody holds the connection any more but its two ends. */
    stk_fd_close(&p.server);
    assert_int_equal(read(p.client, &c, 1), 0);
    another_free(again);
    pair_close(&p);
}

static void wait_exit(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Processes: one end dies at each step, the other goes on. */
static void either_may_die(void **state)
{
    struct stk_transfer *t;
    struct stk_transfer_conn conn = {.len = 3}, got;
    struct stk_transfer_ticket ticket, theirs;
    static char buf[STK_TRANSFER_BYTES_MAX];
    int fds[2];
    pid_t pid, parent = getpid();
    char c;

    assert_int_equal(stk_transfer_new(2, &t), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    /* The sender, behind its offer: the receiver has it. */
    stk_transfer_own(t, 0);
    pid = fork();
    if (pid == 0) {
        stk_transfer_own(t, 1);
        conn.fd = fds[1];
        _exit(stk_transfer_send(t, 0, parent, &conn, "abc", &ticket) == 0 ? 0 : 1);
    }
    wait_exit(pid);
    assert_int_equal(stk_transfer_recv(t, buf, &got, &theirs), 0);
    assert_memory_equal(buf, "abc", 3);
    assert_true(stk_transfer_take(t, &theirs));
    assert_int_equal(write(got.fd, "x", 1), 1);
    assert_int_equal(read(fds[0], &c, 1), 1);
    close(got.fd);
    stk_transfer_free(t);

    for (int takes = 0; takes < 2; takes++) {
        int ready[2];

        assert_int_equal(stk_transfer_new(2, &t), 0);
        assert_int_equal(pipe(ready), 0);
        pid = fork();
        if (pid == 0) {
            int r;

            stk_transfer_own(t, 1);
            if (write(ready[1], "r", 1) != 1)
                _exit(1);
            while ((r = stk_transfer_recv(t, buf, &got, &theirs)) == -EAGAIN)
                usleep(100);
            _exit(r != 0 || (takes && !stk_transfer_take(t, &theirs)));
        }
        stk_transfer_own(t, 0);
        assert_int_equal(read(ready[0], &c, 1), 1);
        close(ready[0]);
        close(ready[1]);
        conn.fd = fds[1];
        assert_int_equal(stk_transfer_send(t, 1, pid, &conn, "abc", &ticket), 0);
        wait_exit(pid);
        /* The receiver: before it has taken it, the sender has it back; behind that, it is lost
         * with it. */
        assert_int_equal(stk_transfer_withdraw(t, &ticket), !takes);
        stk_transfer_settle(t, &ticket);
        stk_transfer_free(t);
    }
    close(fds[0]);
    close(fds[1]);
}

enum { RACES = 20000 };

struct race {
    struct pair *p;
    atomic_uint taken, gone;
    atomic_bool done;
};

static void *race_receiver(void *arg)
{
    struct race *race = arg;
    struct stk_transfer_conn got;
    struct stk_transfer_ticket theirs;

    while (!atomic_load(&race->done)) {
        int r = stk_transfer_recv(race->p->b, race->p->buf, &got, &theirs);

        if (r != 0)
            continue;
        if (stk_transfer_take(race->p->b, &theirs))
            atomic_fetch_add(&race->taken, 1);
        else
            atomic_fetch_add(&race->gone, 1);
        close(got.fd);
    }
    return NULL;
}

/* A sender that withdraws just as the receiver takes: one of them has it. */
static void races_have_one_winner(void **state)
{
    static struct pair p;
    struct race race = {.p = &p};
    unsigned withdrawn = 0;
    pthread_t id;

    pair_open(&p);
    assert_int_equal(pthread_create(&id, NULL, race_receiver, &race), 0);
    for (unsigned i = 0; i < RACES; i++) {
        struct stk_transfer_conn conn = {.fd = p.server, .len = i % 200};
        struct stk_transfer_ticket mine;
        static const char bytes[200];

        while (offer_as(&p, &conn, bytes, &mine) != 0)
            sched_yield();
        for (unsigned n = 0; n < i % 64; n++)
            (void)stk_transfer_look(p.a, &mine);
        if (stk_transfer_withdraw(p.a, &mine))
            withdrawn++;
        stk_transfer_settle(p.a, &mine);
    }
    while (atomic_load(&race.taken) + atomic_load(&race.gone) < RACES)
        sched_yield();
    atomic_store(&race.done, true);
    pthread_join(id, NULL);
    assert_int_equal(atomic_load(&race.taken) + withdrawn, RACES);
    assert_int_equal(atomic_load(&race.gone), withdrawn);
    pair_close(&p);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_offer_is_taken_as_it_was_made),
        cmocka_unit_test(one_of_taken_refused_withdrawn),
        cmocka_unit_test(late_messages_match_nothing),
        cmocka_unit_test(what_does_not_fit_is_not_sent),
        cmocka_unit_test(forged_messages_are_thrown_away),
        cmocka_unit_test(the_master_offers_as_well),
        cmocka_unit_test(a_new_owner_starts_clean),
        cmocka_unit_test(either_may_die),
        cmocka_unit_test(races_have_one_winner),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
