/*
 * The same tests over the parser's portable inner loops, which machines without SSE2 use: its
 * objects here take the place of the library's.
 */
#define STK_HTTP1_PORTABLE 1

#include "wire/http1.c" /* NOLINT(bugprone-suspicious-include) */

#include "test_http1.c" /* NOLINT(bugprone-suspicious-include) */
