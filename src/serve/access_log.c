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
#include "base/log_writer.h"
#include "base/mem.h"

#define ACCESS_LOG_MAGIC 0x4163634cU

struct stk_access_log {
    unsigned magic;
    clockid_t clock;
    struct stk_access_format *format;
    struct stk_log_writer *writer;
    bool filters;
    struct stk_access_filter filter;
};

static int access_log_open(struct stk_access_log *log, const char *target)
{
    struct stk_log_sink sink;
    int r = stk_log_sink_open(&sink, target, STDOUT_FILENO);

    if (r < 0)
        return r;
    return stk_log_writer_new(&log->writer, "access log", &sink, 0);
}

int stk_access_log_new(struct stk_access_log **ret_log, const char *target, const char *format,
                       unsigned worker, char error[STK_ACCESS_ERROR_MAX])
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
    r = access_log_open(log, target);
    if (r < 0) {
        snprintf(error, STK_ACCESS_ERROR_MAX, "access-log: cannot open \"%.160s\": %s", target,
                 strerror(-r));
        stk_access_log_free(log);
        return r;
    }
    *ret_log = log;
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

void stk_access_log_write(struct stk_access_log *log, const struct stk_access_entry *entry)
{
    char line[STK_LOG_LINE_MAX];
    struct timespec now;
    size_t len;

    if (log == NULL)
        return;
    if (stk_unlikely(log->filters) && !stk_access_filter_takes(&log->filter, entry->req->status,
                                                               entry->duration, entry->body_bytes))
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
