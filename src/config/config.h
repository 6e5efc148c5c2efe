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

/* config->reload_mode: the choices of the option, in order. */
enum stk_reload_mode {
    STK_RELOAD_ROLLING, /* one worker after the other */
    STK_RELOAD_ALL,     /* one, then all others at once */
};

/* config->tls_min_version. */
enum stk_tls_min_version {
    STK_TLS_MIN_1_2,
    STK_TLS_MIN_1_3,
};

/* config->proxy_protocol. */
enum stk_proxy_protocol {
    STK_PROXY_PROTOCOL_OFF,
    STK_PROXY_PROTOCOL_OPTIONAL,
    STK_PROXY_PROTOCOL_REQUIRED,
};

/* config->websocket_compression. */
enum stk_ws_compression {
    STK_WS_COMPRESSION_OFF,
    STK_WS_COMPRESSION_SHARED,    /* no window lasts longer than a message */
    STK_WS_COMPRESSION_DEDICATED, /* each connection has windows of its own */
};

/* config->tls_verify_client. */
enum stk_tls_verify {
    STK_TLS_VERIFY_OFF,
    STK_TLS_VERIFY_OPTIONAL,
    STK_TLS_VERIFY_REQUIRED,
};

struct stk_config {
    /* application; NULL: only what is mounted or routed */
    char *app; /* positional, or `app = ` in a file */
    char *chdir;
    struct stk_strv pythonpath;
    struct stk_strv env; /* "NAME=value" */
    char *callable;      /* may be NULL: found by itself */
    int64_t interface;   /* enum stk_host_interface, which is in app/host.h, as of the next two */
    int64_t loop;        /* enum stk_host_loop */
    int64_t lifespan;    /* enum stk_host_lifespan */
    int64_t gevent;      /* requests at a time in greenlets; 0: none are */
    bool gevent_monkey_patch;
    bool preload;
    bool autoreload;
    bool uwsgi_module;
    struct stk_strv mount; /* "host/prefix=application"; see config/site.h */

    /* routing */
    struct stk_strv route; /* rows */
    struct stk_strv uwsgi_route;
    bool uwsgi_route_mounted;
    struct stk_strv header; /* fields or rows */
    bool redirect_https;
    int64_t redirect_https_port;
    char *canonical_host; /* may be NULL */

    /* sockets */
    struct stk_strv bind; /* default 127.0.0.1:8000 */
    int64_t backlog;
    int64_t socket_mode; /* -1: by umask; of unix sockets without ?mode= */
    char *socket_owner;  /* user[:group], may be NULL */
    bool allow_public_gateway;

    /* TLS */
    struct stk_strv tls_cert; /* files and directories */
    struct stk_strv tls_key;  /* of the files, in their order */
    int64_t tls_min_version;  /* enum stk_tls_min_version */
    char *tls_ciphers;        /* may be NULL, as of the next */
    char *tls_client_ca;
    int64_t tls_verify_client; /* enum stk_tls_verify */
    stk_msec tls_handshake_timeout;

    /* processes */
    int64_t workers; /* 0: by the CPUs */
    int64_t threads;
    bool takeover; /* the stand-by thread; on */
    char *user;    /* may be NULL, as of the next three */
    char *group;
    bool daemon;
    char *name;
    stk_msec upgrade_timeout;
    char *pidfile;
    char *control;               /* where the control socket is: a path, "auto" or "off" */
    struct stk_strv master_fifo; /* paths */
    char *umask;                 /* octal text, may be NULL */

    /* replacing workers */
    int64_t workers_min;          /* 0: as workers, no scaling */
    int64_t reload_mode;          /* enum stk_reload_mode */
    struct stk_strv touch_reload; /* paths */
    int64_t max_requests;         /* 0: none, as of the next three */
    stk_msec max_lifetime;
    int64_t max_rss; /* bytes */
    int64_t max_pss;
    int64_t recycle_jitter; /* percent */
    int64_t recycle_parallel;
    int64_t preload_refresh; /* requests; 0: none */
    bool reload_on_exception;
    struct stk_strv reload_on_exception_type; /* names, as of the next two texts */
    struct stk_strv reload_on_exception_value;
    struct stk_strv reload_on_exception_repr;

