/*
 * An inbox is a pair of connected SOCK_SEQPACKET sockets, made before the first fork: every worker
 * has the end to write to, and reads its own. The kernel keeps the boundaries of messages, and what
 * was sent to a worker that has died is there until its row has a new owner, who throws it away.
 *
 * A slot's word is a number and a state. The number grows with every use, also from one owner of
 * the row to the next, so that a message that comes late matches no later offer.
 *
 * Sender and receiver are the same program; yet what is received is checked as if they were not,
 * because a message may be old: the size, the mark, the version, whether it is for this process,
 * and every number in it.
 */
#include "ipc/transfer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/mem.h"
#include "ipc/channel.h"

enum {
    TRANSFER_MARK = 0x5254534d,
    TRANSFER_VERSION = 3,
    TRANSFER_STATE_BITS = 3,
};

#define TRANSFER_MAGIC   0x54524e53u
#define TRANSFER_NOWHERE UINT32_MAX

/* What is sent, in front of the bytes. */
struct transfer_frame {
    uint32_t mark;
    uint16_t version;
    uint16_t flags;
    uint32_t row;
    uint32_t slot;
    uint64_t word;
    int64_t since;
    uint32_t pid; /* of the receiver */
    uint32_t endpoint;
    uint32_t len;
    uint16_t port;
    uint8_t hops;
    uint8_t addr_len;
    char addr[STK_TRANSFER_ADDR_MAX];
};

/* The slots of one row, in shared memory; written by its owner and by those it offers to. */
struct transfer_row {
    _Alignas(128) _Atomic uint64_t slots[STK_TRANSFER_SLOTS];
};

struct stk_transfer {
    uint32_t magic;
    unsigned nrows; /* with an inbox; behind them is the master's */
    uint32_t row;   /* ours */
    unsigned next;  /* where to look for a free slot first */
    struct transfer_row *rows;
    int *readers, *writers; /* -1: closed */
};

union transfer_control {
    char buf[CMSG_SPACE(sizeof(int) * 4)];
    struct cmsghdr align;
};

static enum stk_transfer_state transfer_state(uint64_t word)
{
    return (enum stk_transfer_state)(word & ((1 << TRANSFER_STATE_BITS) - 1));
}

static uint64_t transfer_word(uint64_t word, enum stk_transfer_state state)
{
    return word >> TRANSFER_STATE_BITS << TRANSFER_STATE_BITS | (uint64_t)state;
}

static size_t transfer_size(unsigned nrows)
{
    return (nrows + 1) * sizeof(struct transfer_row);
}

static _Atomic uint64_t *transfer_slot(const struct stk_transfer *t,
                                       const struct stk_transfer_ticket *ticket)
{
    return &t->rows[ticket->row].slots[ticket->slot];
}

