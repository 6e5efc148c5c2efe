/*
 * Addresses and their texts.
 *
 * The model: a user's text becomes a spec (pure parsing, every mistake named with its remedy), a
 * spec becomes one or more addresses (the only place that may ask a name server), and an address
 * becomes text again. The last one runs for every accepted connection, so it is written by hand for
 * IPv4 instead of calling getnameinfo(), which costs ten times as much and may block.
 */
#include "net/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/span.h"
#include "config/config.h"

/* What may stand before "://". */
static const struct addr_scheme {
    const char *name;
    const char *canonical;
} addr_schemes[] = {
    {"http", "http"},   {"tcp", "http"},        {"https", "https"},
    {"uwsgi", "uwsgi"}, {"puwsgi", "puwsgi"},   {"scgi", "scgi"},
    {"auto", "auto"},   {"fastcgi", "fastcgi"}, {"fcgi", "fastcgi"},
};

static int addr_fail(char **ret_error, char *error, int code)
{
    *ret_error = error;
    return code;
}

/* Decimal digits only, up to `max`; -1 for anything else. */
static long addr_parse_number(const char *text, size_t len, long max)
{
    long v = 0;

    if (len == 0 || len > 9)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        v = v * 10 + (text[i] - '0');
    }
    return v <= max ? v : -1;
}

static int addr_parse_port(const char *text, const char *port, size_t len, uint16_t *ret_port,
                           char **ret_error)
{
    long v = addr_parse_number(port, len, 65535);

    if (v < 0)
        return addr_fail(ret_error,
                         stk_mem_printf("\"%s\": the port must be a number from 0 to 65535", text),
                         STK_ADDR_E_INVALID);
    *ret_port = (uint16_t)v;
    return 0;
}

/* How the PROXY protocol is to be taken at this address. */
static int addr_parse_proxy(const char *text, stk_span value, struct stk_addr_spec *spec,
                            char **ret_error)
{
    static const struct {
        const char *word;
        enum stk_proxy_protocol how;
    } words[] = {
        {"off", STK_PROXY_PROTOCOL_OFF},
        {"optional", STK_PROXY_PROTOCOL_OPTIONAL},
        {"required", STK_PROXY_PROTOCOL_REQUIRED},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(words); i++)
        if (stk_span_eq(value, stk_span_str(words[i].word))) {
            spec->proxy_protocol = (int)words[i].how;
            return 0;
        }
    return addr_fail(
        ret_error, stk_mem_printf("\"%s\": proxy-protocol= takes off, optional or required", text),
        STK_ADDR_E_INVALID);
}

/* One "key=value" behind the question mark of a spec. */
static int addr_parse_option(const char *text, const char *option, size_t len,
                             struct stk_addr_spec *spec, char **ret_error)
{
    bool is_unix = spec->kind == STK_ADDR_UNIX;

    if (len > 15 && memcmp(option, "proxy-protocol=", 15) == 0)
        return addr_parse_proxy(text, stk_span_make(option + 15, len - 15), spec, ret_error);
    if (is_unix && len > 5 && memcmp(option, "mode=", 5) == 0) {
        int64_t mode = 0;

        for (size_t i = 5; i < len; i++) {
            if (option[i] < '0' || option[i] > '7' || len > 5 + 5)
                return addr_fail(
                    ret_error,
                    stk_mem_printf("\"%s\": mode= takes an octal number such as 660", text),
                    STK_ADDR_E_INVALID);
            mode = mode * 8 + (option[i] - '0');
        }
        if (mode > 0777)
            return addr_fail(ret_error, stk_mem_printf("\"%s\": mode= goes from 000 to 777", text),
                             STK_ADDR_E_INVALID);
        spec->mode = mode;
        return 0;
    }
    if (is_unix && len > 6 && memcmp(option, "owner=", 6) == 0) {
        free(spec->owner);
        spec->owner = stk_mem_strndup(option + 6, len - 6);
        return 0;
    }
    return addr_fail(ret_error,
                     stk_mem_printf("\"%s\": \"%.*s\" is no option of %s: there %s"
                                    "proxy-protocol=required",
                                    text, (int)len, option,
                                    is_unix ? "a unix socket" : "this kind of address",
                                    is_unix ? "are mode=660, owner=user:group and " : "is "),
                     STK_ADDR_E_INVALID);
}

