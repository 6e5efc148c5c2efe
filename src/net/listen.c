/*
 * Opening listening sockets.
 *
 * TCP: one SO_REUSEPORT socket a worker, all bound here, in the master, before the first fork. The
 * kernel spreads connections evenly over them, no worker wakes for another's, and a replaced worker
 * finds its queue where its predecessor left it. They are never closed while serving: closing one
 * of a group resets what is queued in it.
 *
 * SO_REUSEPORT would let a second server of the same user bind the same port without an error, and
 * each would get half of the connections. So the address is first bound without it, on a socket
 * that is closed again: that finds anybody who listens there.
 *
 * Everything that can go wrong becomes one sentence with the remedy; nothing here logs.
 */
#include "net/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/mem.h"
#include "net/inherit.h"
#include "net/listen_priv.h"
#include "net/port_owner.h"

/* How often port 0 is tried again when the port is free on one address and not on the next. */
#define LISTEN_PORT_TRIES 16

/* What all helpers of one stk_listen_set_open need. */
struct listen_ctx {
    struct stk_listen_set *set;
    const char *text;
    const struct stk_addr_spec *spec;
    unsigned nslots;
    const struct stk_listen_options *options;
    char **ret_error;
};

static int listen_fail(const struct listen_ctx *ctx, char *error)
{
    free(*ctx->ret_error);
    *ctx->ret_error = error;
    return STK_LISTEN_E_FAILED;
}

static void listen_warn(struct stk_listen_set *set, char *text)
{
    char **items;

    for (size_t i = 0; i < set->nwarnings; i++) {
        if (strcmp(set->warnings[i], text) == 0) {
            free(text);
            return;
        }
    }
    items = realloc(set->warnings, (set->nwarnings + 1) * sizeof *items);
    STK_ASSERT(items != NULL);
    items[set->nwarnings++] = text;
    set->warnings = items;
}

static struct stk_listener *listen_new(const struct listen_ctx *ctx, bool shared, unsigned nslots)
{
    struct stk_listener *l = stk_new0(struct stk_listener);

    l->magic = STK_LISTENER_MAGIC;
    l->spec = stk_mem_strdup(ctx->text);
    l->scheme = stk_mem_strdup(ctx->spec->scheme[0] != '\0' ? ctx->spec->scheme : "http");
    l->scheme_given = ctx->spec->scheme_given;
    l->proxy_protocol = ctx->spec->proxy_protocol;
    l->shared = shared;
    l->nslots = nslots;
    l->slots = stk_new0_array(int, nslots);
    for (unsigned i = 0; i < nslots; i++)
        l->slots[i] = -1;
    return l;
}

static void listen_close(struct stk_listener *l)
{
    STK_CHECK_MAGIC(l, STK_LISTENER_MAGIC);
    stk_listen_unix_unlink(l);
    for (unsigned i = 0; i < l->nslots; i++) {
        if (l->shared && i > 0)
            l->slots[i] = -1;
        else
            stk_fd_close(&l->slots[i]);
    }
}

static void listen_free(struct stk_listener *l)
{
    listen_close(l);
    free(l->spec);
    free(l->display);
    free(l->scheme);
    free(l->server_name);
    free(l->server_port);
    free(l->slots);
    l->magic = 0;
    free(l);
}

static void listen_append(struct stk_listen_set *set, struct stk_listener *l)
{
    struct stk_listener **items = realloc(set->items, (set->n + 1) * sizeof(struct stk_listener *));

    STK_ASSERT(items != NULL);
    items[set->n++] = l;
    set->items = items;
}

/* Drops the listeners from index `from` on. */
static void listen_truncate(struct stk_listen_set *set, size_t from)
{
    while (set->n > from)
        listen_free(set->items[--set->n]);
}

/* The texts of a listener whose address is known. */
static void listen_describe(struct stk_listener *l, const char *host)
{
    STK_CLEANUP(stk_mem_freep) char *text = stk_addr_text(&l->addr);
    char name[256], addr[STK_ADDR_TEXT_MAX];
    uint16_t port;

    l->is_unix = l->addr.ss.ss_family == AF_UNIX;
    l->is_wildcard = stk_addr_is_wildcard(&l->addr);
    if (l->is_unix) {
        if (!l->scheme_given) {
            free(l->scheme);
            l->scheme = stk_mem_strdup("auto");
        }
        l->display =
            l->scheme_given ? stk_mem_printf("%s://%s", l->scheme, text) : stk_mem_strdup(text);
        l->server_name = stk_mem_strdup("localhost");
        l->server_port = stk_mem_strdup("");
        return;
    }
    l->display = stk_mem_printf("%s://%s", l->scheme, text);
    (void)stk_addr_format(&l->addr, addr, &port);
    l->server_port = stk_mem_printf("%u", port);
    if (!l->is_wildcard) {
        l->server_name = stk_mem_strdup(host != NULL ? host : addr);
    } else if (gethostname(name, sizeof name) == 0 && name[0] != '\0') {
        name[sizeof name - 1] = '\0';
        l->server_name = stk_mem_strdup(name);
    } else {
        l->server_name = stk_mem_strdup("localhost");
    }
}

