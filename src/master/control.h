/*
 * The control socket: what `stoker status`, `reload`, `stop` and the others speak to. One JSON
 * object a line each way; see docs/operations.md for the commands.
 *
 *   control.c          the socket, its clients, lines in and lines out
 *   control_path.c     where the socket is, and who may reach it
 *   control_command.c  the commands, and waiting for those that take a while
 *   control_status.c   the answer to `status`
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/json.h"
#include "base/list.h"
#include "base/macros.h"
#include "loop/loop.h"

struct stk_master;
struct stk_proc;

#define STK_CONTROL_MAGIC        0x43544c53u
#define STK_CONTROL_CLIENT_MAGIC 0x43544c43u

enum {
    STK_CONTROL_CLIENTS = 32,     /* at most; the one that is idle longest makes room */
    STK_CONTROL_LINE = 4096,      /* bytes of a request */
    STK_CONTROL_FIELDS = 8,       /* of a request */
    STK_CONTROL_STACKS = 1 << 20, /* bytes of stacks that are kept */
};

/* What a client waits for. */
enum stk_control_wait {
    STK_CONTROL_WAIT_NONE,
    STK_CONTROL_WAIT_RELOAD,
    STK_CONTROL_WAIT_SCALE,
    STK_CONTROL_WAIT_RECYCLE,
    STK_CONTROL_WAIT_UPGRADE,
    STK_CONTROL_WAIT_STOP,
    STK_CONTROL_WAIT_STACK,
};

struct stk_control_client {
    uint32_t magic;
    struct stk_list link;
    struct stk_deferred deferred;
    struct stk_source src;
    struct stk_timer timer; /* of half a request, an answer that is not read, and stacks */
    struct stk_control *control;
    pid_t pid;
    uid_t uid;
    stk_msec active; /* when something was last heard */
    char in[STK_CONTROL_LINE];
    size_t nin;
    char *out;
    size_t nout;
    size_t sent;
    bool eof;     /* it sends nothing more */
    bool closing; /* is closed when the answer is sent */

    enum stk_control_wait wait;
    bool told; /* the wait is over, with this outcome */
    bool ok;
    char *text;
    unsigned slot;          /* RECYCLE, STACK */
    pid_t worker;           /* RECYCLE: the one that goes; STACK: the one that is asked */
    struct stk_source pipe; /* STACK: what the worker writes */
    char *stacks;
    size_t nstacks;
};

struct stk_control {
    uint32_t magic;
    struct stk_master *master;
    struct stk_source listener; /* fd -1: not open yet, the server is still another's successor */
    struct stk_timer retry;     /* accepting again after descriptors ran out */
    bool waits;                 /* to be opened when this server has taken over from another */
    char *path;                 /* absolute */
    dev_t dev;
    ino_t ino;
    struct stk_list clients;
    unsigned nclients;
    unsigned nwaiting; /* clients with a `wait` */
};

/* --- for the master -------------------------------------------------------------------------- */

/*
 * Opens the socket that config->control asks for. 0; also when `auto` finds no place for it, which
 * is logged. An exit code, the reason logged, when it was asked for by its path.
 */
int stk_control_open(struct stk_master *m) STK_MUST_CHECK;
/* Answers those who wait for the end, and closes all. Accepts that it was never opened. */
void stk_control_close(struct stk_master *m);
/* In a forked child: closes the descriptors. */
void stk_control_forget(struct stk_master *m);
/* At the end of a turn of the master: answers those whose wait is over. */
void stk_control_settle(struct stk_master *m);

/* --- among the files of the control socket --------------------------------------------------- */

/*
 * control_path.c: makes and binds the socket of `value` (a path, or "auto"), which listens and can
 * be reached by its owner and root; `replace`: from a server that runs still. *ret_path is
 * absolute. 0; or -errno with *ret_error (free it).
 */
int stk_control_bind(const char *value, bool replace, int *ret_fd, char **ret_path,
                     char **ret_error) STK_MUST_CHECK;

/* control_command.c: carries out one request, `line` of `len` bytes (changed by reading it). */
void stk_control_run(struct stk_control_client *c, char *line, size_t len);
/* What a client waited for may be there. */
void stk_control_check(struct stk_control_client *c);
/* The master ends: the last chance to answer. */
void stk_control_finish(struct stk_control_client *c);
/* The time for stacks is over. */
void stk_control_give_up(struct stk_control_client *c);
/* Stops waiting and frees what belongs to it. */
void stk_control_unwait(struct stk_control_client *c);

/* control_status.c: what the server is doing, in a word or three. */
const char *stk_control_state(const struct stk_master *m);
/* The fields of the answer to `status`, into an open object. */
void stk_control_put_status(struct stk_json *j, struct stk_master *m);

/* control.c: sends one line, {"ok":true, ...} that was begun by the caller, and ends the document.
 */
void stk_control_answer(struct stk_control_client *c, struct stk_json *j);
/* {"ok":true,"text":"..."}; without a text when that is NULL. */
void stk_control_answer_ok(struct stk_control_client *c, const char *text);
/* {"ok":false,"error":"..."} */
void stk_control_answer_error(struct stk_control_client *c, const char *fmt, ...) STK_PRINTF(2, 3);
