/* What a worker answers without the application: health and metrics, as configured. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "app/handler.h"
#include "services/health.h"
#include "services/prometheus.h"

struct stk_heritage;

enum { STK_SERVICES_HANDLERS = 4 };

struct stk_services {
    struct stk_handler handlers[STK_SERVICES_HANDLERS];
    size_t n;
    char *paths[STK_SERVICES_HANDLERS];
    const char *address; /* where only they are; NULL: none */
    bool wanted;         /* somebody looks at statistics: what is cheap to count is counted */
    struct stk_health health;
    struct stk_prometheus prometheus;
};

/* `runtime`: the version of the interpreter, alive as long as the services; may be NULL. */
void stk_services_init(struct stk_services *s, const struct stk_heritage *heritage,
                       const char *runtime);
/* Harmless for a zeroed structure, and twice. */
void stk_services_deinit(struct stk_services *s);
