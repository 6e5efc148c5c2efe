/*
 * Where the control socket is, and who may reach it.
 *
 * Whoever can connect can stop the server, so the file has mode 0600, its folder (where we choose
 * it) is ours and closed to others, and a folder in which others could replace the file is refused.
 * The credentials of each client are checked besides (control.c).
 *
 * The socket is made under a name of its own and renamed when it listens: so nobody finds a file
 * that refuses connections but those that dead servers have left behind, and these can be removed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "master/control.h"

#define PATH_BACKLOG   128
#define PATH_SWEEP_MAX 256 /* entries of the folder that are looked at */

/* Sets the error, and returns the (negative) errno. */
static int path_fail(char **ret_error, int r, char *error)
{
    free(*ret_error);
    *ret_error = error;
    return r;
}

static int path_address(const char *path, struct sockaddr_un *ret_addr)
{
    if (strlen(path) >= sizeof ret_addr->sun_path)
        return -ENAMETOOLONG;
    *ret_addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret_addr->sun_path, path, strlen(path) + 1);
    return 0;
}

/* Whether a server answers at the path: 1, 0 (it is a leftover, or not there) or -errno. */
static int path_probe(const char *path)
{
    STK_CLEANUP(stk_fd_closep)
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un addr;
    int r = path_address(path, &addr);

    if (fd < 0)
        return -errno;
    if (r < 0)
        return r;
    if (connect(fd, (const struct sockaddr *)&addr, sizeof addr) == 0 || errno == EAGAIN)
        return 1;
    return errno == ECONNREFUSED || errno == ENOENT ? 0 : -errno;
}

/* --- the default place ----------------------------------------------------------------------- */

/* A folder of ours that is closed to others; made when it is not there. */
static int path_make_folder(const char *folder, char **ret_error)
{
    struct stat st;

    if (mkdir(folder, 0700) < 0 && errno != EEXIST) {
        int r = -errno;

        return path_fail(ret_error, r, stk_mem_printf("%s cannot be made: %m", folder));
    }
    if (lstat(folder, &st) < 0) {
        int r = -errno;

        return path_fail(ret_error, r, stk_mem_printf("%s: %m", folder));
    }
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return path_fail(
            ret_error, -EPERM,
            stk_mem_printf("%s is not a directory of user %u", folder, (unsigned)geteuid()));
    if ((st.st_mode & 077) != 0)
        return path_fail(
            ret_error, -EPERM,
            stk_mem_printf("%s is open to other users (mode %03o): chmod 700 it, or remove it",
                           folder, (unsigned)st.st_mode & 0777u));
    if (access(folder, W_OK | X_OK) < 0) {
        int r = -errno;

        return path_fail(ret_error, r, stk_mem_printf("%s: %m", folder));
    }
    return 0;
}

static int path_choose_folder(char **ret_folder, char **ret_error)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    STK_CLEANUP(stk_mem_freep) char *folder = NULL;
    int r = -ENOENT;

    if (geteuid() == 0) {
        folder = stk_mem_strdup("/run/stoker");
        r = path_make_folder(folder, ret_error);
    } else if (runtime != NULL && *runtime == '/') {
        folder = stk_mem_printf("%s/stoker", runtime);
        r = path_make_folder(folder, ret_error);
    }
    if (r < 0) {
        free(folder);
        folder = stk_mem_printf("/tmp/stoker-%u", (unsigned)geteuid());
        r = path_make_folder(folder, ret_error);
    }
    if (r < 0)
        return r;
    *ret_folder = stk_steal(&folder);
    return 0;
}

/* PID.sock: what a server of ours has made by itself. */
static bool path_is_automatic(const char *name)
{
    size_t digits = strspn(name, "0123456789");

    return digits > 0 && strcmp(name + digits, ".sock") == 0;
}

/* Removes what servers that were killed have left behind. */
static void path_sweep(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    if (dir == NULL)
        return;
    for (int n = 0; n < PATH_SWEEP_MAX && (entry = readdir(dir)) != NULL; n++) {
        STK_CLEANUP(stk_mem_freep) char *path = stk_mem_printf("%s/%s", folder, entry->d_name);

        if (path_is_automatic(entry->d_name) && path_probe(path) == 0 && unlink(path) < 0) {
            /* Another server has been faster. */
        }
    }
    (void)closedir(dir);
}

