/*
 * The master and the system around it: the service manager (notify.c), the user it becomes
 * (privilege.c), and the server that takes its place (upgrade.c).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"
#include "config/config.h"

struct stk_master;
struct stk_proc;
struct signalfd_siginfo;

/* notify.c: each does nothing where no service manager listens. */
void stk_notify_init(struct stk_master *m);
void stk_notify_free(struct stk_master *m);
/* In a child. */
void stk_notify_close(struct stk_master *m);
/* All workers serve. */
void stk_notify_ready(struct stk_master *m);
/* A reload or an upgrade begins, and is over, whatever became of it; a sentence each. */
void stk_notify_reloading(struct stk_master *m, const char *status);
void stk_notify_back(struct stk_master *m, const char *status);
void stk_notify_stopping(struct stk_master *m);
/* Another process is the server from now on; waits until that has been read. */
void stk_notify_successor(struct stk_master *m, pid_t pid);
/* A worker has become ready, or answered PING. */
void stk_notify_on_progress(struct stk_proc *p);

/* oom.c: how many processes of the control group the kernel has killed for memory; 0: unknown.
 * `root` is put in front of /proc and /sys ("" in production). */
uint64_t stk_oom_kills(const char *root);

/* privilege.c */
/* Becomes config->user and ->group; before the first fork. 0, or the exit code, the reason logged.
 */
int stk_privilege_drop(const struct stk_config *config) STK_MUST_CHECK;
/* "UID:GID" of whom the server will become, to own its unix sockets; NULL: it stays. Free it. */
char *stk_privilege_owner(const struct stk_config *config);

/* upgrade.c */
/* How an upgrade ended: 0, or a negative errno and what went wrong; one sentence. */
typedef void (*stk_upgrade_fn)(void *arg, int result, const char *sentence);

/* Prepares; a successor begins to listen to its predecessor. 0 or a negative errno. */
int stk_upgrade_init(struct stk_master *m) STK_MUST_CHECK;
void stk_upgrade_free(struct stk_master *m);
/* In a child. */
void stk_upgrade_close(struct stk_master *m);
/*
 * Starts a new server by the command line of this one. 0: it is under way, and the outcome is told
 * to the one that asked for it by stk_upgrade_on_done and to the log. -EALREADY: one is under way;
 * -EBUSY: the server is starting or stopping; -ENOTSUP: the command line is not known; another
 * negative errno: it could not be forked. The reason has been logged.
 */
int stk_upgrade_start(struct stk_master *m) STK_MUST_CHECK;
/* Asks to be told, once, of the outcome of the upgrade that is under way; fn NULL takes it back. */
void stk_upgrade_on_done(struct stk_master *m, stk_upgrade_fn fn, void *arg);
/* Whether this server has taken over from another and that one has not let go yet. */
bool stk_upgrade_is_waiting(const struct stk_master *m);
/* Whether this is the server: it has no successor that is, and none before it that is still. */
bool stk_upgrade_is_server(const struct stk_master *m);
/* All workers serve: a successor says so. */
void stk_upgrade_on_ready(struct stk_master *m);
/* As the new server: the application could not be loaded; `text` is what was logged about it. */
void stk_upgrade_on_load_failed(struct stk_master *m, const char *text);
/* As the new server, which ends without having served: tells the old one what was logged. */
void stk_upgrade_say_why(struct stk_master *m);
/* The server stops: what has been started is given up. */
void stk_upgrade_on_stop(struct stk_master *m);
/* Waits for the successor, if it has died. */
void stk_upgrade_reap(struct stk_master *m);
/*
 * At the end of a turn. Tells the successor when there is nothing left to give it, so that it need
 * not stay for that if it is replaced itself.
 */
void stk_upgrade_on_turn(struct stk_master *m);
bool stk_upgrade_is_ours(const struct stk_master *m, pid_t pid);
/*
 * Whether this process stays, although it serves nobody any more: as process 1 it is the parent of
 * all others, and must not end before its successor.
 */
bool stk_upgrade_holds(const struct stk_master *m);
/* Passes a signal on to the successor, for which this process stays. False: there is none. */
bool stk_upgrade_forward(struct stk_master *m, uint32_t number);
/* A connection of a worker that drains, for the new server; the descriptor stays the caller's. */
void stk_upgrade_carry(struct stk_master *m, int fd, bool served);
/* Whether so many wait for the new server that no more is to be given to it for a moment. */
bool stk_upgrade_is_full(const struct stk_master *m);
/* What takes what is queued when a worker drains now: an enum stk_channel_drain. */
unsigned stk_upgrade_drain_kind(const struct stk_master *m);
