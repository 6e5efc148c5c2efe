/*
 * PROXY headers. Version 1 is a line of text that ends within 107 bytes; version 2 a block of bytes
 * whose length stands in its first sixteen. Both are read whole or not at all: nothing is kept
 * between calls, and what can be judged early is.
 *
 * It is an input like any other although only trusted peers may send it: every length is checked
 * against the one around it, what could be read in two ways (a field that is there twice) is
 * refused, and names must be free of control bytes, because they go to the environ and the log.
 */
#include "wire/proxy.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

enum {
    PROXY_V2_HEAD = 16, /* signature, command, family, length */
    PROXY_V2_SIGNATURE = 12,
    PROXY_INET_BYTES = 12,
    PROXY_INET6_BYTES = 36,
    PROXY_UNIX_BYTES = 216,
    PROXY_TLV_HEAD = 3,
    PROXY_SSL_HEAD = 5,

    PROXY_TYPE_AUTHORITY = 0x02,
    PROXY_TYPE_CRC32C = 0x03,
    PROXY_TYPE_SSL = 0x20,
    PROXY_SSL_VERSION = 0x21,
    PROXY_SSL_CN = 0x22,
    PROXY_SSL_CIPHER = 0x23,

    PROXY_CLIENT_TLS = 1,
    PROXY_CLIENT_CERT_CONN = 2,
    PROXY_CLIENT_CERT_SESSION = 4,
};

static const char proxy_v1[] = "PROXY ";
static const char proxy_v2[PROXY_V2_SIGNATURE + 1] = "\r\n\r\n\0\r\nQUIT\n";

static uint8_t proxy_u8(const char *p)
{
    return (uint8_t)*p;
}

static uint16_t proxy_u16(const char *p)
{
    return (uint16_t)(proxy_u8(p) << 8 | proxy_u8(p + 1));
}

static uint32_t proxy_u32(const char *p)
{
    return (uint32_t)proxy_u16(p) << 16 | proxy_u16(p + 2);
}

/* --- Addresses ------------------------------------------------------------------------------ */

static void proxy_set_addr(struct stk_proxy_addr *addr, int family, const char *bytes,
                           uint16_t port)
{
    static const char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (char)0xff, (char)0xff};

    if (family == AF_INET6 && memcmp(bytes, mapped, sizeof mapped) == 0) {
        family = AF_INET;
        bytes += sizeof mapped;
    }
    _Static_assert(STK_PROXY_TEXT_ROOM >= INET6_ADDRSTRLEN, "any address fits");
    (void)inet_ntop(family, bytes, addr->text, sizeof addr->text);
    addr->len = (uint8_t)strlen(addr->text);
    addr->port = port;
}

/* --- Version 1 ------------------------------------------------------------------------------ */

/* The next word of a line, which one space ends, or the end of the line for the last one. */
static bool proxy_word(stk_span *line, bool last, stk_span *ret_word)
{
    const char *space = memchr(line->ptr, ' ', line->len);
    size_t n = space != NULL ? (size_t)(space - line->ptr) : line->len;

    if (n == 0 || last != (space == NULL))
        return false;
    *ret_word = stk_span_make(line->ptr, n);
    line->ptr += n + !last;
    line->len -= n + !last;
    return true;
}

/* A decimal port without zeros in front. */
static bool proxy_port(stk_span word, uint16_t *ret_port)
{
    unsigned port = 0;

    if (word.len > 5 || (word.len > 1 && word.ptr[0] == '0'))
        return false;
    for (size_t i = 0; i < word.len; i++) {
        if (word.ptr[i] < '0' || word.ptr[i] > '9')
            return false;
        port = port * 10 + (unsigned)(word.ptr[i] - '0');
    }
    if (port > UINT16_MAX)
        return false;
    *ret_port = (uint16_t)port;
    return true;
}

static bool proxy_address(int family, stk_span word, struct in6_addr *ret_bytes)
{
    char text[STK_PROXY_TEXT_ROOM];

    if (word.len >= sizeof text)
        return false;
    memcpy(text, word.ptr, word.len);
    text[word.len] = '\0';
    return inet_pton(family, text, ret_bytes) == 1;
}

/* "192.0.2.1 198.51.100.7 56324 443" */
static enum stk_proxy_result proxy_v1_addresses(struct stk_proxy *p, int family, stk_span line)
{
    stk_span client, server, client_port, server_port;
    struct in6_addr from, to;
    uint16_t from_port = 0, to_port = 0;

