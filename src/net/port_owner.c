/*
 * Finds the process behind a port: /proc/net/tcp and tcp6 give the inode of a listening socket, the
 * links in /proc/<pid>/fd say who has it. That walk is slow and may be refused for other users'
 * processes, which is all right: it runs once, before a refusal to start, to make it readable.
 */
#include "net/port_owner.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"

/* TCP_LISTEN in the `st` column. */
#define PORT_OWNER_LISTEN 0x0a

/* Whether a listener at `hex` (the address column) stands in the way of addr. */
static bool port_owner_overlaps(const struct stk_addr *addr, const char *hex, size_t len)
{
    char want[33];
    const char *zeros = "00000000000000000000000000000000";

    if (strncmp(hex, zeros, len) == 0 || stk_addr_is_wildcard(addr))
        return true;
    if (addr->ss.ss_family == AF_INET) {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)&addr->ss;

        /* As 32-bit words in the machine's order; an IPv4-mapped one ends tcp6's column. */
        (void)snprintf(want, sizeof want, "%08X", (unsigned)in4->sin_addr.s_addr);
        return len >= 8 && strncmp(hex + len - 8, want, 8) == 0;
    }
    if (addr->ss.ss_family == AF_INET6 && len == 32) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr->ss;
        const uint32_t *w = in6->sin6_addr.s6_addr32;

        (void)snprintf(want, sizeof want, "%08X%08X%08X%08X", w[0], w[1], w[2], w[3]);
        return strncmp(hex, want, 32) == 0;
    }
    return false;
}

/* One line: "sl: ADDR:PORT ADDR:PORT ST tx:rx tr:when retr uid timeout inode". 0: not it. */
static unsigned long port_owner_parse_line(const char *line, const struct stk_addr *addr)
{
    char local[40];
    unsigned port, state;
    unsigned long inode;
    size_t len;

    /* NOLINTNEXTLINE(cert-err34-c): the kernel's own numbers, in range by construction */
    if (sscanf(line, " %*d: %39[0-9A-F]:%x %*[0-9A-F]:%*x %x %*x:%*x %*x:%*x %*x %*u %*u %lu",
               local, &port, &state, &inode) != 4)
        return 0;
    len = strlen(local);
    if (state != PORT_OWNER_LISTEN || port != stk_addr_port(addr) || (len != 8 && len != 32))
        return 0;
    return port_owner_overlaps(addr, local, len) ? inode : 0;
}

static unsigned long port_owner_inode(const char *table, const struct stk_addr *addr)
{
    FILE *f = fopen(table, "re");
    char line[512];
    unsigned long inode = 0;

    if (f == NULL)
        return 0;
    while (inode == 0 && fgets(line, sizeof line, f) != NULL)
        inode = port_owner_parse_line(line, addr);
    (void)fclose(f);
    return inode;
}

/* Whether the process of /proc/<name> has the socket open. */
static bool port_owner_has(int proc, const char *name, const char *want)
{
    char path[300], link[64];
    struct dirent *de;
    bool found = false;
    DIR *dir;
    int fd;

    if (snprintf(path, sizeof path, "%s/fd", name) >= (int)sizeof path)
        return false;
    fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    dir = fdopendir(fd);
    if (dir == NULL) {
        stk_fd_close(&fd);
        return false;
    }
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is this function's own */
    while (!found && (de = readdir(dir)) != NULL) {
        ssize_t n = readlinkat(fd, de->d_name, link, sizeof link - 1);

        if (n > 0) {
            link[n] = '\0';
            found = strcmp(link, want) == 0;
        }
    }
    (void)closedir(dir);
    return found;
}

static void port_owner_name(const char *pid, char ret_name[32])
{
    char path[300];
    ssize_t n = -1;
    int fd = -1;

    if (snprintf(path, sizeof path, "/proc/%s/comm", pid) < (int)sizeof path)
        fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, ret_name, 31);
        stk_fd_close(&fd);
    }
    if (n < 0)
        n = 0;
    ret_name[n] = '\0';
    ret_name[strcspn(ret_name, "\n")] = '\0';
}

bool stk_port_owner_find(const struct stk_addr *addr, pid_t *ret_pid, char ret_name[32])
{
    unsigned long inode = port_owner_inode("/proc/net/tcp", addr);
    char want[64];
    struct dirent *de;
    bool found = false;
    DIR *proc;

    if (inode == 0)
        inode = port_owner_inode("/proc/net/tcp6", addr);
    proc = inode != 0 ? opendir("/proc") : NULL;
    if (proc == NULL)
        return false;
    (void)snprintf(want, sizeof want, "socket:[%lu]", inode);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is this function's own */
    while (!found && (de = readdir(proc)) != NULL) {
        long pid = strtol(de->d_name, NULL, 10);

        if (pid <= 0 || !port_owner_has(dirfd(proc), de->d_name, want))
            continue;
        *ret_pid = (pid_t)pid;
        port_owner_name(de->d_name, ret_name);
        found = true;
    }
    (void)closedir(proc);
    return found;
}
