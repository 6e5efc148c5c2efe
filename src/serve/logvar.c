/*
 * Nothing in the path of a request looks here: a request that runs in its call is forgotten when
 * the next one of its thread sets a variable, and only one that was detached, of which there may be
 * many a thread, when it is finished. So there is one entry for each thread and for each detached
 * request that has set something, and a list is enough.
 */
#include "serve/logvar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/macros.h"
#include "base/mem.h"

struct logvar {
    uint8_t name_len;
    uint16_t value_len;
    char name[STK_LOGVAR_NAME_MAX];
    char value[STK_LOGVAR_VALUE_MAX];
};

struct logvar_request {
    struct stk_list link;
    uint64_t id;
    const void *thread;
    unsigned n;
    struct logvar *vars[STK_LOGVAR_MAX];
};

void stk_logvars_init(struct stk_logvars *vars)
{
    STK_ASSERT(pthread_mutex_init(&vars->mutex, NULL) == 0);
    atomic_init(&vars->used, false);
    stk_list_init(&vars->requests);
}

static void logvars_clear(struct logvar_request *r)
{
    for (unsigned i = 0; i < r->n; i++)
        free(r->vars[i]);
    r->n = 0;
}

static void logvars_drop(struct logvar_request *r)
{
    stk_list_remove(&r->link);
    logvars_clear(r);
    free(r);
}

void stk_logvars_deinit(struct stk_logvars *vars)
{
    stk_list_for_each_safe (it, &vars->requests)
        logvars_drop(stk_container_of(it, struct logvar_request, link));
    pthread_mutex_destroy(&vars->mutex);
}

static struct logvar_request *logvars_find(struct stk_logvars *vars, uint64_t id)
{
    stk_list_for_each (it, &vars->requests) {
        struct logvar_request *r = stk_container_of(it, struct logvar_request, link);

        if (r->id == id)
            return r;
    }
    return NULL;
}

/* The entry of a request, a thread's last one if it has one. NULL: there is no memory. */
static struct logvar_request *logvars_take(struct stk_logvars *vars, uint64_t id,
                                           const void *thread)
{
    struct logvar_request *r = logvars_find(vars, id);

    if (r != NULL)
        return r;
    stk_list_for_each (it, &vars->requests) {
        r = stk_container_of(it, struct logvar_request, link);
        if (thread == NULL || r->thread != thread)
            continue;
        logvars_clear(r);
        r->id = id;
        return r;
    }
    r = stk_try_alloc(sizeof *r);
    if (r == NULL)
        return NULL;
    *r = (struct logvar_request){.id = id, .thread = thread};
    stk_list_prepend(&vars->requests, &r->link);
    return r;
}

static struct logvar *logvars_find_var(struct logvar_request *r, stk_span name)
{
    for (unsigned i = 0; r != NULL && i < r->n; i++)
        if (stk_span_eq(stk_span_make(r->vars[i]->name, r->vars[i]->name_len), name))
            return r->vars[i];
    return NULL;
}

/* Locked. */
static int logvars_set(struct stk_logvars *vars, uint64_t id, const void *thread, stk_span name,
                       stk_span value)
{
    struct logvar_request *r = logvars_take(vars, id, thread);
    struct logvar *var = logvars_find_var(r, name);

    if (r == NULL)
        return -ENOMEM;
    if (var == NULL && r->n == STK_LOGVAR_MAX)
        return -ENOSPC;
    if (var == NULL) {
        var = stk_try_alloc(sizeof *var);
        if (var == NULL)
            return -ENOMEM;
        var->name_len = (uint8_t)name.len;
        memcpy(var->name, name.ptr, name.len);
        r->vars[r->n++] = var;
    }
    var->value_len =
        (uint16_t)(value.len < STK_LOGVAR_VALUE_MAX ? value.len : STK_LOGVAR_VALUE_MAX);
    memcpy(var->value, value.ptr, var->value_len);
    return 0;
}

int stk_logvar_set(struct stk_logvars *vars, uint64_t id, const void *thread, stk_span name,
                   stk_span value)
{
    int r;

    if (name.len == 0 || name.len > STK_LOGVAR_NAME_MAX)
        return -EINVAL;
    atomic_store_explicit(&vars->used, true, memory_order_relaxed);
    pthread_mutex_lock(&vars->mutex);
    r = logvars_set(vars, id, thread, name, value);
    pthread_mutex_unlock(&vars->mutex);
    return r;
}

size_t stk_logvar_get(struct stk_logvars *vars, uint64_t id, stk_span name, char *dst, size_t size)
{
    const struct logvar *var;
    size_t len = 0;

    pthread_mutex_lock(&vars->mutex);
    var = logvars_find_var(logvars_find(vars, id), name);
    if (var != NULL) {
        len = var->value_len < size ? var->value_len : size;
        memcpy(dst, var->value, len);
    }
    pthread_mutex_unlock(&vars->mutex);
    return len;
}

void stk_logvars_keep(struct stk_logvars *vars, uint64_t id)
{
    struct logvar_request *r;

    if (!atomic_load_explicit(&vars->used, memory_order_relaxed))
        return;
    pthread_mutex_lock(&vars->mutex);
    r = logvars_find(vars, id);
    if (r != NULL)
        r->thread = NULL;
    pthread_mutex_unlock(&vars->mutex);
}

void stk_logvars_forget(struct stk_logvars *vars, uint64_t id)
{
    struct logvar_request *r;

    if (!atomic_load_explicit(&vars->used, memory_order_relaxed))
        return;
    pthread_mutex_lock(&vars->mutex);
    r = logvars_find(vars, id);
    if (r != NULL)
        logvars_drop(r);
    pthread_mutex_unlock(&vars->mutex);
}
