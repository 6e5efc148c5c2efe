/* Exceptions become lines of the error log here; none leaves the folder. */
#pragma once

#include "base/log.h"
#include "pyhost/host.h"

/* Logs the pending exception with its traceback below `title`, and clears it. */
void stk_report_exception(enum stk_log_level level, const char *title);
/*
 * The same, for a request: the title begins with its method and target. What only follows from the
 * client having left is logged at debug level, without traceback.
 */
void stk_report_request(const struct stk_call *call, const char *what);
