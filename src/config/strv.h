/* Lists of strings that grow. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "config/config.h"

/* Takes an allocated string; the list stays NULL-terminated. */
static inline void stk_strv_append(struct stk_strv *strv, char *item)
{
    char **items = stk_new0_array(char *, strv->n + 2);

    if (strv->n > 0)
        memcpy(items, strv->items, strv->n * sizeof *items);
    items[strv->n++] = item;
    free(strv->items);
    strv->items = items;
}

static inline void stk_strv_deinit(struct stk_strv *strv)
{
    for (size_t i = 0; i < strv->n; i++)
        free(strv->items[i]);
    free(strv->items);
    *strv = (struct stk_strv){0};
}