/* What stands behind a question mark. */
static int addr_parse_options(const char *text, const char *option, struct stk_addr_spec *spec,
                              char **ret_error)
{
    while (*option != '\0') {
        size_t n = strcspn(++option, "&");
        int r = addr_parse_option(text, option, n, spec, ret_error);

        if (r != 0)
            return r;
        option += n;
    }
    if (spec->path != NULL && *spec->path == '@' && (spec->mode >= 0 || spec->owner != NULL))
        return addr_fail(ret_error,
                         stk_mem_printf("\"%s\": an abstract socket has no file, so neither mode "
                                        "nor owner",
                                        text),
                         STK_ADDR_E_INVALID);
    return 0;
}

/* `rest` is the path or "@name". */
static int addr_parse_unix(const char *text, const char *rest, struct stk_addr_spec *spec,
                           char **ret_error)
{
    size_t max = sizeof((struct sockaddr_un *)NULL)->sun_path - 1;
    size_t len = strlen(rest);

    spec->kind = STK_ADDR_UNIX;
    if (len == 0 || (len == 1 && *rest == '@'))
        return addr_fail(ret_error,
                         stk_mem_printf("\"%s\": a path is missing: unix:/run/app.sock", text),
                         STK_ADDR_E_INVALID);
    if (len > max)
        return addr_fail(
            ret_error,
            stk_mem_printf("\"%s\": the path of a unix socket has at most %zu bytes", text, max),
            STK_ADDR_E_INVALID);
    spec->path = stk_mem_strndup(rest, len);
    if (!spec->scheme_given)
        memcpy(spec->scheme, "auto", sizeof "auto");
    return 0;
}

static int addr_parse_fd(const char *text, const char *rest, struct stk_addr_spec *spec,
                         char **ret_error)
{
    long fd = addr_parse_number(rest, strlen(rest), 1 << 20);
    bool name = *rest != '\0' && rest[strspn(rest, "0123456789")] != '\0';

    for (const char *p = rest; *p != '\0'; p++)
        name = name && *p > ' ' && *p != 0x7f && *p != '/' && *p != ':';
    if (fd < 0 && (!name || *rest == '-'))
        return addr_fail(ret_error,
                         stk_mem_printf("\"%s\": fd:// takes the number of an inherited "
                                        "descriptor, or the name that a service manager gave it: "
                                        "fd://3",
                                        text),
                         STK_ADDR_E_INVALID);
    spec->kind = STK_ADDR_FD;
    spec->fd = (int)fd;
    if (fd < 0)
        spec->path = stk_mem_strdup(rest);
    return 0;
}

/* "[v6]" or "[v6]:port". */
static int addr_parse_bracket(const char *text, const char *rest, size_t len,
                              struct stk_addr_spec *spec, char **ret_error)
{
    const char *close = memchr(rest, ']', len);
    struct in6_addr in6;
    size_t scope;

    if (close == NULL || (close + 1 < rest + len && close[1] != ':'))
        return addr_fail(ret_error,
                         stk_mem_printf("\"%s\": an IPv6 address is written [::1]:8000", text),
                         STK_ADDR_E_INVALID);
    spec->host = stk_mem_strndup(rest + 1, (size_t)(close - rest - 1));
    scope = strcspn(spec->host, "%");
    {
        STK_CLEANUP(stk_mem_freep) char *bare = stk_mem_strndup(spec->host, scope);

        if (inet_pton(AF_INET6, bare, &in6) != 1)
            return addr_fail(ret_error,
                             stk_mem_printf("\"%s\": \"%s\" is not an IPv6 address", text, bare),
                             STK_ADDR_E_INVALID);
    }
    spec->port = STK_ADDR_DEFAULT_PORT;
    if (close + 1 < rest + len)
        return addr_parse_port(text, close + 2, (size_t)(rest + len - close - 2), &spec->port,
                               ret_error);
    return 0;
}

