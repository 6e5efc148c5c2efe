/*
 * Listening sockets that this process was started with: by a service manager (socket activation,
 * sd_listen_fds(3)), or by the server whose place it takes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/macros.h"
#include "net/addr.h"

/* Sockets of one address. */
struct stk_inherit_group {
    char *
        spec; /* of --bind as the old server had it; "fd://NAME" or "fd://N" of a service manager */
    struct stk_addr addr;
    int *fds;
    size_t n;
    bool taken; /* a listener owns the descriptors now */
};

/* Begins zeroed. */
struct stk_inherit {
    struct stk_inherit_group *groups;
    size_t n;
};

struct stk_listen_set;

/* The first descriptor of a service manager's. */
#define STK_INHERIT_FIRST_FD 3

/*
 * Takes what the three variables of the protocol say, each of which may be NULL: nothing when `pid`
 * does not name this process. The descriptors become close-on-exec. 0, or -EINVAL for a number of
 * descriptors that is none.
 */
int stk_inherit_add_activated(struct stk_inherit *inherit, const char *pid, const char *fds,
                              const char *names) STK_MUST_CHECK;
/*
 * Takes one group of a text that stk_inherit_text has made: "SPEC:5,6,7" with SPEC
 * percent-encoded. Descriptors that are no listening sockets are left out. 0 or -EINVAL.
 */
int stk_inherit_add_text(struct stk_inherit *inherit, const char *text) STK_MUST_CHECK;
/* The text of one listener of a set, for stk_inherit_add_text; NULL: it is closed. Free it. */
char *stk_inherit_text(const struct stk_listen_set *set, size_t index);

/* The group of an address; where `wanted` has port 0, of the same spec. NULL: none is left. */
struct stk_inherit_group *stk_inherit_find(struct stk_inherit *inherit, const char *spec,
                                           const struct stk_addr *wanted);
/* The group that fd://`name` picks, or NULL. */
struct stk_inherit_group *stk_inherit_find_name(struct stk_inherit *inherit, const char *name);
/* Marks the group of a descriptor as taken. `inherit` may be NULL, here and in what finds. */
void stk_inherit_take_fd(struct stk_inherit *inherit, int fd);
/* Whether a group came with a number or name of its own (fd://) rather than an address. */
bool stk_inherit_is_fd(const struct stk_inherit_group *group);
/* Closes what nobody has taken and frees all; it is empty afterwards. */
void stk_inherit_deinit(struct stk_inherit *inherit);