    /* limits and timeouts */
    int64_t max_connections; /* 0: from the fd limit */
    int64_t max_concurrency; /* requests of ASGI applications; 0: none */
    int64_t max_queue;       /* requests; 0: none */
    stk_msec max_queue_age;  /* 0: none */
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
    stk_msec request_timeout; /* 0: off */
    stk_msec cancel_grace;
    bool cancel_on_disconnect;
    stk_msec graceful_timeout; /* after SIGTERM, 30 s */
    stk_msec exit_timeout;     /* threads joined and atexit run, 10 s */
    char *tmpdir;

    /* proxies */
    struct stk_strv forwarded_allow; /* addresses and CIDR, "unix", "*" */
    int64_t proxy_protocol;          /* enum stk_proxy_protocol */

    /* static files */
    struct stk_strv static_dirs; /* "/prefix=dir" */
    struct stk_strv static_map;  /* likewise; what is not there is the application's */
    struct stk_strv static_check;
    struct stk_strv static_index;
    struct stk_strv static_try;     /* "/prefix=/file" */
    struct stk_strv static_expires; /* "pattern=duration" */
    struct stk_strv static_mime;    /* "ending=type" */
    struct stk_strv mime_file;
    int64_t static_follow_symlinks; /* enum stk_static_links */
    bool static_dotfiles;
    int64_t static_cache;             /* files */
    struct stk_strv x_sendfile;       /* directories */
    struct stk_strv x_accel_redirect; /* "/prefix=dir" */
    char *cwd; /* no option: where relative paths of routes begin, once that is settled */

    /* logs */
    char *access_log; /* "-": standard output (default), "off", path, "syslog" */
    struct stk_strv access_log_only;
    char *access_log_format;                      /* "combined", "common", "json", or a template */
    char *error_log;                              /* "-": standard error */
    struct stk_strv logger, req_logger;           /* "[name ]method:argument" */
    struct stk_strv log_route, log_req_route;     /* "name pattern" */
    struct stk_strv log_encoder, log_req_encoder; /* "name[:logger][ argument]" */
    struct stk_strv log_drain, log_filter;        /* patterns */
    int64_t rsyslog_packet_size;
    bool rsyslog_split_messages;
    int64_t log_maxsize;  /* bytes; 0: files grow */
    char *log_backupname; /* of the error log; NULL: PATH.TIME */
    struct stk_strv touch_logrotate, touch_logreopen;
    int64_t logfile_chmod; /* -1: 0640 less the umask */
    bool log_truncate;
    bool log_reopen;
    char *log_date;    /* as strftime; NULL: 2026-11-23 03:10:00.123 */
    int64_t log_level; /* enum stk_log_level */

    char *server_header; /* value of Server; empty: none */

    /* compression; read by serve/compress.c */
    struct stk_strv compress; /* names of codings, or one word as "off" */
    struct stk_strv compress_types;
    int64_t compress_min_size;
    struct stk_strv compress_level;

    /* caches; read by services/caches.c */
    struct stk_strv cache; /* "name=...,items=..." */
    struct stk_strv add_cache_item;
    struct stk_strv load_file_in_cache;
    struct stk_strv load_file_in_cache_gzip;

    /* WebSockets */
    int64_t websocket_max_message;    /* bytes, inflated */
    stk_msec websocket_ping_interval; /* 0: no pings */
    stk_msec websocket_ping_timeout;
    int64_t websocket_compression; /* enum stk_ws_compression */

    /* health and metrics; each may be NULL */
    char *health_path; /* readiness there, with /live and /ready behind it */
    char *metrics;     /* an address, or a path on the application's sockets */
    char *stats;       /* an address */
    bool stats_http;   /* with a response head in front */

    /* programs beside the server; see config/programs.h */
    struct stk_strv attach_daemon; /* commands */
    struct stk_strv program;       /* rows */
    struct stk_strv cron;          /* entries or rows, as of the next */
    struct stk_strv unique_cron;
    struct stk_strv touch_exec; /* "file command" */
    stk_msec cron_timeout;      /* 0: none */
    struct stk_strv alarm;      /* "name method:argument" */
    struct stk_strv alarm_log;  /* "name[,name] pattern", as of the next */
    struct stk_strv not_alarm_log;
    struct stk_strv alarm_segfault; /* names, as of the next */
    struct stk_strv alarm_backlog;
    stk_msec alarm_freq;
    int64_t alarm_msg_size; /* bytes */
};

/* What the server is called where there is room for one application. */
static inline const char *stk_config_app_name(const struct stk_config *config)
{
    if (config->app)
        return config->app;
    return config->mount.n > 0 ? config->mount.items[0] : "routes";
}
