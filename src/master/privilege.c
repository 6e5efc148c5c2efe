/*
 * From root to the user of the server.
 *
 * Everything that needs root is done by then: addresses are bound, the pidfile is written, the
 * error log is open. What is opened again later (logs on SIGUSR1) is opened by the user, so log
 * files that belong to root are given away here, and what the user cannot write is refused here,
 * where the sentence still reaches whoever starts the server.
 *
 * There is no way back, and that is tried: a process that could become root again has dropped
 * nothing. PR_SET_NO_NEW_PRIVS closes the other ways, programs with the set-user-id bit.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/owner.h"
#include "master/master_priv.h"
#include "serve/log_place.h"

/* Whom to become. */
struct privilege {
    struct stk_owner user; /* uid as it is now when no user is given */
    gid_t gid;
};

static bool privilege_is_given(const char *option)
{
    return option != NULL && *option != '\0';
}

/* 0, or -ENOENT with *ret_error. */
static int privilege_find(const struct stk_config *config, struct privilege *ret_privilege,
                          char **ret_error)
{
    STK_CLEANUP(stk_owner_deinit) struct stk_owner user = {.uid = geteuid(), .gid = getegid()};
    gid_t gid;

    if (privilege_is_given(config->user) && stk_owner_find_user(config->user, &user) < 0) {
        *ret_error = stk_mem_printf("user: there is no user \"%s\"", config->user);
        return -ENOENT;
    }
    gid = user.gid;
    if (privilege_is_given(config->group) && stk_owner_find_group(config->group, &gid) < 0) {
        *ret_error = stk_mem_printf("group: there is no group \"%s\"", config->group);
        return -ENOENT;
    }
    if (gid == (gid_t)-1) {
        *ret_error = stk_mem_printf("user: %s is in no user database, so --group has to be given "
                                    "too",
                                    config->user);
        return -ENOENT;
    }
    *ret_privilege = (struct privilege){.user = user, .gid = gid};
    user = (struct stk_owner){0};
    return 0;
}

char *stk_privilege_owner(const struct stk_config *config)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    struct privilege to = {0};
    char *text;

    if (geteuid() != 0 ||
        (!privilege_is_given(config->user) && !privilege_is_given(config->group)) ||
        privilege_find(config, &to, &error) < 0)
        return NULL;
    text = stk_mem_printf("%u:%u", (unsigned)to.user.uid, (unsigned)to.gid);
    stk_owner_deinit(&to.user);
    return text;
}

/* The path of a log that is a file, else NULL. */
const char *stk_privilege_log_path(const char *target)
{
    static const char *const others[] = {"-", "off", "stdout", "stderr", "syslog"};

    if (target == NULL || *target == '\0' || strncmp(target, "/dev/", 5) == 0 ||
        strncmp(target, "syslog:", 7) == 0)
        return NULL;
    for (size_t i = 0; i < STK_ARRAY_LEN(others); i++)
        if (strcmp(target, others[i]) == 0)
            return NULL;
    return target;
}

/* Makes a log's file if it is not there, and gives it to the user if it is root's. */
static void privilege_give_log(const char *target, const struct privilege *to)
{
    const char *path = stk_privilege_log_path(target);
    STK_CLEANUP(stk_fd_closep) int fd = -1;
    struct stat st;

    if (path == NULL)
        return;
    /* Neither through links of others, nor what has a second name elsewhere. */
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_uid != 0)
        return;
    if (fchown(fd, to->user.uid, to->gid) < 0)
        stk_log_warning("the log %s cannot be given to the server's user: %m", path);
}

static void privilege_give_loggers(const struct stk_strv *loggers, const struct privilege *to)
{
    for (size_t i = 0; i < loggers->n; i++) {
        STK_CLEANUP(stk_mem_freep) char *error = NULL;
        struct stk_log_place place = {0};

        if (stk_log_place_parse(&place, loggers->items[i], &error) < 0)
            continue;
        if (place.method == STK_LOG_METHOD_FILE)
            privilege_give_log(place.target, to);
        stk_log_place_deinit(&place);
    }
}

