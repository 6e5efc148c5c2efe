/*
 * The access log: formats a line on the caller's stack and hands it to the writer thread. The time
 * of an entry is when it is written, which is the end of its request, so lines are in order. It is
 * read from the coarse clock (5 ns) unless the format shows more than seconds.
 */
#include "serve/access_log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/log_writer.h"
#include "base/mem.h"
#include "config/config.h"
#include "serve/body.h"
#include "serve/log_fan.h"
#include "serve/request.h"

#define ACCESS_LOG_MAGIC 0x4163634cU

struct stk_access_log {
    unsigned magic;
    clockid_t clock;
    struct stk_access_format *format;
    struct stk_log_writer *writer;
    bool filters;
    bool served; /* its entries are requests of a server */
    struct stk_access_filter filter;
};

/* With loggers and rules: the writer's thread applies them. */
static int access_log_fan_out(struct stk_access_log *log, const struct stk_config *config,
                              const struct stk_log_sink *sink)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    struct stk_log_fan *fan = NULL;
    struct stk_log_out out;
    int r = stk_log_fan_new(&fan, config, STK_LOG_FAN_REQUESTS, sink, &error);

    if (r < 0) {
        stk_log_error("access log: %s", error);
        return r;
    }
    out = stk_log_fan_out(fan);
    return stk_log_writer_new_out(&log->writer, "access log", &out, 0);
}

static int access_log_start(struct stk_access_log *log, const char *target,
                            const struct stk_config *config)
{
    struct stk_log_sink sink;
    int r = stk_log_sink_open(&sink, target, STDOUT_FILENO);

    if (r < 0)
        return r;
    if (config != NULL && stk_log_sink_chmod(&sink, stk_log_fan_mode(config)) < 0) {
        /* It is another user's, who has decided. */
    }
    if (config != NULL && stk_log_fan_is_wanted(config, STK_LOG_FAN_REQUESTS))
        return access_log_fan_out(log, config, &sink);
    return stk_log_writer_new(&log->writer, "access log", &sink, 0);
}

/* `config`: NULL, or what says more than the target. */
static int access_log_new(struct stk_access_log **ret_log, const char *target, const char *format,
                          unsigned worker, const struct stk_config *config,
                          char error[STK_ACCESS_ERROR_MAX])
{
    struct stk_access_format *compiled = NULL;
    struct stk_access_log *log;
    int r;

    r = stk_access_format_new(&compiled, format != NULL ? format : "combined", worker, error);
    if (r < 0)
        return r;
    if (strcmp(target, "off") == 0) {
        stk_access_format_free(compiled);
        *ret_log = NULL;
        return 0;
    }
    log = stk_new0(struct stk_access_log);
    log->magic = ACCESS_LOG_MAGIC;
    log->format = compiled;
    log->clock = stk_access_format_is_fine(compiled) ? CLOCK_REALTIME : CLOCK_REALTIME_COARSE;
    r = access_log_start(log, target, config);
    if (r < 0) {
        snprintf(error, STK_ACCESS_ERROR_MAX, "access-log: cannot open \"%.160s\": %s", target,
                 strerror(-r));
        stk_access_log_free(log);
        return r;
    }
    *ret_log = log;
    return 0;
}

int stk_access_log_new(struct stk_access_log **ret_log, const char *target, const char *format,
                       unsigned worker, char error[STK_ACCESS_ERROR_MAX])
{
    return access_log_new(ret_log, target, format, worker, NULL, error);
}

int stk_access_log_open(struct stk_access_log **ret_log, const struct stk_config *config,
                        unsigned worker)
{
    struct stk_access_filter filter = {0};
    char error[STK_ACCESS_ERROR_MAX];
    int r = access_log_new(ret_log, config->access_log, config->access_log_format, worker, config,
                           error);

    if (r < 0) {
        stk_log_error("%s", error);
        return r;
    }
    for (size_t i = 0; i < config->access_log_only.n; i++)
        (void)stk_access_filter_add(&filter, config->access_log_only.items[i]);
    stk_access_log_set_filter(*ret_log, &filter);
    return 0;
}

void stk_access_log_set_filter(struct stk_access_log *log, const struct stk_access_filter *filter)
{
    if (log == NULL)
        return;
    log->filter = *filter;
    log->filters = stk_access_filter_is_on(filter);
}

struct stk_access_log *stk_access_log_free(struct stk_access_log *log)
{
    if (log != NULL) {
        STK_CHECK_MAGIC(log, ACCESS_LOG_MAGIC);
        log->writer = stk_log_writer_free(log->writer);
        log->format = stk_access_format_free(log->format);
        log->magic = 0;
        free(log);
    }
    return NULL;
}

void stk_access_log_finish(struct stk_access_log *log)
{
    if (log != NULL)
        stk_log_writer_finish(log->writer);
}

void stk_access_log_crash(struct stk_access_log *log)
{
    if (log != NULL)
        stk_log_writer_crash(log->writer);
}

void stk_access_log_serve(struct stk_access_log *log, struct stk_server *server)
{
    if (log == NULL)
        return;
    log->served = true;
    stk_access_format_serve(log->format, server);
}

static STK_COLD bool access_log_takes(const struct stk_access_log *log,
                                      const struct stk_access_entry *entry)
{
    const struct stk_serve_request *rq = log->served ? (const void *)entry->req : NULL;
    const char *text;
    struct stk_access_facts facts = {
        .status = entry->req->status, .duration = entry->duration, .bytes = entry->body_bytes};

    if (rq != NULL) {
        if (rq->log_this)
            return true;
        facts.file = rq->file;
        facts.io_error =
            rq->gone || rq->truncated || (rq->body != NULL && stk_body_fault(rq->body, &text) != 0);
    }
    return stk_access_filter_takes(&log->filter, &facts);
}

void stk_access_log_write(struct stk_access_log *log, const struct stk_access_entry *entry)
{
    char line[STK_LOG_LINE_MAX];
    struct timespec now;
    size_t len;

    if (log == NULL)
        return;
    if (stk_unlikely(log->filters) && !access_log_takes(log, entry))
        return;
    clock_gettime(log->clock, &now);
    len = stk_access_format_line(log->format, entry,
                                 (stk_nsec)now.tv_sec * STK_NSEC_PER_SEC + now.tv_nsec, line);
    stk_log_writer_append(log->writer, line, len);
}

void stk_access_log_reopen(struct stk_access_log *log)
{
    if (log != NULL)
        stk_log_writer_reopen(log->writer);
}

int stk_access_log_after_fork(struct stk_access_log *log)
{
    if (log == NULL)
        return 0;
    stk_access_format_after_fork(log->format);
    return stk_log_writer_after_fork(log->writer);
}

uint64_t stk_access_log_lost(struct stk_access_log *log)
{
    return log != NULL ? stk_log_writer_lost(log->writer) : 0;
}
