/* How much memory a process has, as its /proc tells. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"

/*
 * Resident and virtual size in bytes. Cheap. 0, or a negative errno (the process is gone, or not to
 * be looked at).
 */
int stk_memory_size(pid_t pid, uint64_t *ret_rss, uint64_t *ret_vsz) STK_MUST_CHECK;
/*
 * The proportional share in bytes: what n processes share counts as an n-th. The kernel walks all
 * pages for it: some milliseconds for a large process. As above.
 */
int stk_memory_share(pid_t pid, uint64_t *ret_pss) STK_MUST_CHECK;
