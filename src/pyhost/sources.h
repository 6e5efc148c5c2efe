/* The source files of an application, for autoreload. */
#pragma once

#include "pyhost/host.h"

/* host_ops.source_files. */
char **stk_sources_list(void *host);
/*
 * Notes the files that an exception (borrowed) came from: the application's file may be missing in
 * sys.modules because of a mistake in it, and the next save has to be seen.
 */
void stk_sources_note_exception(struct stk_pyhost *host, PyObject *exc);
/* Notes one file. */
void stk_sources_note(struct stk_pyhost *host, const char *path);