static int listen_read_int(const char *path)
{
    char buf[32];
    STK_CLEANUP(stk_fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);

    if (n <= 0)
        return -1;
    buf[n] = '\0';
    return (int)strtol(buf, NULL, 10);
}

static int listen_start(const struct listen_ctx *ctx, int fd, const char *where)
{
    int cap = listen_read_int("/proc/sys/net/core/somaxconn");

    if (listen(fd, ctx->options->backlog) < 0)
        return listen_fail(ctx, stk_mem_printf("%s cannot be listened on: %m", where));
    if (cap >= 0 && cap < ctx->options->backlog)
        listen_warn(ctx->set,
                    stk_mem_printf("the kernel caps the backlog of %d connections to %d: raise "
                                   "net.core.somaxconn by sysctl, or lower --backlog",
                                   ctx->options->backlog, cap));
    return 0;
}

/* The listener of this set that stands in the way of an address, or NULL. */
static struct stk_listener *listen_find_own(const struct stk_listen_set *set,
                                            const struct stk_addr *addr)
{
    for (size_t i = 0; i < set->n; i++) {
        struct stk_listener *l = set->items[i];
        bool same_family = l->addr.ss.ss_family == addr->ss.ss_family;

        if (l->is_unix || stk_addr_port(&l->addr) != stk_addr_port(addr))
            continue;
        if (stk_addr_eq(&l->addr, addr) || (same_family && stk_addr_is_wildcard(addr)) ||
            (l->is_wildcard && (same_family || l->addr.ss.ss_family == AF_INET6)))
            return l;
    }
    return NULL;
}

/* Whether an own IPv4 listener has the port already, so that [::] must leave IPv4 to it. */
static bool listen_has_v4(const struct stk_listen_set *set, uint16_t port)
{
    for (size_t i = 0; i < set->n; i++)
        if (set->items[i]->addr.ss.ss_family == AF_INET &&
            stk_addr_port(&set->items[i]->addr) == port)
            return true;
    return false;
}

static int listen_fail_in_use(const struct listen_ctx *ctx, const struct stk_addr *addr,
                              const char *where)
{
    const struct stk_listener *own = listen_find_own(ctx->set, addr);
    char name[32];
    pid_t pid;

    if (own != NULL)
        return listen_fail(ctx, stk_mem_printf("%s is taken by this server's own --bind %s: leave "
                                               "one of the two out",
                                               where, own->spec));
    if (stk_port_owner_find(addr, &pid, name))
        return listen_fail(ctx, stk_mem_printf("%s is in use by another process (%d, %s): stop it "
                                               "or choose another --bind",
                                               where, (int)pid, name));
    return listen_fail(ctx, stk_mem_printf("%s is in use by another process: stop it or choose "
                                           "another --bind",
                                           where));
}

