/*
 * Files that the application names instead of sending them: X-Sendfile (Apache, lighttpd),
 * X-LIGHTTPD-send-file and X-Accel-Redirect (nginx), where options name the directories for it.
 */
#pragma once

#include <stdbool.h>

#include "base/macros.h"

struct stk_config;
struct stk_sendfile;
struct stk_serve_request;
struct stk_statics;

/*
 * Of the options; `statics` (types, symbolic links) outlives it. NULL where no directory is named:
 * the fields are then passed on like any other, for a front end that knows them.
 */
struct stk_sendfile *stk_sendfile_new(const struct stk_config *config, struct stk_statics *statics);
/* Accepts NULL; returns NULL. */
struct stk_sendfile *stk_sendfile_free(struct stk_sendfile *sf);
/*
 * Looks at the complete head of a response of the application, which has not left. Where that names
 * a file, a complete response is sent in its place, with the fields that the application has set,
 * and rq->base.replaced is set: what the application still writes is to be dropped. 0; or, when it
 * was replaced, what stk_response_write is to return.
 */
int stk_sendfile_head(const struct stk_sendfile *sf, struct stk_serve_request *rq) STK_MUST_CHECK;

/*
 * The path without empty segments, "." and "..", into out[len + 1]: by the text alone, as a client
 * of a file system would not (symbolic links), which is why what it yields is checked like any
 * other. False: ".." leads above the beginning, or there is a NUL.
 */
bool stk_sendfile_tidy(const char *path, size_t len, char *out);