static int addr_check_host(const char *text, const char *host, char **ret_error)
{
    struct in_addr in4;

    for (const char *p = host; *p != '\0'; p++)
        if (*p <= ' ' || *p == 0x7f || strchr("/?#@\\\"'<>,;", *p) != NULL)
            return addr_fail(ret_error,
                             stk_mem_printf("\"%s\" is not an address: write host:port, :port, "
                                            "unix:/path or fd://3",
                                            text),
                             STK_ADDR_E_INVALID);
    if (host[strspn(host, "0123456789.")] == '\0' && inet_pton(AF_INET, host, &in4) != 1)
        return addr_fail(ret_error,
                         stk_mem_printf("\"%s\": \"%s\" is not an IPv4 address", text, host),
                         STK_ADDR_E_INVALID);
    return 0;
}

static int addr_parse_tcp(const char *text, const char *rest, struct stk_addr_spec *spec,
                          char **ret_error)
{
    size_t len = strlen(rest);
    const char *colon;
    int r;

    if (len > 0 && rest[len - 1] == '/')
        len--;
    if (len == 0)
        return addr_fail(ret_error,
                         stk_mem_printf("\"%s\": an address is missing: 127.0.0.1:8000", text),
                         STK_ADDR_E_INVALID);
    spec->kind = STK_ADDR_TCP;
    if (*rest == '[')
        return addr_parse_bracket(text, rest, len, spec, ret_error);
    if (addr_parse_number(rest, len, 999999999) >= 0)
        return addr_fail(ret_error,
                         stk_mem_printf("\"%s\" has no host: write :%s for all interfaces or "
                                        "127.0.0.1:%s for this machine only",
                                        text, text, text),
                         STK_ADDR_E_INVALID);
    colon = memchr(rest, ':', len);
    if (colon != NULL && memchr(colon + 1, ':', (size_t)(rest + len - colon - 1)) != NULL)
        return addr_fail(ret_error,
                         stk_mem_printf("\"%s\": an IPv6 address is written [::1]:8000", text),
                         STK_ADDR_E_INVALID);
    spec->port = STK_ADDR_DEFAULT_PORT;
    if (colon != NULL) {
        r = addr_parse_port(text, colon + 1, (size_t)(rest + len - colon - 1), &spec->port,
                            ret_error);
        if (r != 0)
            return r;
        len = (size_t)(colon - rest);
    }
    if (len > 0 && !(len == 1 && *rest == '*'))
        spec->host = stk_mem_strndup(rest, len);
    return spec->host != NULL ? addr_check_host(text, spec->host, ret_error) : 0;
}

/* Reads "scheme://"; *rest moves behind it. */
static int addr_parse_scheme(const char *text, const char **rest, struct stk_addr_spec *spec,
                             char **ret_error)
{
    const char *sep = strstr(text, "://");
    stk_span name;

    memcpy(spec->scheme, "http", sizeof "http");
    if (sep == NULL)
        return 0;
    name = stk_span_make(text, (size_t)(sep - text));
    if (stk_span_ieq(name, STK_SPAN_LIT("fd")) || stk_span_ieq(name, STK_SPAN_LIT("unix")))
        return 0;
    for (size_t i = 0; i < STK_ARRAY_LEN(addr_schemes); i++) {
        const struct addr_scheme *s = &addr_schemes[i];

        if (!stk_span_ieq(name, stk_span_str(s->name)))
            continue;
        STK_ASSERT(strlen(s->canonical) < sizeof spec->scheme);
        memcpy(spec->scheme, s->canonical, strlen(s->canonical) + 1);
        spec->scheme_given = true;
        *rest = sep + 3;
        return 0;
    }
    return addr_fail(
        ret_error,
        stk_mem_printf("\"%s\": \"%.*s\" is no scheme: there are http://, https://, uwsgi://, "
                       "puwsgi://, fastcgi://, scgi:// and auto://",
                       text, (int)name.len, name.ptr),
        STK_ADDR_E_INVALID);
}

static bool addr_skip_prefix(const char **rest, const char *prefix)
{
    size_t len = strlen(prefix);

    if (strncasecmp(*rest, prefix, len) != 0)
        return false;
    *rest += len;
    return true;
}

