/*
 * Variables of a request for the log, which its application sets while it runs (`{logvar:NAME}`).
 * They are kept by the number of the request and not in it: a request that has none pays nothing.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/span.h"

enum {
    STK_LOGVAR_NAME_MAX = 255,
    STK_LOGVAR_VALUE_MAX = 1024, /* longer values are cut */
    STK_LOGVAR_MAX = 64,         /* of one request */
};

struct stk_logvars {
    pthread_mutex_t mutex;
    _Atomic bool used;        /* a variable has been set, ever */
    struct stk_list requests; /* struct logvar_request */
};

void stk_logvars_init(struct stk_logvars *vars);
void stk_logvars_deinit(struct stk_logvars *vars);
/*
 * Sets a variable of request `id`. `thread` tells who runs it, where its end will not be told: the
 * next request of that thread ends it. NULL: stk_logvars_forget does. 0; -EINVAL: the name is empty
 * or too long; -ENOSPC: there are too many; -ENOMEM.
 */
int stk_logvar_set(struct stk_logvars *vars, uint64_t id, const void *thread, stk_span name,
                   stk_span value);
/* Copies the value to dst, as far as there is room; its length, 0 where there is none. */
size_t stk_logvar_get(struct stk_logvars *vars, uint64_t id, stk_span name, char *dst, size_t size);
/* The request outlives its call: from now on stk_logvars_forget ends it. */
void stk_logvars_keep(struct stk_logvars *vars, uint64_t id);
/* The request has ended and is logged. */
void stk_logvars_forget(struct stk_logvars *vars, uint64_t id);