static int privilege_check_log(const char *option, const char *target)
{
    const char *path = stk_privilege_log_path(target);

    if (path == NULL || faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0)
        return 0;
    stk_log_critical("%s: the server's user cannot write %s (%m): give the file to that user",
                     option, path);
    return -EACCES;
}

static int privilege_set_groups(const struct privilege *to)
{
    if (to->user.name != NULL && initgroups(to->user.name, to->gid) == 0)
        return 0;
    if (to->user.name != NULL && errno != EINVAL)
        return -errno;
    return setgroups(1, &to->gid) < 0 ? -errno : 0;
}

/* 0 or a negative errno. */
static int privilege_become(const struct privilege *to)
{
    int r = privilege_set_groups(to);

    if (r < 0)
        return r;
    if (setresgid(to->gid, to->gid, to->gid) < 0 ||
        setresuid(to->user.uid, to->user.uid, to->user.uid) < 0)
        return -errno;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    /* The change of user has made the process unreadable for that user: no core files, and no way
     * for the master to see the memory of its workers. */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
        return -errno;
    return 0;
}

/* Whether a way back is left. */
static bool privilege_is_left(const struct privilege *to)
{
    uid_t uid[3];
    gid_t gid[3];

    if (getresuid(&uid[0], &uid[1], &uid[2]) < 0 || getresgid(&gid[0], &gid[1], &gid[2]) < 0)
        return true;
    for (int i = 0; i < 3; i++)
        if (uid[i] != to->user.uid || gid[i] != to->gid)
            return true;
    return to->user.uid != 0 && (setuid(0) == 0 || seteuid(0) == 0);
}

/* Whether there is nothing to change: the server was started by that user, or is a successor. */
static bool privilege_is_reached(const struct privilege *to)
{
    return geteuid() != 0 && to->user.uid == geteuid() && to->gid == getegid();
}

static int privilege_drop(const struct stk_config *config, const struct privilege *to)
{
    int r;

    if (privilege_is_reached(to))
        return 0;
    if (geteuid() != 0) {
        stk_log_critical("user and group can only be changed by root, and this server was started "
                         "by user %u: start it by root, or leave --user and --group out",
                         (unsigned)geteuid());
        return -EPERM;
    }
    privilege_give_log(config->error_log, to);
    privilege_give_log(config->access_log, to);
    privilege_give_loggers(&config->logger, to);
    privilege_give_loggers(&config->req_logger, to);
    r = privilege_become(to);
    if (r < 0) {
        errno = -r;
        stk_log_critical("the server cannot become user %u, group %u: %m", (unsigned)to->user.uid,
                         (unsigned)to->gid);
        return r;
    }
    if (privilege_is_left(to)) {
        stk_log_critical("the server could still become root after becoming user %u: it ends",
                         (unsigned)to->user.uid);
        return -EPERM;
    }
    r = privilege_check_log("error-log", config->error_log);
    if (r == 0)
        r = privilege_check_log("access-log", config->access_log);
    if (r == 0)
        stk_log_info("this server is now user %u (%s), group %u", (unsigned)to->user.uid,
                     to->user.name != NULL ? to->user.name : "no name", (unsigned)to->gid);
    return r;
}

int stk_privilege_drop(const struct stk_config *config)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    struct privilege to = {0};
    int r;

    if (!privilege_is_given(config->user) && !privilege_is_given(config->group))
        return 0;
    if (privilege_find(config, &to, &error) < 0) {
        stk_log_critical("%s", error);
        return STK_MASTER_EXIT_CONFIG;
    }
    r = privilege_drop(config, &to);
    stk_owner_deinit(&to.user);
    return r == 0 ? 0 : STK_MASTER_EXIT_CONFIG;
}