int stk_addr_spec_parse(const char *text, struct stk_addr_spec *ret_spec, char **ret_error)
{
    struct stk_addr_spec spec = {.mode = -1, .fd = -1, .proxy_protocol = -1};
    STK_CLEANUP(stk_mem_freep) char *bare = stk_mem_strndup(text, strcspn(text, "?"));
    const char *rest = bare;
    int r = addr_parse_scheme(bare, &rest, &spec, ret_error);

    if (r == 0) {
        if (addr_skip_prefix(&rest, "fd://") || addr_skip_prefix(&rest, "fd:"))
            r = addr_parse_fd(text, rest, &spec, ret_error);
        else if (addr_skip_prefix(&rest, "unix://") || addr_skip_prefix(&rest, "unix:") ||
                 *rest == '/' || *rest == '@' || strncmp(rest, "./", 2) == 0)
            r = addr_parse_unix(text, rest, &spec, ret_error);
        else
            r = addr_parse_tcp(text, rest, &spec, ret_error);
    }
    if (r == 0)
        r = addr_parse_options(text, text + strlen(bare), &spec, ret_error);
    if (r != 0) {
        stk_addr_spec_deinit(&spec);
        return r;
    }
    *ret_spec = spec;
    return 0;
}

void stk_addr_spec_deinit(struct stk_addr_spec *spec)
{
    free(stk_steal(&spec->host));
    free(stk_steal(&spec->path));
    free(stk_steal(&spec->owner));
}

static void addr_fill_unix(const char *path, struct stk_addr *ret_addr)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&ret_addr->ss;
    size_t len = strlen(path);

    *ret_addr = (struct stk_addr){0};
    un->sun_family = AF_UNIX;
    STK_ASSERT(len < sizeof un->sun_path);
    memcpy(un->sun_path, path, len);
    ret_addr->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (*path == '@')
        un->sun_path[0] = '\0';
    else
        ret_addr->len++;
}

static void addr_fill_any(struct stk_addr addrs[2], uint16_t port)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&addrs[0].ss;
    struct sockaddr_in *in4 = (struct sockaddr_in *)&addrs[1].ss;

    in6->sin6_family = AF_INET6;
    in6->sin6_addr = in6addr_any;
    in6->sin6_port = htons(port);
    addrs[0].len = sizeof *in6;
    in4->sin_family = AF_INET;
    in4->sin_addr.s_addr = htonl(INADDR_ANY);
    in4->sin_port = htons(port);
    addrs[1].len = sizeof *in4;
}

static int addr_resolve_host(const struct stk_addr_spec *spec, struct stk_addr **ret_addrs,
                             size_t *ret_n, char **ret_error)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    struct stk_addr *addrs;
    size_t n = 0;
    int r = getaddrinfo(spec->host, NULL, &hints, &list);

    if (r != 0)
        return addr_fail(ret_error,
                         stk_mem_printf("the host \"%s\" has no address (%s): use an address of "
                                        "this machine, or :%u for all interfaces",
                                        spec->host, gai_strerror(r), spec->port),
                         STK_ADDR_E_UNRESOLVED);
    for (struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next)
        n++;
    addrs = stk_new0_array(struct stk_addr, n);
    n = 0;
    for (struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next) {
        size_t i = 0;

        if (ai->ai_addrlen > sizeof addrs[n].ss)
            continue;
        memcpy(&addrs[n].ss, ai->ai_addr, ai->ai_addrlen);
        addrs[n].len = ai->ai_addrlen;
        stk_addr_set_port(&addrs[n], spec->port);
        while (i < n && !stk_addr_eq(&addrs[i], &addrs[n]))
            i++;
        if (i == n)
            n++;
    }
    freeaddrinfo(list);
    STK_ASSERT(n > 0);
    *ret_addrs = addrs;
    *ret_n = n;
    return 0;
}

int stk_addr_resolve(const struct stk_addr_spec *spec, struct stk_addr **ret_addrs, size_t *ret_n,
                     char **ret_error)
{
    STK_ASSERT(spec->kind != STK_ADDR_FD);
    if (spec->kind == STK_ADDR_UNIX) {
        *ret_addrs = stk_new0_array(struct stk_addr, 1);
        addr_fill_unix(spec->path, *ret_addrs);
        *ret_n = 1;
        return 0;
    }
    if (spec->host != NULL)
        return addr_resolve_host(spec, ret_addrs, ret_n, ret_error);
    *ret_addrs = stk_new0_array(struct stk_addr, 2);
    addr_fill_any(*ret_addrs, spec->port);
    *ret_n = 2;
    return 0;
}

