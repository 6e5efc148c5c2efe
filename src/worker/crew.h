/*
 * Which threads of the application a worker has. Those of --threads run what WSGI applications are
 * asked; asynchronous applications share one that drives their event loop. Where there are both,
 * the event loop's thread is number 0, and the others run beside it.
 */
#pragma once

#include <stdbool.h>

#include "app/host.h"
#include "config/site.h"

struct stk_crew {
    unsigned threads; /* of the application */
    unsigned napps;   /* >= 1 */
    bool hosted;      /* number 0 drives an event loop of the application's */
};

/* As many threads as there may be; before the applications have been loaded. `site` may be NULL. */
unsigned stk_crew_most(const struct stk_site *site, unsigned configured);
/* The threads that there will be; the applications have been loaded. Locked. */
void stk_crew_find(struct stk_crew *crew, const struct stk_site *site,
                   const struct stk_host_ops *ops, void *host, unsigned configured);
/* Says which application runs where, if that differs. Locked. */
void stk_crew_log(const struct stk_crew *crew, const struct stk_site *site,
                  const struct stk_host_ops *ops, void *host);
