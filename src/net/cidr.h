/* Sets of networks: which peers are trusted to speak for their clients. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/span.h"
#include "net/addr.h"

/* A network; IPv4 is kept as IPv4-mapped IPv6, so that 127.0.0.1 and ::ffff:127.0.0.1 are one. */
struct stk_cidr {
    uint8_t addr[16]; /* bits beyond the prefix are 0 */
    uint8_t bits;     /* 0 .. 128 */
};

struct stk_cidr_set {
    struct stk_cidr *items;
    size_t n;
    bool any;        /* "*": everybody */
    bool unix_peers; /* "unix": who connects by a unix socket */
};

/*
 * Parses "10.0.0.0/8", "127.0.0.1", "::1", "fd00::/8"; bits beyond the prefix are cleared. 0, or
 * -EINVAL with *ret_error (free it).
 */
int stk_cidr_parse(const char *text, struct stk_cidr *ret_cidr, char **ret_error) STK_MUST_CHECK;
/* Adds a network, "unix" or "*" to a set (which begins zeroed). As stk_cidr_parse. */
int stk_cidr_set_add(struct stk_cidr_set *set, const char *text, char **ret_error) STK_MUST_CHECK;
/* Frees what a set owns and empties it. */
void stk_cidr_set_deinit(struct stk_cidr_set *set);
/* Whether a peer's address is in the set. */
bool stk_cidr_set_match(const struct stk_cidr_set *set, const struct stk_addr *addr);
/*
 * The same for an address in text, as it stands in X-Forwarded-For; without port and brackets. A
 * text that is no address matches "*" only.
 */
bool stk_cidr_set_match_text(const struct stk_cidr_set *set, stk_span text);
