/*
 * Files that are not in the page cache: sendfile() and read() would wait for the disk, and with
 * them the loop, and everybody whose connections it turns.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/macros.h"

struct stk_cold;
struct stk_conn;

enum {
    STK_COLD_LOOK_MS = 2,    /* until one looks again */
    STK_COLD_LOOKS = 100,    /* then the disk is waited for: something takes the pages away */
    STK_COLD_PART = 1 << 20, /* bytes that are sent after one look */
};

/*
 * Whether bytes of a file (at most STK_COLD_PART) would have to be waited for. If so the kernel has
 * been asked to read them and what follows them. False where that cannot be told: file systems that
 * do not know RWF_NOWAIT.
 */
bool stk_cold_ask(int fd, int64_t off, uint64_t len);
/*
 * Has stk_conn_look_again called in STK_COLD_LOOK_MS; by the owner of the loop, as all of these. 0,
 * or a negative errno.
 */
int stk_cold_wait(struct stk_conn *conn) STK_MUST_CHECK;
/* The connection ends. */
void stk_cold_forget(struct stk_conn *conn);
/* When no connection is left. Accepts NULL; returns NULL. */
struct stk_cold *stk_cold_free(struct stk_cold *cold);