static size_t addr_format_v4(const uint8_t bytes[4], char *buf)
{
    char *p = buf;

    for (unsigned i = 0; i < 4; i++) {
        unsigned v = bytes[i];

        if (i > 0)
            *p++ = '.';
        if (v >= 100)
            *p++ = (char)('0' + v / 100);
        if (v >= 10)
            *p++ = (char)('0' + v / 10 % 10);
        *p++ = (char)('0' + v % 10);
    }
    *p = '\0';
    return (size_t)(p - buf);
}

size_t stk_addr_format(const struct stk_addr *addr, char buf[STK_ADDR_TEXT_MAX], uint16_t *ret_port)
{
    *ret_port = stk_addr_port(addr);
    if (addr->ss.ss_family == AF_INET) {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)&addr->ss;

        return addr_format_v4((const uint8_t *)&in4->sin_addr, buf);
    }
    if (addr->ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr->ss;

        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
            return addr_format_v4(in6->sin6_addr.s6_addr + 12, buf);
        if (inet_ntop(AF_INET6, &in6->sin6_addr, buf, STK_ADDR_TEXT_MAX) != NULL)
            return strlen(buf);
    }
    buf[0] = '\0';
    return 0;
}

static char *addr_text_unix(const struct stk_addr *addr)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&addr->ss;
    size_t head = offsetof(struct sockaddr_un, sun_path);
    size_t len = addr->len > head ? addr->len - head : 0;

    if (len == 0)
        return stk_mem_strdup("unix:");
    if (un->sun_path[0] == '\0')
        return stk_mem_printf("unix:@%.*s", (int)(len - 1), un->sun_path + 1);
    return stk_mem_printf("unix:%.*s", (int)strnlen(un->sun_path, len), un->sun_path);
}

char *stk_addr_text(const struct stk_addr *addr)
{
    char buf[STK_ADDR_TEXT_MAX];
    uint16_t port;

    if (addr->ss.ss_family == AF_UNIX)
        return addr_text_unix(addr);
    stk_addr_format(addr, buf, &port);
    return stk_mem_printf(strchr(buf, ':') != NULL ? "[%s]:%u" : "%s:%u", buf, port);
}

uint16_t stk_addr_port(const struct stk_addr *addr)
{
    if (addr->ss.ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)&addr->ss)->sin_port);
    if (addr->ss.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&addr->ss)->sin6_port);
    return 0;
}

void stk_addr_set_port(struct stk_addr *addr, uint16_t port)
{
    if (addr->ss.ss_family == AF_INET)
        ((struct sockaddr_in *)&addr->ss)->sin_port = htons(port);
    else if (addr->ss.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&addr->ss)->sin6_port = htons(port);
}

bool stk_addr_is_wildcard(const struct stk_addr *addr)
{
    if (addr->ss.ss_family == AF_INET)
        return ((const struct sockaddr_in *)&addr->ss)->sin_addr.s_addr == htonl(INADDR_ANY);
    if (addr->ss.ss_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)&addr->ss)->sin6_addr);
    return false;
}

bool stk_addr_is_loopback(const struct stk_addr *addr)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)&addr->ss;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr->ss;

    switch (addr->ss.ss_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        return ntohl(in->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) && in6->sin6_addr.s6_addr[12] == 127);
    default:
        return false;
    }
}

bool stk_addr_eq(const struct stk_addr *a, const struct stk_addr *b)
{
    if (a->ss.ss_family != b->ss.ss_family || stk_addr_port(a) != stk_addr_port(b))
        return false;
    if (a->ss.ss_family == AF_INET) {
        const struct sockaddr_in *x = (const struct sockaddr_in *)&a->ss;
        const struct sockaddr_in *y = (const struct sockaddr_in *)&b->ss;

        return x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    if (a->ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *x = (const struct sockaddr_in6 *)&a->ss;
        const struct sockaddr_in6 *y = (const struct sockaddr_in6 *)&b->ss;

        return memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr) == 0 &&
               x->sin6_scope_id == y->sin6_scope_id;
    }
    return a->len == b->len && memcmp(&a->ss, &b->ss, a->len) == 0;
}