/* --- a place that was named ------------------------------------------------------------------ */

static char *path_absolute(const char *path)
{
    char cwd[PATH_MAX];

    if (*path == '/' || getcwd(cwd, sizeof cwd) == NULL)
        return stk_mem_strdup(path);
    return stk_mem_printf("%s/%s", cwd, path);
}

/* Whether the file may be put there: nobody else may replace it, and no living server is there. */
static int path_check(const char *path, bool replace, char **ret_error)
{
    const char *slash = strrchr(path, '/');
    STK_CLEANUP(stk_mem_freep) char *folder = stk_mem_strndup(path, (size_t)(slash - path) + 1);
    struct stat st;
    int r;

    if (stat(folder, &st) < 0) {
        r = -errno;
        return path_fail(ret_error, r,
                         stk_mem_printf("%s: %m; create the directory first", folder));
    }
    if ((st.st_mode & S_IWOTH) != 0 && (st.st_mode & S_ISVTX) == 0)
        return path_fail(
            ret_error, -EPERM,
            stk_mem_printf("%s: every user can write to its directory: choose another", path));
    if (lstat(path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return path_fail(ret_error, -EEXIST,
                         stk_mem_printf("%s exists and is not a socket: remove it or choose "
                                        "another path",
                                        path));
    r = path_probe(path);
    if (r > 0 && replace)
        return 0;
    if (r > 0)
        return path_fail(ret_error, -EADDRINUSE,
                         stk_mem_printf("%s is the control socket of another server that runs: "
                                        "stop it or choose another path",
                                        path));
    if (r < 0) {
        errno = -r;
        return path_fail(ret_error, r, stk_mem_printf("%s: %m", path));
    }
    return 0;
}

/* --- both ------------------------------------------------------------------------------------ */

/* A listening socket at the path, which replaces what is there at once. */
static int path_listen(const char *path, int *ret_fd, char **ret_error)
{
    STK_CLEANUP(stk_mem_freep) char *unfinished = stk_mem_printf("%s.%d", path, (int)getpid());
    STK_CLEANUP(stk_fd_closep)
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un addr;
    int r = path_address(unfinished, &addr);

    if (r < 0)
        return path_fail(ret_error, r,
                         stk_mem_printf("%s is too long for a socket: at most %zu bytes", path,
                                        sizeof addr.sun_path - 12));
    if (fd < 0 || (unlink(unfinished) < 0 && errno != ENOENT)) {
        r = -errno;
        return path_fail(ret_error, r, stk_mem_printf("%s: %m", path));
    }
    /* The mode of the descriptor is the one that the file is made with. */
    if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&addr, sizeof addr) < 0 ||
        chmod(unfinished, 0600) < 0 || listen(fd, PATH_BACKLOG) < 0 ||
        rename(unfinished, path) < 0) {
        r = -errno;
        path_fail(ret_error, r, stk_mem_printf("%s cannot be made: %m", path));
        if (unlink(unfinished) < 0) {
            /* It was not there yet. */
        }
        return r;
    }
    *ret_fd = stk_fd_steal(&fd);
    return 0;
}

int stk_control_bind(const char *value, bool replace, int *ret_fd, char **ret_path,
                     char **ret_error)
{
    STK_CLEANUP(stk_mem_freep) char *path = NULL;
    int r;

    *ret_error = NULL;
    if (strcmp(value, "auto") == 0) {
        STK_CLEANUP(stk_mem_freep) char *folder = NULL;

        r = path_choose_folder(&folder, ret_error);
        if (r < 0)
            return r;
        path_sweep(folder);
        path = stk_mem_printf("%s/%d.sock", folder, (int)getpid());
    } else {
        path = path_absolute(value);
        r = path_check(path, replace, ret_error);
        if (r < 0)
            return r;
    }
    r = path_listen(path, ret_fd, ret_error);
    if (r < 0)
        return r;
    free(stk_steal(ret_error)); /* of a place that was tried first */
    *ret_path = stk_steal(&path);
    return 0;
}
