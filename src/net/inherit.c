/*
 * Inherited listening sockets.
 *
 * Both sources come down to the same: descriptors with a text, grouped by the address that the
 * kernel says they have. Nothing of the text is believed without asking the kernel: a number may
 * stand for something else meanwhile, or for nothing.
 */
#include "net/inherit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/mem.h"
#include "net/listen.h"

/* More than any service manager or server has. */
#define INHERIT_MAX_FDS 65536

static bool inherit_parse_number(const char *text, size_t len, long max, long *ret_number)
{
    long v = 0;

    if (len == 0 || len > 9)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        v = v * 10 + (text[i] - '0');
    }
    if (v > max)
        return false;
    *ret_number = v;
    return true;
}

static struct stk_inherit_group *inherit_add(struct stk_inherit *inherit, char *spec)
{
    struct stk_inherit_group *groups =
        realloc(inherit->groups, (inherit->n + 1) * sizeof(struct stk_inherit_group));

    STK_ASSERT(groups != NULL);
    inherit->groups = groups;
    groups[inherit->n] = (struct stk_inherit_group){.spec = spec};
    return &groups[inherit->n++];
}

static void inherit_add_fd(struct stk_inherit_group *group, int fd)
{
    int *fds = realloc(group->fds, (group->n + 1) * sizeof *fds);

    STK_ASSERT(fds != NULL);
    fds[group->n++] = fd;
    group->fds = fds;
}

static bool inherit_read_addr(int fd, struct stk_addr *ret_addr)
{
    struct stk_addr addr = {.len = sizeof addr.ss};

    if (getsockname(fd, (struct sockaddr *)&addr.ss, &addr.len) < 0)
        return false;
    *ret_addr = addr;
    return true;
}

static bool inherit_is_listening(int fd)
{
    int accepting = 0;
    socklen_t len = sizeof accepting;

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &len) == 0 && accepting != 0;
}

/* A name that can stand in fd://NAME and is nobody else's. */
static bool inherit_is_good_name(const struct stk_inherit *inherit, const char *name)
{
    if (*name == '\0' || strcmp(name, "unknown") == 0 || name[strspn(name, "0123456789")] == '\0')
        return false;
    for (const char *p = name; *p != '\0'; p++)
        if (*p <= ' ' || *p == 0x7f || *p == '/')
            return false;
    for (size_t i = 0; i < inherit->n; i++)
        if (strcmp(inherit->groups[i].spec + strlen("fd://"), name) == 0)
            return false;
    return true;
}

int stk_inherit_add_activated(struct stk_inherit *inherit, const char *pid, const char *fds,
                              const char *names)
{
    long number, count;

    if (pid == NULL || fds == NULL)
        return 0;
    if (!inherit_parse_number(pid, strlen(pid), INT32_MAX, &number) || number != getpid())
        return 0;
    if (!inherit_parse_number(fds, strlen(fds), INHERIT_MAX_FDS, &count))
        return -EINVAL;
    for (int fd = STK_INHERIT_FIRST_FD; fd < STK_INHERIT_FIRST_FD + count; fd++) {
        size_t len = names != NULL ? strcspn(names, ":") : 0;
        STK_CLEANUP(stk_mem_freep) char *name = stk_mem_strndup(names != NULL ? names : "", len);
        struct stk_inherit_group *group;

        if (names != NULL)
            names += len + (names[len] == ':');
        if (stk_fd_set_cloexec(fd, true) < 0)
            continue; /* not open: the manager has miscounted */
        group = inherit_add(inherit, inherit_is_good_name(inherit, name)
                                         ? stk_mem_printf("fd://%s", name)
                                         : stk_mem_printf("fd://%d", fd));
        inherit_add_fd(group, fd);
        if (!inherit_read_addr(fd, &group->addr))
            group->addr.len = 0;
    }
    return 0;
}

/* Percent-encodes what has a meaning in the text, or none in an environment. */
static char *inherit_encode(const char *text)
{
    char *out = stk_mem_zalloc(strlen(text) * 3 + 1);
    char *p = out;

    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c <= ' ' || c >= 0x7f || c == '%' || c == ':' || c == ',') {
            (void)snprintf(p, 4, "%%%02X", c);
            p += 3;
        } else {
            *p++ = (char)c;
        }
    }
    return out;
}

