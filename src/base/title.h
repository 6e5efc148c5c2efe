/* What `ps` shows for this process. */
#pragma once

#include "base/macros.h"

/*
 * Makes the memory of the command line writable for titles, once, at the start, before there are
 * threads. Until then, and where it cannot be found, stk_title_set does nothing.
 */
void stk_title_init(void);
/* Sets the title; what does not fit is cut. By one thread at a time. */
void stk_title_set(const char *fmt, ...) STK_PRINTF(1, 2);
/*
 * "NAME: ROLE APP [STATE]", the form of all processes of a server; `name` NULL is "stoker", `state`
 * NULL leaves the brackets out.
 */
void stk_title_set_role(const char *name, const char *role, const char *app, const char *state);