    if (!proxy_word(&line, false, &client) || !proxy_word(&line, false, &server) ||
        !proxy_word(&line, false, &client_port) || !proxy_word(&line, true, &server_port))
        return STK_PROXY_E_MALFORMED;
    if (!proxy_address(family, client, &from) || !proxy_address(family, server, &to) ||
        !proxy_port(client_port, &from_port) || !proxy_port(server_port, &to_port))
        return STK_PROXY_E_ADDRESS;
    p->source = STK_PROXY_IP;
    proxy_set_addr(&p->client, family, (const char *)&from, from_port);
    proxy_set_addr(&p->server, family, (const char *)&to, to_port);
    return STK_PROXY_OK;
}

/* The line behind "PROXY ", without its end. */
static enum stk_proxy_result proxy_v1_line(struct stk_proxy *p, stk_span line)
{
    const char *space = memchr(line.ptr, ' ', line.len);
    size_t n = space != NULL ? (size_t)(space - line.ptr) : line.len;
    stk_span kind = stk_span_make(line.ptr, n);

    if (stk_span_eq(kind, STK_SPAN_LIT("UNKNOWN"))) { /* whatever follows counts not */
        p->source = STK_PROXY_UNKNOWN;
        return STK_PROXY_OK;
    }
    if (space == NULL)
        return STK_PROXY_E_MALFORMED;
    line = stk_span_make(space + 1, line.len - n - 1);
    if (stk_span_eq(kind, STK_SPAN_LIT("TCP4")))
        return proxy_v1_addresses(p, AF_INET, line);
    if (stk_span_eq(kind, STK_SPAN_LIT("TCP6")))
        return proxy_v1_addresses(p, AF_INET6, line);
    return STK_PROXY_E_MALFORMED;
}

static enum stk_proxy_result proxy_parse_v1(struct stk_proxy *p, const char *buf, size_t len)
{
    size_t front = sizeof proxy_v1 - 1, end = front;
    size_t max = len < STK_PROXY_V1_MAX ? len : STK_PROXY_V1_MAX;

    while (end < max && buf[end] >= ' ' && buf[end] <= '~')
        end++;
    if (end == max)
        return max == STK_PROXY_V1_MAX ? STK_PROXY_E_TOO_LONG : STK_PROXY_PARTIAL;
    if (buf[end] != '\r')
        return STK_PROXY_E_MALFORMED;
    if (end + 1 == max)
        return max == STK_PROXY_V1_MAX ? STK_PROXY_E_TOO_LONG : STK_PROXY_PARTIAL;
    if (buf[end + 1] != '\n')
        return STK_PROXY_E_MALFORMED;
    p->len = (uint32_t)end + 2;
    return proxy_v1_line(p, stk_span_make(buf + front, end - front));
}

/* --- Version 2 ------------------------------------------------------------------------------ */

/* CRC-32C (RFC 3720 B.4) of some bytes, going on from `crc`; four bits at a time. */
static uint32_t proxy_crc32c(uint32_t crc, const char *bytes, size_t len)
{
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };

    for (size_t i = 0; i < len; i++) {
        crc ^= proxy_u8(bytes + i);
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return crc;
}

/* Whether the checksum at `at` is that of the header, in which it counts as zeros. */
static bool proxy_is_intact(const char *buf, size_t len, const char *at)
{
    static const char zeros[4];
    uint32_t crc = UINT32_MAX;

    crc = proxy_crc32c(crc, buf, (size_t)(at - buf));
    crc = proxy_crc32c(crc, zeros, sizeof zeros);
    crc = proxy_crc32c(crc, at + 4, len - (size_t)(at + 4 - buf));
    return (crc ^ UINT32_MAX) == proxy_u32(at);
}

/* Takes a field off the front: its type; -1: it does not fit. */
static int proxy_tlv(stk_span *rest, stk_span *ret_value)
{
    int type;
    size_t n;

    if (rest->len < PROXY_TLV_HEAD)
        return -1;
    type = proxy_u8(rest->ptr);
    n = proxy_u16(rest->ptr + 1);
    if (n > rest->len - PROXY_TLV_HEAD)
        return -1;
    *ret_value = stk_span_make(rest->ptr + PROXY_TLV_HEAD, n);
    rest->ptr += PROXY_TLV_HEAD + n;
    rest->len -= PROXY_TLV_HEAD + n;
    return type;
}

