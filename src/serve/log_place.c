/*
 * Loggers as uWSGI writes them. What a logger cannot be is said where the configuration is read,
 * with the reason; whether a file can be opened, when it is opened.
 */
#include "serve/log_place.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/span.h"

static const struct {
    const char *name;
    enum stk_log_method method;
    const char *argument; /* what it cannot do without, or NULL */
} place_methods[] = {
    {"file", STK_LOG_METHOD_FILE, "a path"}, {"stdio", STK_LOG_METHOD_STDIO, NULL},
    {"fd", STK_LOG_METHOD_FD, "a number"},   {"socket", STK_LOG_METHOD_SOCKET, "an address"},
    {"syslog", STK_LOG_METHOD_SYSLOG, NULL}, {"rsyslog", STK_LOG_METHOD_RSYSLOG, "a host"},
};

static int place_refuse(char **ret_error, char *text)
{
    *ret_error = text;
    return -EINVAL;
}

/* The name in front, of letters and digits. */
static size_t place_name(const char *text)
{
    size_t n = 0;

    while (isalnum((unsigned char)text[n]))
        n++;
    return text[n] == ' ' ? n : 0;
}

/* Splits text at the first comma; the part behind it, or NULL. */
static char *place_comma(char *text)
{
    char *comma = text != NULL ? strchr(text, ',') : NULL;

    if (comma != NULL)
        *comma++ = '\0';
    return comma;
}

/* logfile=PATH,maxsize=BYTES,backupname=PATH */
static int place_keys(struct stk_log_place *p, char *text, char **ret_error)
{
    while (text != NULL) {
        char *next = place_comma(text);
        char *end = NULL;

        if (strncmp(text, "logfile=", 8) == 0) {
            free(p->target);
            p->target = stk_mem_strdup(text + 8);
        } else if (strncmp(text, "backupname=", 11) == 0) {
            free(p->backup);
            p->backup = stk_mem_strdup(text + 11);
        } else if (strncmp(text, "maxsize=", 8) == 0) {
            errno = 0;
            p->maxsize = strtoull(text + 8, &end, 10);
            if (errno != 0 || end == text + 8 || *end != '\0')
                return place_refuse(ret_error, stk_mem_printf("%s is no number of bytes", text));
        } else {
            return place_refuse(ret_error, stk_mem_printf("%.64s: logfile, maxsize and backupname "
                                                          "are the keys of a file",
                                                          text));
        }
        text = next;
    }
    if (p->target == NULL || *p->target == '\0')
        return place_refuse(ret_error, stk_mem_strdup("logfile=PATH is missing"));
    return 0;
}

static int place_fd(struct stk_log_place *p, const char *text, char **ret_error)
{
    char *end;
    long n;

    errno = 0;
    n = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < 0 || n > 65535)
        return place_refuse(ret_error, stk_mem_printf("%.32s is no descriptor", text));
    p->number = (int)n;
    return 0;
}

static int place_syslog(struct stk_log_place *p, char *text, char **ret_error)
{
    char *facility = place_comma(text);

    p->number = LOG_DAEMON;
    if (text != NULL && *text != '\0')
        p->ident = stk_mem_strdup(text);
    if (facility == NULL)
        return 0;
    p->number = stk_log_sink_facility(facility);
    if (p->number < 0)
        return place_refuse(ret_error, stk_mem_printf("syslog has no facility %.32s", facility));
    return 0;
}

static int place_argument(struct stk_log_place *p, char *text, char **ret_error)
{
    const char *behind;

    switch (p->method) {
    case STK_LOG_METHOD_FILE:
        if (strchr(text, '=') != NULL)
            return place_keys(p, text, ret_error);
        p->target = stk_mem_strdup(text);
        return 0;
    case STK_LOG_METHOD_FD:
        return place_fd(p, text, ret_error);
    case STK_LOG_METHOD_SYSLOG:
        return place_syslog(p, text, ret_error);
    case STK_LOG_METHOD_SOCKET:
    case STK_LOG_METHOD_RSYSLOG:
        behind = place_comma(text);
        p->ident = behind != NULL ? stk_mem_strdup(behind) : NULL;
        p->number = p->method == STK_LOG_METHOD_RSYSLOG ? LOG_DAEMON : -1;
        p->target = stk_mem_strdup(text);
        return 0;
    case STK_LOG_METHOD_STDIO:
        break;
    }
    return 0;
}

/* What else is a logger of uWSGI's, and why it is none here. */
static int place_unknown(const char *name, size_t len, char **ret_error)
{
    static const char *const others[] = {"zeromq", "zmq",    "redislog", "mongodblog", "mongodb",
                                         "pipe",   "crypto", "graylog2", "systemd",    "python"};

    for (size_t i = 0; i < STK_ARRAY_LEN(others); i++)
        if (stk_span_eq(stk_span_make(name, len), stk_span_str(others[i])))
            return place_refuse(ret_error,
                                stk_mem_printf("%s is not there: a collector that reads a file, a "
                                               "socket or syslog takes the lines there",
                                               others[i]));
    return place_refuse(ret_error,
                        stk_mem_printf("there is no method '%.*s': file, stdio, fd, socket, syslog "
                                       "and rsyslog are there",
                                       len < 64 ? (int)len : 64, name));
}

