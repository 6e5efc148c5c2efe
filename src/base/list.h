/* An intrusive doubly linked list with a head node; a node out of every list points to itself. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"

struct stk_list {
    struct stk_list *prev;
    struct stk_list *next;
};

static inline void stk_list_init(struct stk_list *l)
{
    l->prev = l->next = l;
}

static inline bool stk_list_is_empty(const struct stk_list *l)
{
    return l->next == l;
}

static inline void stk_list_insert_before(struct stk_list *at, struct stk_list *node)
{
    node->prev = at->prev;
    node->next = at;
    /* Links of a list are never NULL. NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
    at->prev->next = node;
    at->prev = node;
}

static inline void stk_list_append(struct stk_list *head, struct stk_list *node)
{
    stk_list_insert_before(head, node);
}

static inline void stk_list_prepend(struct stk_list *head, struct stk_list *node)
{
    stk_list_insert_before(head->next, node);
}

/* Unlinks a node; harmless for one that is in no list. */
static inline void stk_list_remove(struct stk_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    stk_list_init(node);
}

/* The first node, unlinked, or NULL. */
static inline struct stk_list *stk_list_pop(struct stk_list *head)
{
    struct stk_list *node = head->next;

    if (node == head)
        return NULL;
    stk_list_remove(node);
    return node;
}

#define stk_list_for_each(it, head) \
    for (struct stk_list *it = (head)->next; it != (head); it = it->next)

/* The body may unlink the current node. */
#define stk_list_for_each_safe(it, head)                                          \
    for (struct stk_list *it = (head)->next, *stk_next_ = it->next; it != (head); \
         it = stk_next_, stk_next_ = it->next)