/* Notes a text that may be there once. */
static enum stk_proxy_result proxy_set_text(stk_span *field, stk_span value, size_t max)
{
    if (field->ptr != NULL)
        return STK_PROXY_E_TLV;
    if (value.len > max)
        return STK_PROXY_E_TEXT;
    for (size_t i = 0; i < value.len; i++)
        if (proxy_u8(value.ptr + i) < ' ' || value.ptr[i] == 0x7f)
            return STK_PROXY_E_TEXT;
    *field = value;
    return STK_PROXY_OK;
}

/* What the client's TLS was: flags, the outcome of the verification, and fields of their own. */
static enum stk_proxy_result proxy_ssl(struct stk_proxy *p, stk_span value)
{
    stk_span field;
    uint8_t flags;

    if (value.len < PROXY_SSL_HEAD)
        return STK_PROXY_E_TLV;
    flags = proxy_u8(value.ptr);
    p->tls = (flags & PROXY_CLIENT_TLS) != 0;
    p->certificate = p->tls && (flags & (PROXY_CLIENT_CERT_CONN | PROXY_CLIENT_CERT_SESSION)) != 0;
    p->verify = proxy_u32(value.ptr + 1);
    value = stk_span_make(value.ptr + PROXY_SSL_HEAD, value.len - PROXY_SSL_HEAD);
    while (value.len > 0) {
        enum stk_proxy_result r = STK_PROXY_OK;

        switch (proxy_tlv(&value, &field)) {
        case -1:
            return STK_PROXY_E_TLV;
        case PROXY_SSL_VERSION:
            r = proxy_set_text(&p->tls_version, field, STK_PROXY_WORD_MAX);
            break;
        case PROXY_SSL_CIPHER:
            r = proxy_set_text(&p->tls_cipher, field, STK_PROXY_WORD_MAX);
            break;
        case PROXY_SSL_CN:
            r = proxy_set_text(&p->common_name, field, STK_PROXY_NAME_MAX);
            break;
        default:
            break;
        }
        if (r != STK_PROXY_OK)
            return r;
    }
    return STK_PROXY_OK;
}

/* The fields behind the addresses. */
static enum stk_proxy_result proxy_fields(struct stk_proxy *p, const char *buf, stk_span rest)
{
    bool crc = false, ssl = false;
    stk_span value;

    while (rest.len > 0) {
        enum stk_proxy_result r = STK_PROXY_OK;

        switch (proxy_tlv(&rest, &value)) {
        case -1:
            return STK_PROXY_E_TLV;
        case PROXY_TYPE_CRC32C:
            if (crc || value.len != 4)
                return STK_PROXY_E_TLV;
            crc = true;
            if (!proxy_is_intact(buf, p->len, value.ptr))
                return STK_PROXY_E_CHECKSUM;
            break;
        case PROXY_TYPE_SSL:
            if (ssl)
                return STK_PROXY_E_TLV;
            ssl = true;
            r = proxy_ssl(p, value);
            break;
        case PROXY_TYPE_AUTHORITY:
            r = proxy_set_text(&p->authority, value, STK_PROXY_NAME_MAX);
            break;
        default: /* ALPN, padding, a balancer's own ... */
            break;
        }
        if (r != STK_PROXY_OK)
            return r;
    }
    return STK_PROXY_OK;
}

/* The addresses, and what follows them; `body` is all behind the first sixteen bytes. */
static enum stk_proxy_result proxy_v2_body(struct stk_proxy *p, const char *buf, uint8_t family,
                                           stk_span body)
{
    const char *a = body.ptr;
    size_t size = 0;

    switch (family) {
    case 1:
        size = PROXY_INET_BYTES;
        break;
    case 2:
        size = PROXY_INET6_BYTES;
        break;
    case 3:
        size = PROXY_UNIX_BYTES;
        break;
    default: /* what the balancer did not know counts not, nor where it ends */
        p->source = STK_PROXY_UNKNOWN;
        return STK_PROXY_OK;
    }
    if (body.len < size)
        return STK_PROXY_E_LENGTH;
    p->source = family == 3 ? STK_PROXY_UNIX : STK_PROXY_IP;
    if (family == 1) {
        proxy_set_addr(&p->client, AF_INET, a, proxy_u16(a + 8));
        proxy_set_addr(&p->server, AF_INET, a + 4, proxy_u16(a + 10));
    } else if (family == 2) {
        proxy_set_addr(&p->client, AF_INET6, a, proxy_u16(a + 32));
        proxy_set_addr(&p->server, AF_INET6, a + 16, proxy_u16(a + 34));
    }
    return proxy_fields(p, buf, stk_span_make(a + size, body.len - size));
}

