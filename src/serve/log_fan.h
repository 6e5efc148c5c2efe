/*
 * Where the lines of a log go when that is more than one place: loggers, with and without names,
 * routes to those with one, lines that are left out, and encoders. One thread writes at a time.
 *
 * A line goes to the loggers of all routes that match it; if there are none, to all loggers without
 * a name; and if there are none of those either, to where the log goes without loggers ("raw").
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log_sink.h"
#include "base/log_writer.h"
#include "base/macros.h"

struct stk_config;
struct stk_log_fan;
struct stk_log_place;

enum stk_log_fan_kind {
    STK_LOG_FAN_MAIN,     /* logger, log-route, log-encoder, log-drain, log-filter */
    STK_LOG_FAN_REQUESTS, /* req-logger, log-req-route, log-req-encoder */
};

/* A line that comes in is at most so long; longer ones are cut into several. */
enum { STK_LOG_FAN_LINE_MAX = 8192 };

/* Whether the configuration asks for one. */
bool stk_log_fan_is_wanted(const struct stk_config *config, enum stk_log_fan_kind kind);
/* The permissions of log files; 0: as they are made. */
mode_t stk_log_fan_mode(const struct stk_config *config);
/*
 * Makes one. `raw` belongs to it from now on, also when this fails. A place that cannot be opened
 * is an error in the error log and loses its lines until the logs are opened again. 0, or -EINVAL
 * and a sentence in *ret_error, to be freed: the configuration is wrong.
 */
int stk_log_fan_new(struct stk_log_fan **ret_fan, const struct stk_config *config,
                    enum stk_log_fan_kind kind, const struct stk_log_sink *raw, char **ret_error)
    STK_MUST_CHECK;
/*
 * What standard output and standard error were before they became the pipe whose lines are written
 * here: places that name them are these from now on, or each line would come back. They stay the
 * caller's.
 */
void stk_log_fan_set_streams(struct stk_log_fan *fan, int out, int err);
/* Accepts NULL; returns NULL. */
struct stk_log_fan *stk_log_fan_free(struct stk_log_fan *fan);
/*
 * Writes whole lines, each with its new line. Returns how many got nowhere; what a place does not
 * take is reported in the error log, for the main log in raw.
 */
uint64_t stk_log_fan_write(struct stk_log_fan *fan, const char *lines, size_t len);
/* Opens files again by their paths. */
void stk_log_fan_reopen(struct stk_log_fan *fan);
/* Frees it, and gives the sink back that lines go to without loggers. */
struct stk_log_sink stk_log_fan_release(struct stk_log_fan *fan);
/* The same for a writer thread (base/log_writer.h), which frees it. */
struct stk_log_out stk_log_fan_out(struct stk_log_fan *fan);

/*
 * Checks one value of an option, as `log-route = NAME PATTERN`. 0, or -EINVAL and a sentence in
 * *ret_error, to be freed.
 */
int stk_log_fan_check_route(const struct stk_config *config, const char *text, char **ret_error)
    STK_MUST_CHECK;
int stk_log_fan_check_pattern(const char *text, char **ret_error) STK_MUST_CHECK;
