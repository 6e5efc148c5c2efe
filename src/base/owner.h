/* Users and groups, by name or by number. */
#pragma once

#include <sys/types.h>

#include "base/macros.h"

struct stk_owner {
    uid_t uid;
    gid_t gid;  /* the user's own group; (gid_t)-1: the user has no entry in the database */
    char *name; /* NULL: no entry */
    char *home; /* likewise */
};

/* Looks a user up. 0; -ENOENT: there is no such name; or another negative errno. */
int stk_owner_find_user(const char *text, struct stk_owner *ret_owner) STK_MUST_CHECK;
/* Looks a group up, likewise. */
int stk_owner_find_group(const char *text, gid_t *ret_gid) STK_MUST_CHECK;
/* Frees what an owner holds; harmless for a zeroed one, and twice. */
void stk_owner_deinit(struct stk_owner *owner);
