/* Watches files for autoreload and touch-reload: by inotify, or by looking at them once a second.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"
#include "loop/loop.h"

struct stk_watch;

/*
 * Called from the loop some 50 ms after the last of a burst of changes, with the path of the last
 * file that changed. May call any function here but stk_watch_free.
 */
typedef void (*stk_watch_fn)(void *arg, const char *path);

/* A watcher in a loop, which it does not own. 0 or a negative errno. */
int stk_watch_new(struct stk_loop *loop, stk_watch_fn fn, void *arg, struct stk_watch **ret_watch)
    STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_watch *stk_watch_free(struct stk_watch *w);
/* For a forked child: closes the descriptor and touches nothing of the loop. */
void stk_watch_close(struct stk_watch *w);
/* Adds files: absolute paths, one a line. Those known already stay as they are. */
void stk_watch_add_files(struct stk_watch *w, const char *text, size_t len);
/* Adds one file, an absolute path that need not exist yet, which is looked at by its path as well.
 */
void stk_watch_add_touch(struct stk_watch *w, char *path);
/* Adds a folder whose *.py files count while the watcher is eager. */
void stk_watch_add_folder(struct stk_watch *w, const char *path);
/* From now on each file of a burst is told of, in a call of its own. */
void stk_watch_tell_each(struct stk_watch *w);
/* Whether any *.py in the folders counts, also one that nobody has imported yet. */
void stk_watch_set_eager(struct stk_watch *w, bool eager);
/* How many files are watched. */
size_t stk_watch_count(const struct stk_watch *w);
/* Stops using inotify, as where there is none. */
void stk_watch_use_polling(struct stk_watch *w);
bool stk_watch_is_polling(const struct stk_watch *w);
