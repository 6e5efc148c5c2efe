/*
 * Listening sockets. The master opens them all before it forks; a worker finds its own in
 * slots[its slot], and the others' beside it, to adopt them when their worker is gone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"
#include "base/span.h"
#include "net/addr.h"

#define STK_LISTENER_MAGIC 0x4c53544eu

struct stk_listener {
    uint32_t magic;
    char *spec;           /* as the user wrote it */
    char *display;        /* "http://127.0.0.1:8000", "http://[::]:8000", "unix:/run/app.sock" */
    char *scheme;         /* "http"; "auto": the protocol is told by the first byte */
    bool scheme_given;    /* by the spec */
    char *server_name;    /* the bound host; the machine's name for all interfaces; "localhost" */
    char *server_port;    /* decimal; "" for unix: */
    struct stk_addr addr; /* as bound: with the port that the kernel chose */
    bool is_unix;
    bool is_wildcard;   /* all interfaces */
    int proxy_protocol; /* as in the spec; -1: as the option says */
    bool shared;        /* one socket for all workers (unix:, fd://): every slot has the same fd */
    unsigned nslots;    /* at least those asked for; more when more sockets were inherited */
    int *slots;         /* non-blocking, close-on-exec, listening; -1 once closed */

    /* the socket file of unix:, removed by the process that made it */
    char *unlink_path;
    pid_t unlink_pid;
    dev_t unlink_dev;
    ino_t unlink_ino;
};

/* The file of a unix socket; empty: there is none. */
stk_span stk_listener_path(const struct stk_listener *listener);

struct stk_inherit;

/* All listeners of a server; begins zeroed. */
struct stk_listen_set {
    struct stk_listener **items;
    size_t n;
    char **warnings; /* sentences for the log: backlog capped by the kernel ... */
    size_t nwarnings;
};

struct stk_listen_options {
    int backlog;
    int64_t socket_mode;      /* of socket files without ?mode=; -1: by the umask */
    const char *socket_owner; /* likewise; may be NULL */
    /* Sockets to take over rather than to open, where the address is the same; may be NULL. */
    struct stk_inherit *inherit;
};

enum stk_listen_error {
    STK_LISTEN_E_FAILED = 1, /* *ret_error says what and what to do about it */
};

/*
 * Opens the socket or sockets of one spec and appends them to the set: one listener an address (a
 * name may have several), each with one SO_REUSEPORT socket a slot, or one shared by all. With port
 * 0 the kernel chooses a port, which is the same for all. 0, or STK_LISTEN_E_FAILED with *ret_error
 * (free it), and then the set is as it was.
 */
int stk_listen_set_open(struct stk_listen_set *set, const char *spec, unsigned nslots,
                        const struct stk_listen_options *options, char **ret_error) STK_MUST_CHECK;
/*
 * Makes this process the one that removes the socket files at the end, or not: of two servers that
 * share the sockets, it is one.
 */
void stk_listen_set_own(struct stk_listen_set *set, bool own);
/*
 * Closes this process's descriptors and removes the socket files that it made; the texts stay. What
 * other processes inherited stays open. Harmless twice.
 */
void stk_listen_set_close(struct stk_listen_set *set);
/* Closes and frees everything; the set is empty afterwards. */
void stk_listen_set_deinit(struct stk_listen_set *set);