static enum stk_proxy_result proxy_parse_v2(struct stk_proxy *p, const char *buf, size_t len)
{
    uint8_t command, family, transport;
    size_t size;

    if (len > PROXY_V2_SIGNATURE && proxy_u8(buf + 12) >> 4 != 2)
        return STK_PROXY_E_VERSION;
    if (len > PROXY_V2_SIGNATURE && (proxy_u8(buf + 12) & 15) > 1)
        return STK_PROXY_E_COMMAND;
    if (len < PROXY_V2_HEAD)
        return STK_PROXY_PARTIAL;
    command = proxy_u8(buf + 12) & 15;
    family = proxy_u8(buf + 13) >> 4;
    transport = proxy_u8(buf + 13) & 15;
    size = proxy_u16(buf + 14);
    if (size > STK_PROXY_MAX - PROXY_V2_HEAD)
        return STK_PROXY_E_TOO_LONG;
    if (command == 1 && (family > 3 || transport > 2))
        return STK_PROXY_E_FAMILY;
    if (len < PROXY_V2_HEAD + size)
        return STK_PROXY_PARTIAL;
    p->len = (uint32_t)(PROXY_V2_HEAD + size);
    if (command == 0) {
        p->source = STK_PROXY_LOCAL;
        return STK_PROXY_OK;
    }
    return proxy_v2_body(p, buf, family, stk_span_make(buf + PROXY_V2_HEAD, size));
}

/* --- Both ----------------------------------------------------------------------------------- */

/* How many bytes of a signature are there; -1: it is none. */
static int proxy_signature(const char *signature, size_t size, const char *buf, size_t len)
{
    size_t n = len < size ? len : size;

    return memcmp(buf, signature, n) == 0 ? (int)n : -1;
}

enum stk_proxy_result stk_proxy_parse(struct stk_proxy *ret_proxy, const char *buf, size_t len)
{
    struct stk_proxy p = {.source = STK_PROXY_LOCAL};
    enum stk_proxy_result r = STK_PROXY_PARTIAL;
    int v1, v2;

    if (len == 0)
        return r;
    v1 = proxy_signature(proxy_v1, sizeof proxy_v1 - 1, buf, len);
    v2 = proxy_signature(proxy_v2, PROXY_V2_SIGNATURE, buf, len);
    if (v1 < 0 && v2 < 0)
        return STK_PROXY_NONE;
    if (v1 == (int)sizeof proxy_v1 - 1)
        r = proxy_parse_v1(&p, buf, len);
    else if (v2 == PROXY_V2_SIGNATURE)
        r = proxy_parse_v2(&p, buf, len);
    if (r == STK_PROXY_OK)
        *ret_proxy = p;
    return r;
}

const char *stk_proxy_error_text(enum stk_proxy_result result)
{
    switch (result) {
    case STK_PROXY_E_MALFORMED:
        return "it is not \"PROXY\", a protocol, two addresses and two ports";
    case STK_PROXY_E_ADDRESS:
        return "an address or a port in it is none";
    case STK_PROXY_E_TOO_LONG:
        return "it is too long";
    case STK_PROXY_E_VERSION:
        return "its version is neither 1 nor 2";
    case STK_PROXY_E_COMMAND:
        return "its command is neither LOCAL nor PROXY";
    case STK_PROXY_E_FAMILY:
        return "its addresses are of a family that there is not";
    case STK_PROXY_E_LENGTH:
        return "it is too short for its addresses";
    case STK_PROXY_E_TLV:
        return "a field in it does not fit, or is there twice";
    case STK_PROXY_E_CHECKSUM:
        return "its checksum is wrong";
    case STK_PROXY_E_TEXT:
        return "a text in it is too long, or has control characters";
    default:
        return NULL;
    }
}
