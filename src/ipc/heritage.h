/*
 * What a worker inherits over fork(): the one structure that crosses from the master to a worker,
 * and the function by which the worker's life begins. master/ and worker/ never include each other.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"

struct stk_caches;
struct stk_listener;
struct stk_scoreboard;
struct stk_scoreboard_row;
struct stk_tls_store;
struct stk_tls_tickets;
struct stk_transfer;

struct stk_heritage {
    const struct stk_config *config;
    struct stk_listener *const *listeners; /* with the descriptors of all slots */
    size_t nlisteners;
    struct stk_scoreboard *scoreboard;
    struct stk_scoreboard_row *row; /* this worker's counters */
    struct stk_transfer *transfer;  /* inboxes of all rows; NULL: connections do not move */
    struct stk_tls_store *tls;      /* certificates; NULL: none. The worker takes it */
    struct stk_tls_tickets *tickets;
    const struct stk_caches *caches; /* NULL: none */
    unsigned slot; /* 0 .. workers-1; listener->slots[slot] is this worker's own socket */
    unsigned nworkers;
    uint32_t generation; /* counts reloads */
    int channel;    /* messages of ipc/channel.h from and to the master; EOF: the master is gone */
    bool preloaded; /* the application is loaded already (forked from a template) */
};

/* Runs in the forked child; its return value is the exit code of the process. */
typedef int (*stk_worker_main_fn)(void *arg, struct stk_heritage *heritage);
