/*
 * Loggers: `logger` and `req-logger`, as [NAME ]METHOD[:ARGUMENT].
 *
 *   file:PATH, or file:logfile=PATH,maxsize=BYTES,backupname=PATH
 *   stdio                        where the log goes without loggers
 *   fd:N                         an open descriptor
 *   socket:ADDRESS[,PREFIX]      datagrams to host:port, or to a unix socket's path
 *   syslog[:IDENT[,FACILITY]]    the local daemon
 *   rsyslog:HOST[:PORT][,IDENT]  a daemon elsewhere, by UDP
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/log_sink.h"
#include "base/macros.h"

enum stk_log_method {
    STK_LOG_METHOD_FILE,
    STK_LOG_METHOD_STDIO,
    STK_LOG_METHOD_FD,
    STK_LOG_METHOD_SOCKET,
    STK_LOG_METHOD_SYSLOG,
    STK_LOG_METHOD_RSYSLOG,
};

struct stk_log_place {
    char *name; /* NULL: it has none, and takes every line that no route has sent elsewhere */
    enum stk_log_method method;
    char *target;     /* the path, the address; or NULL */
    char *ident;      /* or NULL */
    char *backup;     /* of a file: where it goes when it is too large; NULL: PATH.TIME */
    uint64_t maxsize; /* of a file, bytes; 0: log-maxsize holds */
    int number;       /* the descriptor, the facility */
};

/* Takes a logger apart. 0, or -EINVAL and a sentence in *ret_error, to be freed. */
int stk_log_place_parse(struct stk_log_place *ret_place, const char *text, char **ret_error)
    STK_MUST_CHECK;
void stk_log_place_deinit(struct stk_log_place *place);
/* Opens it; not for STDIO. `packet_max`: of rsyslog. 0 or a negative errno. */
int stk_log_place_open(const struct stk_log_place *place, mode_t mode, size_t packet_max,
                       struct stk_log_sink *ret_sink) STK_MUST_CHECK;
