/*
 * The caches that a configuration asks for: `cache`, and what is put into them at the start. Made
 * by the master before anything is forked.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "config/options.h"
#include "ipc/cache.h"

struct stk_json;

struct stk_caches {
    struct stk_cache **items; /* the first is the one without a name */
    uint64_t *hands;          /* of the sweeps */
    size_t n;
};

/* When stk_caches_tick is due again, with and without a part of its work left over. */
enum { STK_CACHES_TICK_MS = 1000, STK_CACHES_SOON_MS = 20 };

/*
 * Reads one value of `cache`: "name=...,items=...", or a number of items. The texts of *ret_params
 * are in *ret_text; free() it. 0, or -EINVAL with a sentence (free it).
 */
int stk_caches_parse(const char *spec, struct stk_cache_params *ret_params, char **ret_text,
                     char **ret_error) STK_MUST_CHECK;
/* Checks all options about caches; what is wrong goes to `fail`, with the item of the list. */
void stk_caches_verify(const struct stk_config *config,
                       void (*fail)(void *arg, enum stk_option_id id, size_t item,
                                    const char *text),
                       void *arg);

/* What a server begins with. */
struct stk_caches_start {
    struct stk_cache_fds *old; /* those of the server before this one; taken, or closed */
    size_t nold;
    bool trial; /* only to see whether the application can be loaded: no store is touched */
};

/*
 * Makes them all. *ret_caches is NULL where none is configured. 0 or a negative errno, the reason
 * logged.
 */
int stk_caches_new(const struct stk_config *config, const struct stk_caches_start *start,
                   struct stk_caches **ret_caches) STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_caches *stk_caches_free(struct stk_caches *caches);
/* After an upgrade: stores that were begun beside the old server's take their place. Accepts NULL.
 */
void stk_caches_take_place(struct stk_caches *caches);
/* In a child: closes their descriptors. Accepts NULL. */
void stk_caches_leave(struct stk_caches *caches);
/* One line for each, for the banner. */
void stk_caches_log(const struct stk_caches *caches);
/* Sweeps a part of what has expired, and has a part of stores written; waits for nobody. True:
 * there is more to do. */
bool stk_caches_tick(struct stk_caches *caches);
/*
 * By name; NULL or "" is the first. NULL: there is none of that name, or `caches` is NULL.
 */
const struct stk_cache *stk_caches_find(const struct stk_caches *caches, const char *name);
/* Writes the array that uWSGI's statistics have of them. `caches` may be NULL. */
void stk_caches_write(struct stk_json *j, const struct stk_caches *caches);
