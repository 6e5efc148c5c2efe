/* Texts made from the option rows: --help and docs/options.md. */
#pragma once

#include <stdbool.h>

#include "base/macros.h"

/* The text of --help, at most 80 columns: the common options, or all of them; free() it. */
char *stk_help_text(bool all) __attribute__((returns_nonnull));
/* The whole of docs/options.md; free() it. */
char *stk_help_markdown(void) __attribute__((returns_nonnull));
