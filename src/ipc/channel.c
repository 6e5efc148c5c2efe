/*
 * Channels over SOCK_SEQPACKET: the kernel keeps the boundaries of messages and tells of the other
 * end's death, so a message is one fixed structure and there is nothing to reassemble.
 *
 * Both ends are the same program, yet everything received is checked as if it were not: the size,
 * the mark, the type, whether this role may receive it, and the number of descriptors. Whatever is
 * wrong closes what came along, so that a confused process cannot fill the table of descriptors.
 */
#include "ipc/channel.h"

#include <errno.h>
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

#define CHANNEL_MARK        0x5354u
#define CHANNEL_SOURCES_MAX ((off_t)16 << 20)

/* What is sent. */
struct channel_frame {
    uint16_t mark;
    uint16_t type;
    uint32_t slot;
    int64_t value;
};

static const struct channel_type {
    const char *name;
    unsigned receivers;
    bool has_fd;
} channel_types[] = {
#define STK_MESSAGE(name, receivers, has_fd, description) {#name, receivers, has_fd},
#include "ipc/message.def"
#undef STK_MESSAGE
};

union channel_control {
    char buf[CMSG_SPACE(sizeof(int) * 4)];
    struct cmsghdr align;
};

int stk_channel_pair(int ret_fds[2])
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return -errno;
    ret_fds[0] = fds[0];
    ret_fds[1] = fds[1];
    return 0;
}

int stk_channel_send(int fd, const struct stk_message *msg)
{
    struct channel_frame frame = {
        .mark = CHANNEL_MARK, .type = (uint16_t)msg->type, .slot = msg->slot, .value = msg->value};
    struct iovec iov = {.iov_base = &frame, .iov_len = sizeof frame};
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
    union channel_control control;
    ssize_t n;

    STK_ASSERT((unsigned)msg->type < STK_MESSAGE_TYPES);
    STK_ASSERT(channel_types[msg->type].has_fd == (msg->fd >= 0));
    if (msg->fd >= 0) {
        hdr.msg_control = control.buf;
        stk_fd_put(&hdr, msg->fd);
    }
    do
        n = sendmsg(fd, &hdr, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? -EPIPE : -errno;
    return n == (ssize_t)sizeof frame ? 0 : -EIO;
}

int stk_channel_send_simple(int fd, enum stk_message_type type, uint32_t slot, int64_t value)
{
    struct stk_message msg = {.type = type, .slot = slot, .value = value, .fd = -1};

    return stk_channel_send(fd, &msg);
}

static bool channel_is_valid(const struct channel_frame *frame, size_t size, int flags,
                             enum stk_channel_role role, unsigned nfds)
{
    if (size != sizeof *frame || (flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
        return false;
    if (frame->mark != CHANNEL_MARK || frame->type >= STK_MESSAGE_TYPES)
        return false;
    if ((channel_types[frame->type].receivers & (unsigned)role) == 0)
        return false;
    return nfds == (channel_types[frame->type].has_fd ? 1 : 0);
}

int stk_channel_peek(int fd)
{
    struct channel_frame frame;
    ssize_t n;

    do /* without room for its descriptor, which stays with it */
        n = recv(fd, &frame, sizeof frame, MSG_DONTWAIT | MSG_PEEK);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof frame && frame.mark == CHANNEL_MARK ? (int)frame.type : -EAGAIN;
}

int stk_channel_recv(int fd, enum stk_channel_role role, struct stk_message *ret_msg)
{
    struct channel_frame frame;
    struct iovec iov = {.iov_base = &frame, .iov_len = sizeof frame};
    union channel_control control;
    struct msghdr hdr = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof control.buf};
    STK_CLEANUP(stk_fd_closep) int passed = -1;
    unsigned nfds;
    ssize_t n;

    do
        n = recvmsg(fd, &hdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? STK_CHANNEL_E_EOF : -errno;
    nfds = stk_fd_take(&hdr, &passed);
    if (n == 0 && nfds == 0)
        return STK_CHANNEL_E_EOF;
    if (!channel_is_valid(&frame, (size_t)n, hdr.msg_flags, role, nfds))
        return STK_CHANNEL_E_BAD;
    *ret_msg = (struct stk_message){.type = (enum stk_message_type)frame.type,
                                    .slot = frame.slot,
                                    .value = frame.value,
                                    .fd = stk_fd_steal(&passed)};
    return 0;
}

const char *stk_channel_type_name(unsigned type)
{
    return type < STK_MESSAGE_TYPES ? channel_types[type].name : NULL;
}

int stk_channel_send_failure(int fd, uint32_t slot, int code, int file)
{
    STK_CLEANUP(stk_fd_closep) int own = file < 0 ? memfd_create("failure", MFD_CLOEXEC) : -1;
    struct stk_message msg = {
        .type = STK_MESSAGE_LOAD_FAILED, .slot = slot, .value = code, .fd = file < 0 ? own : file};

    return msg.fd < 0 ? -EMFILE : stk_channel_send(fd, &msg);
}

int stk_channel_send_list(int fd, enum stk_message_type type, const char *const *lines)
{
    struct stk_message msg = {.type = type};
    STK_CLEANUP(stk_fd_closep) int file = memfd_create("list", MFD_CLOEXEC);
    int r = 0;

    if (file < 0)
        return -errno;
    for (size_t i = 0; r == 0 && lines[i] != NULL; i++) {
        size_t len = strlen(lines[i]);

        if (memchr(lines[i], '\n', len) != NULL || len == 0)
            continue;
        r = stk_fd_write_all(file, lines[i], len);
        if (r == 0)
            r = stk_fd_write_all(file, "\n", 1);
    }
    if (r < 0)
        return r;
    msg.fd = file;
    return stk_channel_send(fd, &msg);
}

int stk_channel_send_sources(int fd, const char *const *paths)
{
    return stk_channel_send_list(fd, STK_MESSAGE_SOURCES, paths);
}

int stk_channel_read_sources(int file, char **ret_text, size_t *ret_len)
{
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    struct stat st;
    size_t len = 0;

    if (fstat(file, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if (st.st_size > CHANNEL_SOURCES_MAX)
        return -EFBIG;
    text = stk_try_alloc((size_t)st.st_size + 1);
    if (text == NULL)
        return -ENOMEM;
    while (len < (size_t)st.st_size) {
        ssize_t n = pread(file, text + len, (size_t)st.st_size - len, (off_t)len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';
    *ret_text = stk_steal(&text);
    *ret_len = len;
    return 0;
}
