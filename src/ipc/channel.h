/*
 * Channels: messages between the master and a worker or template, over a SOCK_SEQPACKET socketpair.
 * Each is one small structure and at most one descriptor. Everything received is checked.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"

/* Who receives, as bits. */
enum stk_channel_role {
    STK_CHANNEL_MASTER = 1,
    STK_CHANNEL_WORKER = 2,
    STK_CHANNEL_TEMPLATE = 4,
};

enum stk_message_type {
#define STK_MESSAGE(name, receivers, has_fd, description) STK_MESSAGE_##name,
#include "ipc/message.def"
#undef STK_MESSAGE
    STK_MESSAGE_TYPES,
};

/* Who takes what is queued in the sockets of a worker that drains. */
enum stk_channel_drain {
    STK_CHANNEL_DRAIN_SUCCESSOR = 0, /* another worker: leave it there */
    STK_CHANNEL_DRAIN_LAST = 1,      /* nobody: accept it, then close all listening sockets */
    STK_CHANNEL_DRAIN_UPGRADED = 2,  /* another server: leave it there, and let connections that are
                                        idle send one more request */
    STK_CHANNEL_DRAIN_CARRY = 3,     /* another server: give it what is idle, by CARRY messages */
};

/* Why a worker wants to be replaced. */
enum stk_channel_retire {
    STK_CHANNEL_RETIRE_REQUESTS,  /* max-requests; value: how many it has answered */
    STK_CHANNEL_RETIRE_CANCELLED, /* a request was cancelled in it: replace it when it is idle */
    STK_CHANNEL_RETIRE_STUCK,     /* a cancelled request does not return; value: its age in ms */
    STK_CHANNEL_RETIRE_EXCEPTION, /* a request has raised what reload-on-exception names */
    STK_CHANNEL_RETIRE_REASONS,
};

struct stk_message {
    enum stk_message_type type;
    uint32_t slot; /* ADOPT, RELEASE, FORK, FORKED; DRAIN: enum stk_channel_drain */
    int64_t value; /* by type, see message.def */
    int fd;        /* of types that carry one: the receiver owns it; else -1 */
};

/* Positive results of stk_channel_recv. */
enum stk_channel_error {
    STK_CHANNEL_E_EOF = 1, /* the other end is closed: its process is gone */
    STK_CHANNEL_E_BAD = 2, /* not a message for this role: close the channel */
};

/* A new pair of connected ends: non-blocking, close-on-exec. 0 or a negative errno. */
int stk_channel_pair(int ret_fds[2]) STK_MUST_CHECK;
/*
 * Sends one message; the descriptor stays the caller's. 0; -EAGAIN: the receiver does not read;
 * -EPIPE: it is gone; or another negative errno.
 */
int stk_channel_send(int fd, const struct stk_message *msg) STK_MUST_CHECK;
/* The same of a message without descriptor. */
int stk_channel_send_simple(int fd, enum stk_message_type type, uint32_t slot, int64_t value)
    STK_MUST_CHECK;
/*
 * A worker that is loading its application does not read its channel: this signal has it look for a
 * STACK message. Before and after that it is ignored.
 */
#define STK_CHANNEL_LOOK SIGURG
/* The type of the message that comes next, which stays there; -EAGAIN: there is none, or what is
 * there is no message. May be called in the handler of a signal, as may stk_channel_recv. */
int stk_channel_peek(int fd);
/* Receives one message for `role`. 0; -EAGAIN: none there; STK_CHANNEL_E_*; a negative errno. */
int stk_channel_recv(int fd, enum stk_channel_role role, struct stk_message *ret_msg)
    STK_MUST_CHECK;
/* The name of a type in capitals; NULL for a number out of the table. */
const char *stk_channel_type_name(unsigned type);

/*
 * Sends LOAD_FAILED with a file of what was logged (stk_log_tee into a memfd); -1: with an empty
 * one. The file stays the caller's. As stk_channel_send.
 */
int stk_channel_send_failure(int fd, uint32_t slot, int code, int file) STK_MUST_CHECK;
/*
 * Sends SOURCES: the paths (NULL-terminated array) are written to an anonymous file. Paths with a
 * new line in them are left out. As stk_channel_send.
 */
int stk_channel_send_sources(int fd, const char *const *paths) STK_MUST_CHECK;
/* The same of any message that carries a list: SOURCES, MODULES. */
int stk_channel_send_list(int fd, enum stk_message_type type, const char *const *lines)
    STK_MUST_CHECK;
/*
 * Reads the file of a SOURCES or LOAD_FAILED message: *ret_text (free it) ends with a NUL, *ret_len
 * counts without it. The file is the caller's. 0; -EFBIG beyond 16 MiB; -EINVAL for what is no
 * regular file.
 */
int stk_channel_read_sources(int file, char **ret_text, size_t *ret_len) STK_MUST_CHECK;
