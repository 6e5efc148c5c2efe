/*
 * The effective configuration: one typed structure, filled from the option rows (config/options.c)
 * by the command line, the environment and configuration files. Read-only once loaded.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/time.h"

struct stk_strv {
    char **items; /* NULL-terminated when n > 0 */
    size_t n;
};

struct stk_config {
    /* application */
    char *app; /* positional, or `app = ` in a file */
    char *chdir;
    struct stk_strv pythonpath;
    struct stk_strv env; /* "NAME=value" */
    char *callable;      /* may be NULL: found by itself */
    bool preload;
    bool autoreload;

    /* sockets */
    struct stk_strv bind; /* default 127.0.0.1:8000 */
    int64_t backlog;
    int64_t socket_mode; /* -1: by umask; of unix sockets without ?mode= */
    char *socket_owner;  /* user[:group], may be NULL */

    /* processes */
    int64_t workers; /* 0: by the CPUs */
    int64_t threads;
    bool takeover; /* the stand-by thread; on */
    char *pidfile;
    char *umask; /* octal text, may be NULL */

    /* limits and timeouts */
    int64_t max_connections; /* 0: from the fd limit */
    int64_t limit_request_line;
    int64_t limit_request_head;
    int64_t limit_request_fields;
    int64_t limit_request_body; /* bytes, 0: none */
    int64_t body_buffer;        /* bytes in memory, then a temporary file */
    int64_t response_buffer;    /* likewise for responses */
    int64_t response_file_max;  /* bytes of the temporary file, then the application waits */
    bool body_stream; /* `body = stream`: call the application before the body is complete */
    stk_msec keepalive_timeout;
    stk_msec head_timeout;
    stk_msec body_timeout;
    int64_t body_min_rate; /* bytes a second, 0: none */
    stk_msec send_timeout;
    stk_msec graceful_timeout; /* after SIGTERM, 30 s */
    stk_msec exit_timeout;     /* threads joined and atexit run, 10 s */
    char *tmpdir;

    /* proxies */
    struct stk_strv forwarded_allow; /* addresses and CIDR, "unix", "*" */

    /* logs */
    char *access_log;        /* "-": standard output (default), "off", path, "syslog" */
    char *access_log_format; /* "combined", "common", "json", or a template */
    char *error_log;         /* "-": standard error */
    int64_t log_level;       /* enum stk_log_level */

    char *server_header; /* value of Server; empty: none */
};
