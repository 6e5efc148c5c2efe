/*
 * The stats server: whoever connects gets one document, and the connection is closed. In the loop
 * of the master, which never waits for a reader.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"

struct stk_listener;
struct stk_loop;
struct stk_stats_server;

struct stk_stats_server_params {
    struct stk_loop *loop;
    struct stk_listener *const *listeners; /* the first socket of each; not owned */
    size_t nlisteners;
    bool http; /* with a response head */
    /* Makes the document: *ret_text is free()d. 0 or a negative errno: the connection is closed. */
    int (*text)(void *arg, char **ret_text, size_t *ret_len);
    void *arg;
};

/* Answers from now on. 0 or a negative errno. */
int stk_stats_server_new(struct stk_stats_server **ret_server,
                         const struct stk_stats_server_params *params) STK_MUST_CHECK;
/* Ends it; what is half sent is cut. Accepts NULL; returns NULL. */
struct stk_stats_server *stk_stats_server_free(struct stk_stats_server *server);
/* In a forked child: closes the descriptors of clients and does not touch the loop. Accepts NULL.
 */
void stk_stats_server_leave(struct stk_stats_server *server);
