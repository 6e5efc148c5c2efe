/*
 * The file of a unix socket.
 *
 * The file outlives a server that was killed, so a leftover is normal and removed; but only after a
 * connection to it was refused, because a living server must never lose its socket to a second one.
 * Mode and owner are set between bind() and listen(): until listen() everybody's connect() fails,
 * so there is no moment in which the socket is open to more people than it should be.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/owner.h"
#include "net/listen_priv.h"

static int listen_unix_fail(char **ret_error, char *error)
{
    *ret_error = error;
    return STK_LISTEN_E_FAILED;
}

/* " (process 12 \"nginx\")" of the other end of a connection, or "". */
static char *listen_unix_peer(int fd)
{
    struct ucred cred;
    socklen_t len = sizeof cred;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || cred.pid <= 0)
        return stk_mem_strdup("");
    return stk_mem_printf(" (process %d)", (int)cred.pid);
}

/* Whether somebody listens there. 0: nobody; 1: yes, *ret_error says who; -errno: cannot tell. */
static int listen_unix_probe(const struct stk_addr *addr, const char *text, char **ret_error)
{
    STK_CLEANUP(stk_fd_closep)
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&addr->ss, addr->len) == 0 || errno == EAGAIN) {
        STK_CLEANUP(stk_mem_freep) char *who = listen_unix_peer(fd);

        *ret_error = stk_mem_printf("%s is in use by another server%s: stop it or choose another "
                                    "--bind",
                                    text, who);
        return 1;
    }
    return errno == ECONNREFUSED || errno == ENOENT ? 0 : -errno;
}

/* Clears the way for bind(). */
static int listen_unix_prepare(const struct stk_addr *addr, const char *path, const char *text,
                               char **ret_error)
{
    struct stat st;
    int r;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : listen_unix_fail(ret_error, stk_mem_printf("%s: %m", text));
    if (!S_ISSOCK(st.st_mode))
        return listen_unix_fail(
            ret_error, stk_mem_printf("%s exists and is not a socket: remove it or choose another "
                                      "path",
                                      text));
    r = listen_unix_probe(addr, text, ret_error);
    if (r > 0)
        return STK_LISTEN_E_FAILED;
    if (r < 0) {
        errno = -r;
        return listen_unix_fail(
            ret_error,
            stk_mem_printf("%s exists and cannot be asked whether a server is behind it (%m): "
                           "remove it or choose another path",
                           text));
    }
    if (unlink(path) < 0 && errno != ENOENT)
        return listen_unix_fail(
            ret_error, stk_mem_printf("%s is a leftover that cannot be removed: %m", text));
    return 0;
}

/* "user", "user:group", ":group"; what is not named stays (unsigned)-1. */
static int listen_unix_owner(const char *owner, uid_t *ret_uid, gid_t *ret_gid, char **ret_error)
{
    STK_CLEANUP(stk_mem_freep) char *user = stk_mem_strndup(owner, strcspn(owner, ":"));
    const char *group = strchr(owner, ':');
    STK_CLEANUP(stk_owner_deinit) struct stk_owner found = {.uid = (uid_t)-1};

    *ret_gid = (gid_t)-1;
    if (*user != '\0' && stk_owner_find_user(user, &found) < 0)
        return listen_unix_fail(ret_error, stk_mem_printf("there is no user \"%s\"", user));
    *ret_uid = found.uid;
    if (group == NULL || group[1] == '\0')
        return 0;
    if (stk_owner_find_group(group + 1, ret_gid) < 0)
        return listen_unix_fail(ret_error, stk_mem_printf("there is no group \"%s\"", group + 1));
    return 0;
}