int stk_transfer_new(unsigned nrows, struct stk_transfer **ret_transfer)
{
    struct stk_transfer *t = stk_new0(struct stk_transfer);
    void *map =
        mmap(NULL, transfer_size(nrows), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int r = map == MAP_FAILED ? -errno : 0;

    STK_ASSERT(nrows > 0);
    t->magic = TRANSFER_MAGIC;
    t->nrows = nrows;
    t->row = TRANSFER_NOWHERE;
    t->rows = map == MAP_FAILED ? NULL : map;
    t->readers = stk_new0_array(int, nrows);
    t->writers = stk_new0_array(int, nrows);
    for (unsigned i = 0; i < nrows; i++)
        t->readers[i] = t->writers[i] = -1;
    for (unsigned i = 0; r == 0 && i < nrows; i++) {
        int fds[2];

        r = stk_channel_pair(fds);
        if (r == 0) {
            t->readers[i] = fds[0];
            t->writers[i] = fds[1];
        }
    }
    if (r < 0) {
        stk_transfer_free(t);
        return r;
    }
    *ret_transfer = t;
    return 0;
}

void stk_transfer_close(struct stk_transfer *t)
{
    for (unsigned i = 0; i < t->nrows; i++) {
        stk_fd_close(&t->readers[i]);
        stk_fd_close(&t->writers[i]);
    }
}

struct stk_transfer *stk_transfer_free(struct stk_transfer *t)
{
    if (t != NULL) {
        STK_CHECK_MAGIC(t, TRANSFER_MAGIC);
        stk_transfer_close(t);
        if (t->rows != NULL)
            STK_ASSERT(munmap(t->rows, transfer_size(t->nrows)) == 0);
        free(t->readers);
        free(t->writers);
        t->magic = 0;
        free(t);
    }
    return NULL;
}

void stk_transfer_own(struct stk_transfer *t, unsigned row)
{
    STK_CHECK_MAGIC(t, TRANSFER_MAGIC);
    STK_ASSERT(row < t->nrows);
    stk_transfer_drain(t, row);
    t->row = row;
    for (unsigned i = 0; i < t->nrows; i++) {
        if (i != row)
            stk_fd_close(&t->readers[i]);
    }
    for (unsigned i = 0; i < STK_TRANSFER_SLOTS; i++) {
        _Atomic uint64_t *slot = &t->rows[row].slots[i];
        uint64_t word = atomic_load(slot);

        while (!atomic_compare_exchange_weak(slot, &word, transfer_word(word, STK_TRANSFER_FREE))) {
        }
    }
}

void stk_transfer_own_master(struct stk_transfer *t)
{
    STK_CHECK_MAGIC(t, TRANSFER_MAGIC);
    STK_ASSERT(t->row == TRANSFER_NOWHERE);
    t->row = t->nrows;
}

int stk_transfer_fd(const struct stk_transfer *t)
{
    STK_ASSERT(t->row < t->nrows);
    return t->readers[t->row];
}

/* A slot that is free, as OFFERED with a new number. */
static int transfer_claim(struct stk_transfer *t, struct stk_transfer_ticket *ret_ticket)
{
    for (unsigned i = 0; i < STK_TRANSFER_SLOTS; i++) {
        unsigned at = (t->next + i) % STK_TRANSFER_SLOTS;
        _Atomic uint64_t *slot = &t->rows[t->row].slots[at];
        uint64_t word = atomic_load(slot);

        if (transfer_state(word) != STK_TRANSFER_FREE)
            continue;
        word = transfer_word(word + (1 << TRANSFER_STATE_BITS), STK_TRANSFER_OFFERED);
        *ret_ticket = (struct stk_transfer_ticket){.row = t->row, .slot = at, .word = word};
        atomic_store(slot, word);
        t->next = at + 1;
        return 0;
    }
    return -EAGAIN;
}

/* Changes an offer that nobody has changed yet. */
static bool transfer_change(struct stk_transfer *t, const struct stk_transfer_ticket *ticket,
                            enum stk_transfer_state state)
{
    uint64_t word = ticket->word;

    return atomic_compare_exchange_strong(transfer_slot(t, ticket), &word,
                                          transfer_word(word, state));
}

static int transfer_sendmsg(int sock, const struct transfer_frame *frame, const void *bytes, int fd)
{
    /* The kernel only reads them. */
    struct iovec iov[2] = {{.iov_base = (void *)(uintptr_t)frame, .iov_len = sizeof *frame},
                           {.iov_base = (void *)(uintptr_t)bytes, .iov_len = frame->len}};
    union transfer_control control;
    struct msghdr hdr = {
        .msg_iov = iov, .msg_iovlen = frame->len > 0 ? 2 : 1, .msg_control = control.buf};
    ssize_t n;

    stk_fd_put(&hdr, fd);
    do
        n = sendmsg(sock, &hdr, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n == (ssize_t)(sizeof *frame + frame->len) ? 0 : -EIO;
    /* Too many descriptors on their way is as good as a full inbox. */
    return errno == ETOOMANYREFS || errno == ENOBUFS ? -EAGAIN : -errno;
}

int stk_transfer_send(struct stk_transfer *t, unsigned to, pid_t pid,
                      const struct stk_transfer_conn *conn, const void *bytes,
                      struct stk_transfer_ticket *ret_ticket)
{
    struct transfer_frame frame;
    struct stk_transfer_ticket ticket;
    int r;

    STK_ASSERT(t->row != TRANSFER_NOWHERE && to < t->nrows && to != t->row && conn->fd >= 0);
    if (conn->len > STK_TRANSFER_BYTES_MAX)
        return -EMSGSIZE;
    r = transfer_claim(t, &ticket);
    if (r < 0)
        return r;
    frame = (struct transfer_frame){
        .mark = TRANSFER_MARK,
        .version = TRANSFER_VERSION,
        .flags = (uint16_t)conn->flags,
        .row = ticket.row,
        .slot = ticket.slot,
        .word = ticket.word,
        .since = conn->since,
        .pid = (uint32_t)pid,
        .endpoint = conn->endpoint,
        .len = (uint32_t)conn->len,
        .port = conn->port,
        .hops = (uint8_t)conn->hops,
        .addr_len = conn->addr_len,
    };
    memcpy(frame.addr, conn->addr, sizeof frame.addr);
    r = transfer_sendmsg(t->writers[to], &frame, bytes, conn->fd);
    if (r < 0) {
        STK_ASSERT(transfer_change(t, &ticket, STK_TRANSFER_WITHDRAWN));
        stk_transfer_settle(t, &ticket);
        return r;
    }
    *ret_ticket = ticket;
    return 0;
}

enum stk_transfer_state stk_transfer_look(const struct stk_transfer *t,
                                          const struct stk_transfer_ticket *ticket)
{
    return transfer_state(atomic_load(transfer_slot(t, ticket)));
}

bool stk_transfer_withdraw(struct stk_transfer *t, const struct stk_transfer_ticket *ticket)
{
    return transfer_change(t, ticket, STK_TRANSFER_WITHDRAWN);
}

void stk_transfer_settle(struct stk_transfer *t, const struct stk_transfer_ticket *ticket)
{
    STK_ASSERT(stk_transfer_look(t, ticket) > STK_TRANSFER_OFFERED);
    atomic_store(transfer_slot(t, ticket), transfer_word(ticket->word, STK_TRANSFER_FREE));
}

bool stk_transfer_take(struct stk_transfer *t, const struct stk_transfer_ticket *ticket)
{
    return transfer_change(t, ticket, STK_TRANSFER_TAKEN);
}

void stk_transfer_refuse(struct stk_transfer *t, const struct stk_transfer_ticket *ticket)
{
    (void)transfer_change(t, ticket, STK_TRANSFER_REFUSED);
}

/* One message as it is: its size, or a negative errno. *ret_fd: its one descriptor, or -1. */
static ssize_t transfer_recvmsg(int sock, struct transfer_frame *frame, void *buf, int *ret_fd)
{
    struct iovec iov[2] = {{.iov_base = frame, .iov_len = sizeof *frame},
                           {.iov_base = buf, .iov_len = buf ? STK_TRANSFER_BYTES_MAX : 0}};
    union transfer_control control;
    struct msghdr hdr = {.msg_iov = iov,
                         .msg_iovlen = 2,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof control.buf};
    int fd = -1;
    ssize_t n;

    do
        n = recvmsg(sock, &hdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? -errno : -EPIPE;
    if (stk_fd_take(&hdr, &fd) != 1 || (hdr.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
        stk_fd_close(&fd);
    *ret_fd = fd;
    return n;
}

static bool transfer_is_valid(const struct stk_transfer *t, const struct transfer_frame *frame,
                              size_t size)
{
    if (size < sizeof *frame || frame->mark != TRANSFER_MARK ||
        frame->version != TRANSFER_VERSION || frame->pid != (uint32_t)getpid())
        return false;
    if (frame->len > STK_TRANSFER_BYTES_MAX || size != sizeof *frame + frame->len ||
        frame->addr_len > sizeof frame->addr || (frame->flags & ~STK_TRANSFER_FLAGS) != 0)
        return false;
    if (frame->row > t->nrows || frame->row == t->row || frame->slot >= STK_TRANSFER_SLOTS ||
        transfer_state(frame->word) != STK_TRANSFER_OFFERED)
        return false;
    /* The master offers nothing but what comes from another server. */
    if ((frame->flags & STK_TRANSFER_CARRIED) != 0)
        return (frame->flags & ~(STK_TRANSFER_CARRIED | STK_TRANSFER_SERVED)) == 0 &&
               frame->len == 0 && frame->row == t->nrows;
    if (frame->row == t->nrows)
        return false;
    return (frame->flags & (STK_TRANSFER_REQUEST | STK_TRANSFER_PROXIED)) == 0 || frame->len > 0;
}

static bool transfer_is_socket(int fd)
{
    struct stat st;

    return fd >= 0 && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

int stk_transfer_recv(struct stk_transfer *t, void *buf, struct stk_transfer_conn *ret_conn,
                      struct stk_transfer_ticket *ret_ticket)
{
    struct transfer_frame frame = {0};
    STK_CLEANUP(stk_fd_closep) int fd = -1;
    ssize_t n = transfer_recvmsg(stk_transfer_fd(t), &frame, buf, &fd);

    if (n < 0)
        return (int)n;
    if (!transfer_is_valid(t, &frame, (size_t)n))
        return STK_TRANSFER_E_BAD;
    *ret_ticket =
        (struct stk_transfer_ticket){.row = frame.row, .slot = frame.slot, .word = frame.word};
    if (!transfer_is_socket(fd)) { /* this process is out of descriptors */
        stk_transfer_refuse(t, ret_ticket);
        return STK_TRANSFER_E_BAD;
    }
    *ret_conn = (struct stk_transfer_conn){
        .fd = stk_fd_steal(&fd),
        .flags = frame.flags,
        .hops = frame.hops,
        .endpoint = frame.endpoint,
        .since = frame.since,
        .addr_len = frame.addr_len,
        .port = frame.port,
        .len = frame.len,
    };
    memcpy(ret_conn->addr, frame.addr, sizeof ret_conn->addr);
    return 0;
}

void stk_transfer_drain(struct stk_transfer *t, unsigned row)
{
    struct transfer_frame frame;
    int fd = -1;

    STK_CHECK_MAGIC(t, TRANSFER_MAGIC);
    STK_ASSERT(row < t->nrows);
    while (t->readers[row] >= 0 && transfer_recvmsg(t->readers[row], &frame, NULL, &fd) >= 0)
        stk_fd_close(&fd);
}
