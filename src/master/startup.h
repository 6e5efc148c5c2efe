/*
 * What whoever started this process handed to it, and how to start it once more. Taken once, before
 * anything else changes the process.
 */
#pragma once

#include <sys/types.h>

#include "base/macros.h"
#include "base/time.h"
#include "ipc/cache.h"
#include "net/inherit.h"

/* The variable by which a server hands itself to its successor, and the version of its text. */
#define STK_STARTUP_UPGRADE         "_STOKER_UPGRADE"
#define STK_STARTUP_UPGRADE_VERSION "1"
/* Words of that text: descriptors, and in which form what they hold is. */
#define STK_STARTUP_TLS_TICKETS "tls-tickets-1"
#define STK_STARTUP_TLS_FILES   "tls-files-1"
#define STK_STARTUP_CACHE       "cache-1" /* memory, and store or -1 */

struct stk_startup {
    struct stk_inherit sockets;
    char *notify_socket; /* NULL: no service manager listens */
    stk_msec watchdog;   /* 0: none */

    /* how to start a successor; path NULL: it cannot be known, as without /proc */
    char *path; /* the program */
    char **argv;
    char **environ;
    char *cwd;
    mode_t umask;

    /* of a successor */
    pid_t predecessor; /* 0: this is none */
    int control;       /* socket to the predecessor, else -1 */
    int pidfile;       /* open and locked, else -1 */
    int tls_tickets;   /* of net/tls_store.h, as the next; else -1 */
    int tls_files;
    struct stk_cache_fds *caches; /* [ncaches]; whoever takes them sets them to -1 */
    size_t ncaches;
};

/* The variables that stk_startup_take reads: nobody below this process should see them. */
extern const char *const stk_startup_variables[]; /* ends with NULL */

/*
 * Reads the environment and /proc. `program` is the interpreter to start a successor with; NULL or
 * empty: the one that runs. 0; or -EINVAL with *ret_error (free it): an upgrade by a server whose
 * ways are not known here, which has to go on itself.
 */
int stk_startup_take(const char *program, struct stk_startup *ret_startup, char **ret_error)
    STK_MUST_CHECK;
/*
 * For a successor that cannot start: from the first of these on, errors are noted; the second tells
 * the predecessor what they say, once, on `control`, or when that is -1 on the socket that the
 * environment names, if nobody has taken it yet; the third forgets them, as all is well. They do
 * nothing in a process that is no successor.
 */
void stk_startup_note_errors(void);
void stk_startup_say_why(int control);
void stk_startup_forget_errors(void);
/* Tells the predecessor the line of a text, which may end with a traceback, that says what is
 * wrong. */
void stk_startup_tell(int control, const char *text);
/* Closes what is left and frees all; harmless for a zeroed one. */
void stk_startup_deinit(struct stk_startup *startup);
