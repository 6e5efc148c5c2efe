/*
 * Networks as 128-bit prefixes. IPv4 is mapped into ::ffff:0:0/96 before it is stored or looked up,
 * so that there is one comparison, and a dual-stack socket's ::ffff:10.0.0.1 is what the user meant
 * by 10.0.0.1. The sets are a handful of entries: a scan beats a tree.
 */
#include "net/cidr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

static const uint8_t cidr_v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* The text of an address as 16 bytes; *ret_v4 says whether it was IPv4. */
static bool cidr_parse_addr(const char *text, uint8_t ret_addr[16], bool *ret_v4)
{
    if (inet_pton(AF_INET, text, ret_addr + 12) == 1) {
        memcpy(ret_addr, cidr_v4_prefix, sizeof cidr_v4_prefix);
        *ret_v4 = true;
        return true;
    }
    *ret_v4 = false;
    return inet_pton(AF_INET6, text, ret_addr) == 1;
}

static void cidr_mask(struct stk_cidr *cidr)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned first = i * 8;

        if (first >= cidr->bits)
            cidr->addr[i] = 0;
        else if (cidr->bits - first < 8)
            cidr->addr[i] &= (uint8_t)(0xff00u >> (cidr->bits - first));
    }
}

int stk_cidr_parse(const char *text, struct stk_cidr *ret_cidr, char **ret_error)
{
    const char *slash = strchr(text, '/');
    STK_CLEANUP(stk_mem_freep)
    char *host = stk_mem_strndup(text, slash != NULL ? (size_t)(slash - text) : strlen(text));
    struct stk_cidr cidr;
    unsigned bits;
    bool v4;

    if (!cidr_parse_addr(host, cidr.addr, &v4)) {
        *ret_error = stk_mem_printf("\"%s\" is not an address or a network: write 10.0.0.1, "
                                    "10.0.0.0/8, ::1, unix or *",
                                    text);
        return -EINVAL;
    }
    bits = v4 ? 32 : 128;
    if (slash != NULL) {
        size_t n = strspn(slash + 1, "0123456789");
        unsigned long v = strtoul(slash + 1, NULL, 10);

        if (n == 0 || n > 3 || slash[1 + n] != '\0' || v > bits) {
            *ret_error = stk_mem_printf("\"%s\": the prefix of an %s network goes from 0 to %u",
                                        text, v4 ? "IPv4" : "IPv6", bits);
            return -EINVAL;
        }
        bits = (unsigned)v;
    }
    cidr.bits = (uint8_t)(v4 ? bits + 96 : bits);
    cidr_mask(&cidr);
    *ret_cidr = cidr;
    return 0;
}

int stk_cidr_set_add(struct stk_cidr_set *set, const char *text, char **ret_error)
{
    struct stk_cidr cidr;
    struct stk_cidr *items;
    int r;

    if (strcmp(text, "*") == 0) {
        set->any = true;
        return 0;
    }
    if (strcmp(text, "unix") == 0 || strcmp(text, "unix:") == 0) {
        set->unix_peers = true;
        return 0;
    }
    r = stk_cidr_parse(text, &cidr, ret_error);
    if (r < 0)
        return r;
    items = realloc(set->items, (set->n + 1) * sizeof *items);
    STK_ASSERT(items != NULL);
    items[set->n++] = cidr;
    set->items = items;
    return 0;
}

void stk_cidr_set_deinit(struct stk_cidr_set *set)
{
    free(set->items);
    *set = (struct stk_cidr_set){0};
}

static bool cidr_contains(const struct stk_cidr *cidr, const uint8_t addr[16])
{
    unsigned whole = cidr->bits / 8;
    unsigned rest = cidr->bits % 8;

    if (memcmp(cidr->addr, addr, whole) != 0)
        return false;
    return rest == 0 || cidr->addr[whole] == (addr[whole] & (uint8_t)(0xff00u >> rest));
}

static bool cidr_set_contains(const struct stk_cidr_set *set, const uint8_t addr[16])
{
    for (size_t i = 0; i < set->n; i++)
        if (cidr_contains(&set->items[i], addr))
            return true;
    return false;
}

bool stk_cidr_set_match(const struct stk_cidr_set *set, const struct stk_addr *addr)
{
    uint8_t bytes[16];

    if (set->any)
        return true;
    switch (addr->ss.ss_family) {
    case AF_UNIX:
        return set->unix_peers;
    case AF_INET:
        memcpy(bytes, cidr_v4_prefix, sizeof cidr_v4_prefix);
        memcpy(bytes + 12, &((const struct sockaddr_in *)&addr->ss)->sin_addr, 4);
        return cidr_set_contains(set, bytes);
    case AF_INET6:
        memcpy(bytes, &((const struct sockaddr_in6 *)&addr->ss)->sin6_addr, 16);
        return cidr_set_contains(set, bytes);
    default:
        return false;
    }
}

bool stk_cidr_set_match_text(const struct stk_cidr_set *set, stk_span text)
{
    char buf[STK_ADDR_TEXT_MAX];
    uint8_t bytes[16];
    bool v4;

    if (set->any)
        return true;
    if (text.len == 0 || text.len >= sizeof buf || memchr(text.ptr, '\0', text.len) != NULL)
        return false;
    memcpy(buf, text.ptr, text.len);
    buf[text.len] = '\0';
    return cidr_parse_addr(buf, bytes, &v4) && cidr_set_contains(set, bytes);
}
