/*
 * Users and groups. A number is taken as it is, also without an entry in the database: that is how
 * containers name users that only exist outside.
 */
#include "base/owner.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/mem.h"

/* An entry of any length fits: groups with thousands of members are known. */
enum { OWNER_BUF_MIN = 4096, OWNER_BUF_MAX = 16 << 20 };

static bool owner_parse_number(const char *text, unsigned *ret_id)
{
    char *end;
    unsigned long v;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    v = strtoul(text, &end, 10);
    if (*end != '\0' || errno != 0 || v >= UINT_MAX)
        return false;
    *ret_id = (unsigned)v;
    return true;
}

/* A lookup's result: it says "not found" in several ways. */
static int owner_result(int r, bool found)
{
    if (found)
        return 0;
    return r == 0 || r == ENOENT || r == ESRCH || r == EBADF || r == EPERM ? -ENOENT : -r;
}

int stk_owner_find_user(const char *text, struct stk_owner *ret_owner)
{
    struct stk_owner owner = {.gid = (gid_t)-1};
    bool number = owner_parse_number(text, &owner.uid);
    struct passwd entry, *found = NULL;
    char *buf = NULL;
    int r = ERANGE;

    for (size_t size = OWNER_BUF_MIN; r == ERANGE && size <= OWNER_BUF_MAX; size *= 2) {
        free(buf);
        buf = stk_mem_zalloc(size);
        r = number ? getpwuid_r(owner.uid, &entry, buf, size, &found)
                   : getpwnam_r(text, &entry, buf, size, &found);
    }
    r = owner_result(r, found != NULL);
    if (r == 0) {
        owner.uid = entry.pw_uid;
        owner.gid = entry.pw_gid;
        owner.name = stk_mem_strdup(entry.pw_name);
        owner.home = stk_mem_strdup(entry.pw_dir);
    }
    free(buf);
    if (r == 0 || number)
        *ret_owner = owner;
    return number ? 0 : r;
}

int stk_owner_find_group(const char *text, gid_t *ret_gid)
{
    struct group entry, *found = NULL;
    char *buf = NULL;
    unsigned number;
    int r = ERANGE;

    if (owner_parse_number(text, &number)) {
        *ret_gid = number;
        return 0;
    }
    for (size_t size = OWNER_BUF_MIN; r == ERANGE && size <= OWNER_BUF_MAX; size *= 2) {
        free(buf);
        buf = stk_mem_zalloc(size);
        r = getgrnam_r(text, &entry, buf, size, &found);
    }
    r = owner_result(r, found != NULL);
    if (r == 0)
        *ret_gid = entry.gr_gid;
    free(buf);
    return r;
}

void stk_owner_deinit(struct stk_owner *owner)
{
    free(stk_steal(&owner->name));
    free(stk_steal(&owner->home));
}