static int listen_unix_set_access(const char *path, const char *text, int64_t mode,
                                  const char *owner, char **ret_error)
{
    uid_t uid;
    gid_t gid;

    if (owner != NULL) {
        STK_CLEANUP(stk_mem_freep) char *error = NULL;

        if (listen_unix_owner(owner, &uid, &gid, &error) != 0)
            return listen_unix_fail(ret_error, stk_mem_printf("%s: %s", text, error));
        if (lchown(path, uid, gid) < 0)
            return listen_unix_fail(
                ret_error, stk_mem_printf("%s cannot be given to \"%s\": %m; that takes root, or a "
                                          "group that you are in",
                                          text, owner));
    }
    if (mode >= 0 && chmod(path, (mode_t)mode) < 0)
        return listen_unix_fail(ret_error, stk_mem_printf("%s: the mode cannot be set: %m", text));
    return 0;
}

static char *listen_unix_absolute(const char *path)
{
    char cwd[PATH_MAX];

    if (*path == '/' || getcwd(cwd, sizeof cwd) == NULL)
        return stk_mem_strdup(path);
    return stk_mem_printf("%s/%s", cwd, path);
}

void stk_listen_unix_adopt(struct stk_listener *l, const struct stk_addr_spec *spec)
{
    struct stat st;

    if (*spec->path == '@' || stat(spec->path, &st) < 0)
        return;
    l->unlink_path = listen_unix_absolute(spec->path);
    l->unlink_dev = st.st_dev;
    l->unlink_ino = st.st_ino;
}

int stk_listen_unix_bind(struct stk_listener *l, const struct stk_addr_spec *spec,
                         const struct stk_addr *addr, const struct stk_listen_options *options,
                         int *ret_fd, char **ret_error)
{
    STK_CLEANUP(stk_mem_freep) char *text = stk_addr_text(addr);
    STK_CLEANUP(stk_fd_closep)
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const char *owner = spec->owner != NULL ? spec->owner : options->socket_owner;
    int64_t mode = spec->mode >= 0 ? spec->mode : options->socket_mode;
    bool abstract = *spec->path == '@';

    if (fd < 0)
        return listen_unix_fail(ret_error, stk_mem_printf("%s: %m", text));
    if (!abstract) {
        int r = listen_unix_prepare(addr, spec->path, text, ret_error);

        if (r != 0)
            return r;
    }
    if (bind(fd, (const struct sockaddr *)&addr->ss, addr->len) < 0) {
        if (errno == EADDRINUSE)
            return listen_unix_fail(ret_error, stk_mem_printf("%s is in use by another server: "
                                                              "stop it or choose another --bind",
                                                              text));
        return listen_unix_fail(ret_error,
                                stk_mem_printf("%s cannot be made: %m%s", text,
                                               errno == ENOENT ? "; create its folder first" : ""));
    }
    if (!abstract) {
        stk_listen_unix_adopt(l, spec);
        l->unlink_pid = getpid();
        if (listen_unix_set_access(spec->path, text, mode, owner, ret_error) != 0)
            return STK_LISTEN_E_FAILED;
    }
    *ret_fd = stk_fd_steal(&fd);
    return 0;
}

void stk_listen_unix_unlink(struct stk_listener *l)
{
    struct stat st;

    if (l->unlink_path == NULL)
        return;
    if (l->unlink_pid == getpid() && lstat(l->unlink_path, &st) == 0 &&
        st.st_dev == l->unlink_dev && st.st_ino == l->unlink_ino && unlink(l->unlink_path) < 0) {
        /* Gone already, or the folder became read-only: the next start clears a leftover. */
    }
    free(stk_steal(&l->unlink_path));
}

stk_span stk_listener_path(const struct stk_listener *listener)
{
    const struct sockaddr_un *un = (const void *)&listener->addr.ss;
    size_t most = listener->addr.len > offsetof(struct sockaddr_un, sun_path)
                      ? listener->addr.len - offsetof(struct sockaddr_un, sun_path)
                      : 0;

    if (!listener->is_unix || most == 0 || un->sun_path[0] == '\0')
        return stk_span_make("", 0);
    return stk_span_make(un->sun_path, strnlen(un->sun_path, most));
}
