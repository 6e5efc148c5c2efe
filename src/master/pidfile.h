/* The file that holds the master's process id. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/macros.h"

struct stk_pidfile {
    char *path; /* absolute; NULL: there is none */
    int fd;     /* holds a lock while the master lives; children close it */
    pid_t pid;
};

/*
 * Writes this process's id to `path`. A leftover of a dead process is replaced. 0; or -EEXIST or
 * another negative errno with *ret_error (free it): one sentence.
 */
int stk_pidfile_write(const char *path, struct stk_pidfile *ret_pidfile, char **ret_error)
    STK_MUST_CHECK;
/*
 * Takes over the open file of another process, which has named this one in it or will. False: it is
 * not the file at `path`, which has to be written anew.
 */
bool stk_pidfile_adopt(const char *path, int fd, struct stk_pidfile *ret_pidfile) STK_MUST_CHECK;
/*
 * Names the process `pid`, which has the file open too and keeps its lock. If that is another one,
 * this process forgets the file.
 */
void stk_pidfile_hand_over(struct stk_pidfile *pidfile, pid_t pid);
/* Removes the file, if this process wrote it and it still holds its id; harmless twice. */
void stk_pidfile_remove(struct stk_pidfile *pidfile);