int stk_log_place_parse(struct stk_log_place *ret_place, const char *text, char **ret_error)
{
    struct stk_log_place p = {0};
    STK_CLEANUP(stk_mem_freep) char *argument = NULL;
    size_t name = place_name(text);
    size_t len, i = 0;
    int r;

    if (name > 0) {
        p.name = stk_mem_strndup(text, name);
        text += name + 1;
    }
    text += strspn(text, " ");
    len = strcspn(text, ":");
    while (i < STK_ARRAY_LEN(place_methods) &&
           !stk_span_eq(stk_span_make(text, len), stk_span_str(place_methods[i].name)))
        i++;
    if (i == STK_ARRAY_LEN(place_methods)) {
        r = place_unknown(text, len, ret_error);
    } else {
        p.method = place_methods[i].method;
        p.number = LOG_DAEMON;
        if (text[len] == ':' && text[len + 1] != '\0')
            argument = stk_mem_strdup(text + len + 1);
        if (argument != NULL)
            r = place_argument(&p, argument, ret_error);
        else if (place_methods[i].argument != NULL)
            r = place_refuse(ret_error,
                             stk_mem_printf("%s needs %s, as %s:...", place_methods[i].name,
                                            place_methods[i].argument, place_methods[i].name));
        else
            r = 0;
    }
    if (r < 0) {
        stk_log_place_deinit(&p);
        return r;
    }
    *ret_place = p;
    return 0;
}

void stk_log_place_deinit(struct stk_log_place *p)
{
    free(p->name);
    free(p->target);
    free(p->ident);
    free(p->backup);
    *p = (struct stk_log_place){0};
}

static int place_open_unix(const struct stk_log_place *p, struct stk_log_sink *ret_sink)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(p->target);

    if (len >= sizeof addr.sun_path)
        return -ENAMETOOLONG;
    memcpy(addr.sun_path, p->target, len);
    return stk_log_sink_open_datagram(ret_sink, (const struct sockaddr *)&addr, sizeof addr,
                                      p->target, p->ident, -1, 0);
}

/* host:port, [host]:port; of rsyslog also without a port. */
static int place_open_udp(const struct stk_log_place *p, size_t packet_max,
                          struct stk_log_sink *ret_sink)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
    STK_CLEANUP(stk_mem_freep) char *host = stk_mem_strdup(p->target);
    bool rsyslog = p->method == STK_LOG_METHOD_RSYSLOG;
    struct addrinfo *found = NULL;
    char *colon = strrchr(host, ':');
    char *bracket = strrchr(host, ']');
    const char *port = "514";
    char *name = host;
    int r;

    if (colon != NULL && (bracket == NULL || colon > bracket)) {
        *colon = '\0';
        port = colon + 1;
    }
    if (*name == '[' && bracket != NULL) {
        name++;
        *bracket = '\0';
    }
    r = getaddrinfo(*name != '\0' ? name : "127.0.0.1", port, &hints, &found);
    if (r != 0)
        return r == EAI_SYSTEM ? -errno : -EHOSTUNREACH;
    r = stk_log_sink_open_datagram(ret_sink, found->ai_addr, found->ai_addrlen, p->target, p->ident,
                                   rsyslog ? p->number : -1, rsyslog ? packet_max : 0);
    freeaddrinfo(found);
    return r;
}

static int place_open_fd(const struct stk_log_place *p, struct stk_log_sink *ret_sink)
{
    struct stk_log_sink sink = {.kind = STK_LOG_SINK_STREAM, .fd = p->number};

    if (fcntl(sink.fd, F_GETFD) < 0)
        return -errno;
    stk_log_sink_probe(&sink);
    *ret_sink = sink;
    return 0;
}

static int place_open_syslog(const struct stk_log_place *p, struct stk_log_sink *ret_sink)
{
    int r = stk_log_sink_open_syslog(ret_sink, "/dev/log", p->number);

    if (r == 0 && p->ident != NULL)
        ret_sink->ident = stk_mem_strdup(p->ident);
    return r;
}

int stk_log_place_open(const struct stk_log_place *p, mode_t mode, size_t packet_max,
                       struct stk_log_sink *ret_sink)
{
    int r;

    switch (p->method) {
    case STK_LOG_METHOD_FILE:
        r = stk_log_sink_open(ret_sink, p->target, STDOUT_FILENO);
        if (r == 0 && stk_log_sink_chmod(ret_sink, mode) < 0) {
            /* It is another user's, who has decided. */
        }
        return r;
    case STK_LOG_METHOD_FD:
        return place_open_fd(p, ret_sink);
    case STK_LOG_METHOD_SYSLOG:
        return place_open_syslog(p, ret_sink);
    case STK_LOG_METHOD_SOCKET:
        return strchr(p->target, ':') != NULL ? place_open_udp(p, 0, ret_sink)
                                              : place_open_unix(p, ret_sink);
    case STK_LOG_METHOD_RSYSLOG:
        return place_open_udp(p, packet_max, ret_sink);
    case STK_LOG_METHOD_STDIO:
        break;
    }
    return -EINVAL;
}