static int inherit_hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static char *inherit_decode(const char *text, size_t len)
{
    char *out = stk_mem_zalloc(len + 1);
    char *p = out;

    for (size_t i = 0; i < len; i++) {
        int high = i + 2 < len && text[i] == '%' ? inherit_hex(text[i + 1]) : -1;
        int low = high >= 0 ? inherit_hex(text[i + 2]) : -1;

        if (high >= 0 && low >= 0) {
            *p++ = (char)(high << 4 | low);
            i += 2;
        } else {
            *p++ = text[i];
        }
    }
    return out;
}

int stk_inherit_add_text(struct stk_inherit *inherit, const char *text)
{
    const char *colon = strchr(text, ':');
    struct stk_inherit_group *group;
    char *spec;

    if (colon == NULL || colon == text)
        return -EINVAL;
    spec = inherit_decode(text, (size_t)(colon - text));
    if (strncmp(spec, "fd:", 3) == 0 && strncmp(spec, "fd://", 5) != 0) {
        char *full = stk_mem_printf("fd://%s", spec + 3);

        free(spec);
        spec = full;
    }
    group = inherit_add(inherit, spec);
    for (const char *p = colon + 1; *p != '\0';) {
        size_t len = strcspn(p, ",");
        struct stk_addr addr;
        long fd;

        if (!inherit_parse_number(p, len, INT32_MAX, &fd))
            return -EINVAL;
        if (inherit_is_listening((int)fd) && inherit_read_addr((int)fd, &addr) &&
            (group->n == 0 || stk_addr_eq(&group->addr, &addr)) &&
            stk_fd_set_cloexec((int)fd, true) == 0) {
            group->addr = addr;
            inherit_add_fd(group, (int)fd);
        }
        p += len + (p[len] == ',');
    }
    return 0;
}

char *stk_inherit_text(const struct stk_listen_set *set, size_t index)
{
    const struct stk_listener *l = set->items[index];
    STK_CLEANUP(stk_mem_freep) char *spec = inherit_encode(l->spec);
    unsigned n = l->shared ? 1 : l->nslots;
    char *text = stk_mem_printf("%s:", spec);
    bool any = false;

    for (unsigned i = 0; i < n; i++) {
        char *more;

        if (l->slots[i] < 0)
            continue;
        more = stk_mem_printf("%s%s%d", text, any ? "," : "", l->slots[i]);
        free(text);
        text = more;
        any = true;
    }
    if (!any)
        free(stk_steal(&text));
    return text;
}

bool stk_inherit_is_fd(const struct stk_inherit_group *group)
{
    return strncmp(group->spec, "fd:", 3) == 0;
}

/* Equal but for the port. */
static bool inherit_same_host(const struct stk_addr *a, const struct stk_addr *b)
{
    struct stk_addr copy = *a;

    stk_addr_set_port(&copy, stk_addr_port(b));
    return stk_addr_eq(&copy, b);
}

struct stk_inherit_group *stk_inherit_find(struct stk_inherit *inherit, const char *spec,
                                           const struct stk_addr *wanted)
{
    bool any_port = wanted->ss.ss_family != AF_UNIX && stk_addr_port(wanted) == 0;

    for (size_t i = 0; inherit != NULL && i < inherit->n; i++) {
        struct stk_inherit_group *group = &inherit->groups[i];

        if (group->taken || group->n == 0 || group->addr.len == 0)
            continue;
        if (any_port ? strcmp(group->spec, spec) == 0 && inherit_same_host(wanted, &group->addr)
                     : stk_addr_eq(&group->addr, wanted))
            return group;
    }
    return NULL;
}

struct stk_inherit_group *stk_inherit_find_name(struct stk_inherit *inherit, const char *name)
{
    for (size_t i = 0; inherit != NULL && i < inherit->n; i++) {
        struct stk_inherit_group *group = &inherit->groups[i];

        if (!group->taken && group->n > 0 && stk_inherit_is_fd(group) &&
            strcmp(group->spec + strlen("fd://"), name) == 0)
            return group;
    }
    return NULL;
}

void stk_inherit_take_fd(struct stk_inherit *inherit, int fd)
{
    for (size_t i = 0; inherit != NULL && i < inherit->n; i++)
        for (size_t j = 0; j < inherit->groups[i].n; j++)
            if (inherit->groups[i].fds[j] == fd)
                inherit->groups[i].taken = true;
}

void stk_inherit_deinit(struct stk_inherit *inherit)
{
    for (size_t i = 0; i < inherit->n; i++) {
        struct stk_inherit_group *group = &inherit->groups[i];

        for (size_t j = 0; !group->taken && j < group->n; j++)
            stk_fd_close(&group->fds[j]);
        free(group->fds);
        free(group->spec);
    }
    free(stk_steal(&inherit->groups));
    inherit->n = 0;
}
