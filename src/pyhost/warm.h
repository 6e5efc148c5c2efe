/* What workers import after they were forked, so that a template can import it for all of them. */
#pragma once

#include "pyhost/host.h"

/* Notes what is imported now. Locked; as all here. */
void stk_warm_note(struct stk_pyhost *host);
/* struct stk_host_ops.list_modules and import_modules. */
char **stk_warm_list(void *host);
void stk_warm_import(void *host, const char *const *names);
