/*
 * Socket addresses: their texts, both ways. A "spec" is what a user writes after --bind; an address
 * is what the kernel takes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/macros.h"

/* The longest text of an IPv4 or IPv6 address with its NUL (without a scope), rounded up. */
#define STK_ADDR_TEXT_MAX 48
/* The port of a spec that names a host only. */
#define STK_ADDR_DEFAULT_PORT 8000

/* Positive results; a text for the user comes with each. */
enum stk_addr_error {
    STK_ADDR_E_INVALID = 1,    /* not an address */
    STK_ADDR_E_UNRESOLVED = 2, /* a host that has no address */
};

struct stk_addr {
    struct sockaddr_storage ss;
    socklen_t len; /* 0: none */
};

enum stk_addr_kind {
    STK_ADDR_TCP,
    STK_ADDR_UNIX, /* a path, or an abstract name */
    STK_ADDR_FD,   /* a socket inherited from whoever started the process */
};

/* A parsed spec. */
struct stk_addr_spec {
    enum stk_addr_kind kind;
    char scheme[8];     /* as "uwsgi", canonical; "auto": told by the first byte */
    bool scheme_given;  /* else it is what fits the kind: "http", for unix: "auto" */
    char *host;         /* TCP: as written, without brackets; NULL: all interfaces */
    uint16_t port;      /* TCP: 0 means that the kernel chooses */
    char *path;         /* unix: the path, or "@name" for an abstract one; fd: the name, or NULL */
    int64_t mode;       /* unix: of the socket file; -1: not given */
    char *owner;        /* unix: "user", "user:group", ":group", numbers too; NULL: not given */
    int fd;             /* fd: -1 when it is named */
    int proxy_protocol; /* enum stk_proxy_protocol of config.h; -1: not given */
};

/*
 * Parses "host:port", "host", ":port", "*:port", "[v6]:port", "unix:/path?mode=660&owner=www:www",
 * "/path", "unix:@name", "@name", "fd://3", "fd://name"; each may have "http://" before it, and
 * "?proxy-protocol=required" behind it. 0, or STK_ADDR_E_* with *ret_error (free it): one sentence
 * that names the mistake and the remedy.
 */
int stk_addr_spec_parse(const char *text, struct stk_addr_spec *ret_spec, char **ret_error)
    STK_MUST_CHECK;
/* Frees what a spec owns; harmless for a zeroed one, and twice. */
void stk_addr_spec_deinit(struct stk_addr_spec *spec);

/*
 * The addresses of a TCP or unix spec, at least one; a host's name may have several (localhost:
 * IPv4 and IPv6), all interfaces are given as [::] and, for a kernel without IPv6, 0.0.0.0. May
 * block on a name server. 0 and an array (free it); a negative errno; or STK_ADDR_E_* with
 * *ret_error.
 */
int stk_addr_resolve(const struct stk_addr_spec *spec, struct stk_addr **ret_addrs, size_t *ret_n,
                     char **ret_error) STK_MUST_CHECK;

/*
 * The text of a peer's address, without port, an IPv4-mapped one as IPv4; "" for a unix socket.
 * Returns its length; *ret_port is 0 for a unix socket. Cheap: no look-up, no allocation.
 */
size_t stk_addr_format(const struct stk_addr *addr, char buf[STK_ADDR_TEXT_MAX],
                       uint16_t *ret_port);
/* "127.0.0.1:8000", "[::1]:8000", "unix:/path", "unix:@name"; free it. */
char *stk_addr_text(const struct stk_addr *addr);
/* The port of an IPv4 or IPv6 address in host order, else 0. */
uint16_t stk_addr_port(const struct stk_addr *addr);
void stk_addr_set_port(struct stk_addr *addr, uint16_t port);
/* Whether the address stands for all interfaces (0.0.0.0 or ::). */
bool stk_addr_is_wildcard(const struct stk_addr *addr);
/* Whether only this machine reaches it: 127.0.0.0/8, ::1, a unix socket. */
bool stk_addr_is_loopback(const struct stk_addr *addr);
/* Whether both name the same socket: family, address, port or path. */
bool stk_addr_eq(const struct stk_addr *a, const struct stk_addr *b);