/* The sentence for a bind() that failed with `err`. */
static int listen_fail_bind(const struct listen_ctx *ctx, const struct stk_addr *addr, int err)
{
    STK_CLEANUP(stk_mem_freep) char *where = stk_addr_text(addr);
    uint16_t port = stk_addr_port(addr);

    switch (err) {
    case EADDRINUSE:
        return listen_fail_in_use(ctx, addr, where);
    case EACCES:
    case EPERM:
        return listen_fail(
            ctx,
            stk_mem_printf("%s needs a privilege, because ports below %d are reserved: choose "
                           "a higher port, pass the socket in (fd://), or allow it by sysctl "
                           "net.ipv4.ip_unprivileged_port_start=%u",
                           where, listen_read_int("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
                           port));
    case EADDRNOTAVAIL:
        return listen_fail(ctx, stk_mem_printf("%s is not an address of this machine: use one of "
                                               "its own, or :%u for all interfaces",
                                               where, port));
    case EAFNOSUPPORT:
        return listen_fail(ctx, stk_mem_printf("%s: this kernel has no IPv6; use :%u or an IPv4 "
                                               "address",
                                               where, port));
    default:
        errno = err;
        return listen_fail(ctx, stk_mem_printf("%s cannot be bound: %m", where));
    }
}

static int listen_set_flag(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

/* A bound socket, not listening. 0 or a negative errno. */
static int listen_bind_tcp(const struct stk_addr *addr, bool reuseport, bool v6only, int *ret_fd)
{
    int family = addr->ss.ss_family;
    STK_CLEANUP(stk_fd_closep)
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r;

    if (fd < 0)
        return -errno;
    r = listen_set_flag(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (r == 0 && reuseport)
        r = listen_set_flag(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (r == 0 && family == AF_INET6)
        r = listen_set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY, v6only);
    if (r == 0)
        r = listen_set_flag(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (r < 0)
        return r;
    if (bind(fd, (const struct sockaddr *)&addr->ss, addr->len) < 0)
        return -errno;
    *ret_fd = stk_fd_steal(&fd);
    return 0;
}

static int listen_read_addr(int fd, struct stk_addr *ret_addr)
{
    struct stk_addr addr = {.len = sizeof addr.ss};

    if (getsockname(fd, (struct sockaddr *)&addr.ss, &addr.len) < 0)
        return -errno;
    *ret_addr = addr;
    return 0;
}

/*
 * One more socket of an address that is bound already. Where none can be bound (the privilege for
 * it is gone, or the first one was made by another user), the slot gets one that is there once
 * more.
 */
static int listen_add_slot(const struct listen_ctx *ctx, struct stk_listener *l, unsigned slot,
                           unsigned have)
{
    bool v6only = false;
    int value = 0;
    socklen_t len = sizeof value;
    int r;

    if (l->addr.ss.ss_family == AF_INET6 &&
        getsockopt(l->slots[0], IPPROTO_IPV6, IPV6_V6ONLY, &value, &len) == 0)
        v6only = value != 0;
    r = listen_bind_tcp(&l->addr, true, v6only, &l->slots[slot]);
    if (r == 0)
        return listen_start(ctx, l->slots[slot], l->display);
    errno = -r;
    listen_warn(ctx->set,
                stk_mem_printf("%s has %u sockets and cannot get more (%m): workers share "
                               "them until the server is started anew",
                               l->display, have));
    l->slots[slot] = fcntl(l->slots[slot % have], F_DUPFD_CLOEXEC, 0);
    if (l->slots[slot] < 0)
        return listen_fail(ctx, stk_mem_printf("%s cannot be shared: %m", l->display));
    return 0;
}

/*
 * Takes the sockets of one TCP address over. Those beyond our number of slots stay too: what waits
 * in them must be served, and closing one would reset it.
 */
static int listen_adopt_tcp(const struct listen_ctx *ctx, struct stk_inherit_group *group)
{
    unsigned have = (unsigned)group->n;
    unsigned n = have > ctx->nslots ? have : ctx->nslots;
    struct stk_listener *l = listen_new(ctx, false, n);
    int r = 0;

    group->taken = true;
    l->addr = group->addr;
    for (unsigned i = 0; i < have; i++)
        l->slots[i] = group->fds[i];
    listen_describe(l, ctx->spec->host);
    for (unsigned i = 0; r == 0 && i < have; i++) {
        r = stk_fd_set_nonblock(l->slots[i], true);
        if (r == 0 && n > have)
            r = listen_set_flag(l->slots[i], SOL_SOCKET, SO_REUSEPORT, 1);
        if (r < 0) {
            errno = -r;
            r = listen_fail(ctx, stk_mem_printf("%s cannot be taken over: %m", l->display));
        } else {
            r = listen_start(ctx, l->slots[i], l->display);
        }
    }
    for (unsigned i = have; r == 0 && i < n; i++)
        r = listen_add_slot(ctx, l, i, have);
    if (r != 0) {
        listen_free(l);
        return STK_LISTEN_E_FAILED;
    }
    listen_append(ctx->set, l);
    return 0;
}

/* Opens the sockets of one TCP address. 0; -errno of the first bind; STK_LISTEN_E_FAILED. */
static int listen_open_tcp(const struct listen_ctx *ctx, const struct stk_addr *want)
{
    bool v6only = want->ss.ss_family == AF_INET6 && listen_has_v4(ctx->set, stk_addr_port(want));
    bool reuseport = ctx->nslots > 1;
    struct stk_inherit_group *group = stk_inherit_find(ctx->options->inherit, ctx->text, want);
    struct stk_listener *l;
    struct stk_addr addr = *want;
    int fd, r;

    if (group != NULL)
        return listen_adopt_tcp(ctx, group);
    if (stk_addr_port(want) != 0) {
        r = listen_bind_tcp(want, false, v6only, &fd);
        if (r < 0)
            return r;
        stk_fd_close(&fd);
    }
    l = listen_new(ctx, false, ctx->nslots);
    for (unsigned i = 0; i < l->nslots; i++) {
        r = listen_bind_tcp(&addr, reuseport, v6only, &l->slots[i]);
        if (r == 0 && i == 0)
            r = listen_read_addr(l->slots[0], &addr);
        if (r < 0) {
            listen_free(l);
            return r;
        }
    }
    l->addr = addr;
    listen_describe(l, ctx->spec->host);
    for (unsigned i = 0; i < l->nslots; i++) {
        if (listen_start(ctx, l->slots[i], l->display) != 0) {
            listen_free(l);
            return STK_LISTEN_E_FAILED;
        }
    }
    listen_append(ctx->set, l);
    return 0;
}

/* Whether an own listener serves the address already; says so in a warning. */
static bool listen_is_covered(const struct listen_ctx *ctx, const struct stk_addr *addr)
{
    const struct stk_listener *own;

    if (stk_addr_port(addr) == 0 || stk_addr_is_wildcard(addr))
        return false;
    own = listen_find_own(ctx->set, addr);
    if (own == NULL)
        return false;
    listen_warn(ctx->set,
                stk_mem_printf("--bind %s is served by --bind %s already", ctx->text, own->spec));
    return true;
}

/* One pass over the addresses. 0; -errno with *ret_failed; STK_LISTEN_E_FAILED. */
static int listen_open_all(const struct listen_ctx *ctx, struct stk_addr *addrs, size_t n,
                           struct stk_addr *ret_failed)
{
    size_t first = ctx->set->n;
    size_t covered = 0;
    int skipped = 0;

    for (size_t i = 0; i < n; i++) {
        int r;

        if (ctx->spec->port == 0 && ctx->set->n > first)
            stk_addr_set_port(&addrs[i], stk_addr_port(&ctx->set->items[first]->addr));
        if (listen_is_covered(ctx, &addrs[i])) {
            covered++;
            continue;
        }
        r = listen_open_tcp(ctx, &addrs[i]);
        if (r > 0)
            return r;
        if (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT) {
            skipped = r;
            *ret_failed = addrs[i];
        } else if (r < 0) {
            *ret_failed = addrs[i];
            return r;
        } else if (ctx->spec->host == NULL) {
            return 0; /* [::] serves IPv4 too */
        }
    }
    return ctx->set->n > first || covered > 0 ? 0 : skipped;
}

static int listen_open_tcp_spec(const struct listen_ctx *ctx)
{
    STK_CLEANUP(stk_mem_freep) struct stk_addr *addrs = NULL;
    struct stk_addr failed = {0};
    size_t before = ctx->set->n;
    size_t n;
    int r = stk_addr_resolve(ctx->spec, &addrs, &n, ctx->ret_error);

    if (r != 0)
        return STK_LISTEN_E_FAILED;
    for (int try = 0; try < LISTEN_PORT_TRIES; try++) {
        for (size_t i = 0; i < n; i++)
            stk_addr_set_port(&addrs[i], ctx->spec->port);
        r = listen_open_all(ctx, addrs, n, &failed);
        if (r == 0)
            return 0;
        listen_truncate(ctx->set, before);
        if (r > 0)
            return r;
        if (ctx->spec->port != 0 || r != -EADDRINUSE)
            break;
    }
    return listen_fail_bind(ctx, &failed, -r);
}

static void listen_share(struct stk_listener *l, int fd)
{
    for (unsigned i = 0; i < l->nslots; i++)
        l->slots[i] = fd;
}

static int listen_open_unix_spec(const struct listen_ctx *ctx)
{
    STK_CLEANUP(stk_mem_freep) struct stk_addr *addr = NULL;
    struct stk_inherit_group *group;
    struct stk_listener *l;
    size_t n;
    int fd, r;

    r = stk_addr_resolve(ctx->spec, &addr, &n, ctx->ret_error);
    if (r != 0)
        return STK_LISTEN_E_FAILED;
    l = listen_new(ctx, true, ctx->nslots);
    l->addr = *addr;
    group = stk_inherit_find(ctx->options->inherit, ctx->text, addr);
    if (group != NULL) {
        group->taken = true;
        fd = group->fds[0];
        stk_listen_unix_adopt(l, ctx->spec);
    } else {
        r = stk_listen_unix_bind(l, ctx->spec, addr, ctx->options, &fd, ctx->ret_error);
    }
    if (r == 0) {
        listen_share(l, fd);
        listen_describe(l, NULL);
        r = listen_start(ctx, fd, l->display);
    }
    if (r != 0) {
        listen_free(l);
        return STK_LISTEN_E_FAILED;
    }
    listen_append(ctx->set, l);
    return 0;
}

/* Why a descriptor cannot be listened on, or NULL. */
static const char *listen_check_fd(const struct stk_listen_set *set, int fd,
                                   struct stk_addr *ret_addr)
{
    int type = 0, accepting = 0;
    socklen_t len = sizeof type;
    int r;

    for (size_t i = 0; i < set->n; i++)
        for (unsigned j = 0; j < set->items[i]->nslots; j++)
            if (set->items[i]->slots[j] == fd)
                return "is a socket of another --bind";
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
        return errno == EBADF ? "is not open: whoever starts the server must pass it in"
                              : "is not a socket";
    len = sizeof accepting;
    if (type != SOCK_STREAM)
        return "is not a stream socket";
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &len) < 0 || !accepting)
        return "is a socket that does not listen: call listen() on it before passing it in";
    r = listen_read_addr(fd, ret_addr);
    if (r < 0 || (ret_addr->ss.ss_family != AF_INET && ret_addr->ss.ss_family != AF_INET6 &&
                  ret_addr->ss.ss_family != AF_UNIX))
        return "is not a TCP or unix socket";
    return NULL;
}

static int listen_open_fd_spec(const struct listen_ctx *ctx)
{
    int fd = ctx->spec->fd;
    struct stk_addr addr = {0};
    struct stk_listener *l;
    const char *fault;
    int r;

    if (fd < 0) {
        struct stk_inherit_group *group =
            stk_inherit_find_name(ctx->options->inherit, ctx->spec->path);

        if (group == NULL)
            return listen_fail(ctx, stk_mem_printf("%s: no socket of that name was passed in: name "
                                                   "it so in the socket unit "
                                                   "(FileDescriptorName=%s)",
                                                   ctx->text, ctx->spec->path));
        fd = group->fds[0];
    }
    fault = listen_check_fd(ctx->set, fd, &addr);
    if (fault != NULL)
        return listen_fail(ctx, stk_mem_printf("%s: descriptor %d %s", ctx->text, fd, fault));
    r = stk_fd_set_cloexec(fd, true);
    if (r == 0)
        r = stk_fd_set_nonblock(fd, true);
    if (r == 0 && addr.ss.ss_family != AF_UNIX)
        r = listen_set_flag(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (r < 0) {
        errno = -r;
        return listen_fail(ctx,
                           stk_mem_printf("%s: descriptor %d cannot be used: %m", ctx->text, fd));
    }
    stk_inherit_take_fd(ctx->options->inherit, fd);
    l = listen_new(ctx, true, ctx->nslots);
    l->addr = addr;
    listen_share(l, fd);
    listen_describe(l, NULL);
    listen_append(ctx->set, l);
    return 0;
}

int stk_listen_set_open(struct stk_listen_set *set, const char *spec, unsigned nslots,
                        const struct stk_listen_options *options, char **ret_error)
{
    STK_CLEANUP(stk_addr_spec_deinit) struct stk_addr_spec parsed = {0};
    char *error = NULL;
    struct listen_ctx ctx = {.set = set,
                             .text = spec,
                             .spec = &parsed,
                             .nslots = nslots,
                             .options = options,
                             .ret_error = &error};
    int r;

    STK_ASSERT(nslots > 0);
    r = stk_addr_spec_parse(spec, &parsed, &error);
    if (r == 0) {
        if (parsed.kind == STK_ADDR_UNIX)
            r = listen_open_unix_spec(&ctx);
        else if (parsed.kind == STK_ADDR_FD)
            r = listen_open_fd_spec(&ctx);
        else
            r = listen_open_tcp_spec(&ctx);
    }
    if (r == 0) {
        free(error);
        return 0;
    }
    STK_ASSERT(error != NULL);
    *ret_error = error;
    return STK_LISTEN_E_FAILED;
}

void stk_listen_set_own(struct stk_listen_set *set, bool own)
{
    for (size_t i = 0; i < set->n; i++)
        set->items[i]->unlink_pid = own ? getpid() : 0;
}

void stk_listen_set_close(struct stk_listen_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        listen_close(set->items[i]);
}

void stk_listen_set_deinit(struct stk_listen_set *set)
{
    listen_truncate(set, 0);
    for (size_t i = 0; i < set->nwarnings; i++)
        free(set->warnings[i]);
    free(set->items);
    free(set->warnings);
    *set = (struct stk_listen_set){0};
}
