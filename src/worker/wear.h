/* What follows from the number of requests that a worker has answered: max-requests,
 * preload-refresh. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "app/host.h"
#include "base/macros.h"
#include "ipc/heritage.h"
#include "ipc/scoreboard.h"

struct stk_wear {
    const struct stk_heritage *heritage;
    const struct stk_host_ops *host_ops;
    void *host;
    _Atomic uint64_t due;     /* the number at which there is something to do; UINT64_MAX: none */
    uint64_t retire, refresh; /* the numbers for each; UINT64_MAX: never, or done */
};

/* A zeroed structure has something to do at once: call this before stk_wear_check. */
void stk_wear_init(struct stk_wear *wear, const struct stk_heritage *heritage,
                   const struct stk_host_ops *host_ops, void *host);
/* Tells the master what is due. Locked. */
void stk_wear_act(struct stk_wear *wear);

/* Once a turn, behind stk_server_publish. Locked. */
static inline void stk_wear_check(struct stk_wear *wear)
{
    if (stk_unlikely(stk_scoreboard_get(wear->heritage->row, STK_COUNTER_requests) >=
                     atomic_load_explicit(&wear->due, memory_order_relaxed)))
        stk_wear_act(wear);
}
