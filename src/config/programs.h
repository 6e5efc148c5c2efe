/*
 * What runs beside the workers: programs that stay, commands at times of the day, and what is done
 * when something goes wrong. Made from the options `attach-daemon`, `program`, `cron`,
 * `unique-cron`, `alarm` and those that name alarms.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/time.h"
#include "config/config.h"
#include "config/options.h"

/* What becomes of a program when the workers are reloaded. */
enum stk_program_reload {
    STK_PROGRAM_KEEP,
    STK_PROGRAM_RESTART,
    STK_PROGRAM_SIGNAL, /* it is sent reload_signal, and goes on */
};

/* A program that is kept running. */
struct stk_program_spec {
    char *name;    /* in the log; each has another one */
    char *command; /* of /bin/sh -c */
    char *task;    /* instead of a command: something that the host does in a process of its own */
    int stop_signal;
    stk_msec grace;   /* from that signal to SIGKILL */
    stk_msec backoff; /* the longest pause before it is started again */
    enum stk_program_reload reload;
    int reload_signal;
    char *user;      /* NULL: the server's, as of the next two */
    char *group;     /* with a user and without a group: that of the user */
    char *directory; /* */
    struct stk_strv env;
    struct stk_strv touch; /* files whose change restarts it */
    char *pidfile;         /* NULL: it ends with the server; else it outlives it */
    bool background;       /* the command leaves for the background, and writes the pidfile */
    stk_msec pidfile_wait; /* for that */
    bool notify;           /* the signals are for one with a pidfile, too */
    bool vital;            /* the server stops when it ends */
    bool keep_stdin;
};

/* A command at certain minutes. A bit for each value; of weekdays 0 is Sunday. */
struct stk_cron_spec {
    char *name;
    char *command;
    uint64_t minutes;
    uint32_t hours, days, months, weekdays;
    bool day_or_weekday; /* both are given as numbers: one that fits is enough */
    bool unique;         /* not while it runs still */
    stk_msec timeout;    /* 0: none */
    char *text[5];       /* the fields as they were written */
    char *touch; /* touch-exec: it runs when this file is touched, and at no time; or NULL */
};

enum stk_alarm_kind {
    STK_ALARM_COMMAND, /* run with the message as its input */
    STK_ALARM_LOG,     /* a line of the error log */
};

struct stk_alarm_spec {
    char *name;
    enum stk_alarm_kind kind;
    char *text; /* the command, or what stands in front of the message */
};

/* Alarms for the lines of the log that fit a pattern; or, negated, none for these. */
struct stk_alarm_rule {
    size_t order; /* of both kinds as they were written */
    bool negate;
    uint64_t alarms; /* a bit for each */
    char *pattern;
};

enum { STK_ALARMS_MAX = 64 };

struct stk_programs {
    struct stk_program_spec *programs;
    size_t nprograms;
    struct stk_cron_spec *crons;
    size_t ncrons;
    struct stk_alarm_spec *alarms;
    size_t nalarms;
    struct stk_alarm_rule *rules;
    size_t nrules;
    uint64_t on_crash;   /* alarms, a bit for each: a worker was killed by a signal */
    uint64_t on_backlog; /* a queue of connections is full */
};

/* Is told of a mistake: of which option, which item of it, and what. */
typedef void (*stk_programs_report)(void *arg, enum stk_option_id option, size_t item,
                                    const char *text);

/* NULL when there was a mistake; `report` has been told of all. Free with stk_programs_free. */
struct stk_programs *stk_programs_new(const struct stk_config *config, stk_programs_report report,
                                      void *arg);
/* Accepts NULL; returns NULL. */
struct stk_programs *stk_programs_free(struct stk_programs *programs);
static inline void stk_programs_freep(struct stk_programs **programs)
{
    *programs = stk_programs_free(*programs);
}
/* Whether there is anything at all. */
bool stk_programs_any(const struct stk_programs *programs);

/* Whether a command is due in the minute of a local time. */
bool stk_cron_is_due(const struct stk_cron_spec *cron, const struct tm *tm);
/* The number of a signal: "TERM", "SIGTERM", "15"; 0: there is none of that name. */
int stk_program_signal(const char *text);

/* --- among the files of the reader ----------------------------------------------------------- */

struct stk_programs_context {
    struct stk_programs *programs;
    const struct stk_config *config;
    stk_programs_report report;
    void *arg;
    enum stk_option_id option;
    size_t item;
    bool failed;
};

/* Reports a mistake in the item that is being read. */
void stk_programs_fail(struct stk_programs_context *ctx, const char *fmt, ...) STK_PRINTF(2, 3);
/* A time in milliseconds, within bounds; `zero`: the word for 0, or NULL. -1: a mistake was
 * reported. */
stk_msec stk_programs_time(struct stk_programs_context *ctx, const char *what, const char *text,
                           int64_t min, const char *zero);
/* Likewise true or false. */
bool stk_programs_bool(struct stk_programs_context *ctx, const char *what, const char *text);
/* Reports a key that is not there, and the nearest one of `names`. */
void stk_programs_unknown(struct stk_programs_context *ctx, const char *what, const char *key,
                          const char *const *names, size_t n);
/* A name for a command, of its program; free it. */
char *stk_programs_name(const char *command) __attribute__((returns_nonnull));
/* cron.c: one text of `touch-exec`. */
void stk_programs_read_touch(struct stk_programs_context *ctx, const char *text,
                             struct stk_cron_spec *ret_cron);
/* One text of `cron` or `unique-cron`. */
void stk_programs_read_cron(struct stk_programs_context *ctx, const char *text,
                            struct stk_cron_spec *ret_cron);
