/* Response heads that were accepted before, found by the very objects they were stated with. */
#pragma once

#include "pyhost/host.h"

enum { STK_HEAD_CACHE_PAIRS = 12 };

struct stk_head_entry {
    PyObject *status; /* NULL: free */
    PyObject *pairs[STK_HEAD_CACHE_PAIRS];
    uint16_t npairs;
    uint16_t misses; /* since it was of use */
    int64_t length;  /* by the Content-Length among the pairs; -1: none */
    struct stk_response_head head;
};

struct stk_head_cache;

struct stk_head_cache *stk_head_cache_new(void);
/* With the GIL. Accepts NULL. */
void stk_head_cache_free(struct stk_head_cache *cache);
/*
 * The place for this status and list of headers; *ret_found tells whether they are there. NULL:
 * there is none for them.
 */
struct stk_head_entry *stk_head_cache_find(struct stk_head_cache *cache, PyObject *status,
                                           PyObject *headers, bool *ret_found);
/* After a miss, when the server has accepted the head: puts it there, if that may pay. */
void stk_head_cache_put(struct stk_head_entry *entry, const struct stk_call *call, PyObject *status,
                        PyObject *headers);
