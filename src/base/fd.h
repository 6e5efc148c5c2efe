/* Helpers for file descriptors. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"

struct msghdr;

/* Closes *fd if it is not -1 and sets it to -1; errno is preserved. */
void stk_fd_close(int *fd);
/* For STK_CLEANUP on an int variable that owns a descriptor. */
static inline void stk_fd_closep(int *fd)
{
    stk_fd_close(fd);
}
/* Takes the descriptor out of the variable and leaves -1 behind. */
static inline int stk_fd_steal(int *fd)
{
    int v = *fd;

    *fd = -1;
    return v;
}
int stk_fd_set_nonblock(int fd, bool on) STK_MUST_CHECK;
int stk_fd_set_cloexec(int fd, bool on) STK_MUST_CHECK;
/*
 * Opens /dev/null for those of the descriptors 0, 1 and 2 that are closed, so that nothing else is
 * opened there: what writes to standard error must never reach a socket. 0 or a negative errno.
 */
int stk_fd_fill_standard(void) STK_MUST_CHECK;
/*
 * Takes the descriptors out of a received message; all but the first are closed, so that whoever
 * sends too many cannot fill the table. Returns how many there were; *ret_fd is left as it is when
 * there were none.
 */
unsigned stk_fd_take(struct msghdr *msg, int *ret_fd);
/* Puts one descriptor into a message whose msg_control has room for it. */
void stk_fd_put(struct msghdr *msg, int fd);
/* Writes all bytes to a blocking descriptor, over EINTR; 0 or a negative errno. */
int stk_fd_write_all(int fd, const void *data, size_t len) STK_MUST_CHECK;
/*
 * An unlinked temporary file in `dir` (NULL: $TMPDIR or /tmp), close-on-exec, open for reading
 * and writing (O_TMPFILE where the file system has it). Returns 0 and *ret_fd, or a negative errno.
 */
int stk_fd_tempfile(const char *dir, int *ret_fd) STK_MUST_CHECK;

/* Reads the first `size` bytes of a file into buf. False: there are not so many, or it cannot be
 * read. */
bool stk_fd_read_whole(int fd, char *buf, uint64_t size);
