/*
 * The rules of logs are looked at line by line, behind everything that must not wait: in the thread
 * that writes the access log, and in the master for the error log, which comes there by a pipe.
 *
 * Each place has a buffer for what is written at once. A place that takes nothing is waited for a
 * tenth of a second, then its lines are lost, and while it goes on taking nothing it is not waited
 * for at all: one dead reader does not hold up the others. The master waits no longer than that in
 * all for what it has read at once: a reader that is slow, and not dead, would hold it up for good.
 *
 * A pattern that cannot be decided within its limits (serve/regex.h) has not matched: the line goes
 * where it would go without the rule.
 */
#include "serve/log_fan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"
#include "config/config.h"
#include "serve/log_encode.h"
#include "serve/log_place.h"
#include "serve/regex.h"

enum {
    FAN_BUFFER = 64 * 1024,
    FAN_ENCODED_MAX = 16 * 1024, /* an encoded line is cut there */
    FAN_WAIT_MS = 100,
};
#define FAN_REPORT_EVERY (10 * STK_NSEC_PER_SEC)

struct fan_place {
    char *name; /* NULL: none */
    char *what; /* for messages */
    bool raw;   /* the raw sink, which is the fan's */
    bool open;
    bool stalled;
    bool torn; /* its last line is cut off */
    struct stk_log_place place;
    struct stk_log_sink sink;
    uint64_t lines; /* in the buffer */
    uint64_t lost, told_lost;
    stk_nsec told_when;
    int error;
    size_t len;
    char buf[FAN_BUFFER];
};

struct fan_route {
    struct stk_regex *regex;
    struct fan_place *to;
};

struct stk_log_fan {
    enum stk_log_fan_kind kind;
    mode_t mode;
    size_t packet_max;
    bool split;
    int patience; /* milliseconds that are left to wait for places */
    struct stk_log_sink raw_sink;
    int out, err;          /* in the place of the standard streams; -1: they are what they are */
    struct fan_place *raw; /* the place that is written to without loggers */
    struct fan_place **places;
    size_t nplaces;
    bool unnamed; /* a logger has no name */
    struct fan_route *routes;
    size_t nroutes;
    struct stk_regex **drains, **filters;
    size_t ndrains, nfilters;
    struct stk_log_encoder **encoders;
    size_t nencoders;
    struct stk_regex_scratch *scratch;
    char encoded[2][FAN_ENCODED_MAX];
};

/* The options of a kind; those that it has not are empty. */
struct fan_options {
    const struct stk_strv *loggers, *routes, *encoders, *drains, *filters;
};

static struct fan_options fan_options(const struct stk_config *c, enum stk_log_fan_kind kind)
{
    static const struct stk_strv none;

    if (kind == STK_LOG_FAN_REQUESTS)
        return (struct fan_options){&c->req_logger, &c->log_req_route, &c->log_req_encoder, &none,
                                    &none};
    return (struct fan_options){&c->logger, &c->log_route, &c->log_encoder, &c->log_drain,
                                &c->log_filter};
}

bool stk_log_fan_is_wanted(const struct stk_config *config, enum stk_log_fan_kind kind)
{
    struct fan_options o = fan_options(config, kind);

    return o.loggers->n + o.routes->n + o.encoders->n + o.drains->n + o.filters->n > 0;
}

mode_t stk_log_fan_mode(const struct stk_config *config)
{
    return config->logfile_chmod > 0 ? (mode_t)config->logfile_chmod : 0;
}

/* Parts of NAME PATTERN; NULL: there is no pattern. */
static const char *fan_split_route(const char *text, size_t *ret_name)
{
    const char *pattern;

    *ret_name = strcspn(text, " ");
    pattern = text + *ret_name;
    pattern += strspn(pattern, " ");
    return *ret_name > 0 && *pattern != '\0' ? pattern : NULL;
}

/* Whether some logger, of requests or not, has the name. */
static bool fan_has_name(const struct stk_strv *loggers, const char *name, size_t len)
{
    for (size_t i = 0; i < loggers->n; i++)
        if (strncmp(loggers->items[i], name, len) == 0 && loggers->items[i][len] == ' ')
            return true;
    return false;
}

int stk_log_fan_check_pattern(const char *text, char **ret_error)
{
    struct stk_regex *regex = stk_regex_new(text, ret_error);

    if (regex == NULL)
        return -EINVAL;
    stk_regex_free(regex);
    return 0;
}

int stk_log_fan_check_route(const struct stk_config *config, const char *text, char **ret_error)
{
    size_t len;
    const char *pattern = fan_split_route(text, &len);

    if (pattern == NULL) {
        *ret_error = stk_mem_strdup("expected the name of a logger and a regular expression");
        return -EINVAL;
    }
    if (!fan_has_name(&config->logger, text, len) &&
        !fan_has_name(&config->req_logger, text, len)) {
        *ret_error = stk_mem_printf("there is no logger '%.*s': name one by `logger = %.*s "
                                    "file:PATH`",
                                    (int)len, text, (int)len, text);
        return -EINVAL;
    }
    return stk_log_fan_check_pattern(pattern, ret_error);
}

/* Whether a sink is the pipe that standard error is, under whatever name it was opened. */
static bool fan_is_pipe(const struct stk_log_sink *sink)
{
    struct stat one, other;

    return sink->type == STK_LOG_SINK_PIPE && fstat(sink->fd, &one) == 0 &&
           fstat(STDERR_FILENO, &other) == 0 && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}

/* A place that would write to the pipe its lines come from writes to what that stream was. */
static void fan_settle_stream(const struct stk_log_fan *fan, struct stk_log_sink *sink)
{
    int fd = sink->kind == STK_LOG_SINK_STREAM && sink->fd == STDERR_FILENO ? fan->err : fan->out;

    if (fd < 0 || !fan_is_pipe(sink))
        return;
    stk_log_sink_close(sink);
    *sink = (struct stk_log_sink){.kind = STK_LOG_SINK_STREAM, .fd = fd};
    stk_log_sink_probe(sink);
}

static void fan_open(struct stk_log_fan *fan, struct fan_place *p)
{
    int r = stk_log_place_open(&p->place, fan->mode, fan->packet_max, &p->sink);

    p->open = r == 0;
    p->torn = false;
    if (p->open)
        fan_settle_stream(fan, &p->sink);
    p->sink.split = p->open && fan->split;
    if (r < 0)
        stk_log_error("%s cannot be opened, and its lines are lost until the logs are opened "
                      "again: %s",
                      p->what, strerror(-r));
}

static struct fan_place *fan_add_place(struct stk_log_fan *fan, const char *text, char **ret_error)
{
    struct fan_place *p = stk_new0(struct fan_place);

    if (stk_log_place_parse(&p->place, text, ret_error) < 0) {
        free(p);
        return NULL;
    }
    p->name = p->place.name;
    p->what = stk_mem_printf("the logger %s", text);
    p->raw = p->place.method == STK_LOG_METHOD_STDIO;
    if (!p->raw)
        fan_open(fan, p);
    fan->places[fan->nplaces++] = p;
    return p;
}

static struct fan_place *fan_find(const struct stk_log_fan *fan, const char *name, size_t len)
{
    for (size_t i = 0; i < fan->nplaces; i++) {
        const char *own = fan->places[i]->name;

        if (own != NULL && strlen(own) == len && memcmp(own, name, len) == 0)
            return fan->places[i];
    }
    return NULL;
}

/* A route names a logger of its own log, or one of the other. */
static int fan_add_route(struct stk_log_fan *fan, const struct stk_config *config, const char *text,
                         char **ret_error)
{
    const struct stk_strv *other =
        fan->kind == STK_LOG_FAN_MAIN ? &config->req_logger : &config->logger;
    struct fan_place *to;
    size_t len;
    const char *pattern = fan_split_route(text, &len);

    if (stk_log_fan_check_route(config, text, ret_error) < 0)
        return -EINVAL;
    to = fan_find(fan, text, len);
    for (size_t i = 0; to == NULL && i < other->n; i++)
        if (strncmp(other->items[i], text, len) == 0 && other->items[i][len] == ' ')
            to = fan_add_place(fan, other->items[i], ret_error);
    if (to == NULL)
        return -EINVAL;
    fan->routes[fan->nroutes].regex = stk_regex_new(pattern, ret_error);
    fan->routes[fan->nroutes++].to = to;
    return fan->routes[fan->nroutes - 1].regex != NULL ? 0 : -EINVAL;
}

static int fan_add_patterns(const struct stk_strv *from, struct stk_regex ***ret_to, size_t *ret_n,
                            char **ret_error)
{
    *ret_to = stk_new0_array(struct stk_regex *, from->n + 1);
    for (size_t i = 0; i < from->n; i++) {
        (*ret_to)[i] = stk_regex_new(from->items[i], ret_error);
        if ((*ret_to)[i] == NULL)
            return -EINVAL;
        *ret_n = i + 1;
    }
    return 0;
}

static int fan_build(struct stk_log_fan *fan, const struct stk_config *config, char **ret_error)
{
    struct fan_options o = fan_options(config, fan->kind);
    size_t others = config->logger.n + config->req_logger.n;

    fan->raw = stk_new0(struct fan_place);
    fan->raw->raw = true;
    fan->raw->what = stk_mem_strdup(fan->kind == STK_LOG_FAN_MAIN ? "the log" : "the access log");
    fan->places = stk_new0_array(struct fan_place *, o.loggers->n + others + 1);
    fan->routes = stk_new0_array(struct fan_route, o.routes->n + 1);
    fan->encoders = stk_new0_array(struct stk_log_encoder *, o.encoders->n + 1);
    for (size_t i = 0; i < o.loggers->n; i++) {
        if (fan_add_place(fan, o.loggers->items[i], ret_error) == NULL)
            return -EINVAL;
        fan->unnamed |= fan->places[i]->name == NULL;
    }
    for (size_t i = 0; i < o.routes->n; i++)
        if (fan_add_route(fan, config, o.routes->items[i], ret_error) < 0)
            return -EINVAL;
    for (size_t i = 0; i < o.encoders->n; i++) {
        if (stk_log_encoder_new(&fan->encoders[i], o.encoders->items[i], ret_error) < 0)
            return -EINVAL;
        fan->nencoders = i + 1;
    }
    if (fan_add_patterns(o.drains, &fan->drains, &fan->ndrains, ret_error) < 0 ||
        fan_add_patterns(o.filters, &fan->filters, &fan->nfilters, ret_error) < 0)
        return -EINVAL;
    if (fan->nroutes + fan->ndrains + fan->nfilters > 0)
        fan->scratch = stk_regex_scratch_new();
    return 0;
}

int stk_log_fan_new(struct stk_log_fan **ret_fan, const struct stk_config *config,
                    enum stk_log_fan_kind kind, const struct stk_log_sink *raw, char **ret_error)
{
    struct stk_log_fan *fan = stk_new0(struct stk_log_fan);

    fan->kind = kind;
    fan->out = fan->err = -1;
    fan->raw_sink = *raw;
    fan->mode = stk_log_fan_mode(config);
    fan->packet_max = (size_t)config->rsyslog_packet_size;
    fan->split = config->rsyslog_split_messages;
    if (fan_build(fan, config, ret_error) < 0) {
        stk_log_fan_free(fan);
        return -EINVAL;
    }
    *ret_fan = fan;
    return 0;
}

void stk_log_fan_set_streams(struct stk_log_fan *fan, int out, int err)
{
    fan->out = out;
    fan->err = err;
    for (size_t i = 0; i < fan->nplaces; i++)
        if (fan->places[i]->open)
            fan_settle_stream(fan, &fan->places[i]->sink);
}

static void fan_free_place(struct fan_place *p)
{
    if (p == NULL)
        return;
    if (p->open)
        stk_log_sink_close(&p->sink);
    stk_log_place_deinit(&p->place);
    free(p->what);
    free(p);
}

struct stk_log_fan *stk_log_fan_free(struct stk_log_fan *fan)
{
    if (fan == NULL)
        return NULL;
    for (size_t i = 0; i < fan->nplaces; i++)
        fan_free_place(fan->places[i]);
    for (size_t i = 0; i < fan->nroutes; i++)
        stk_regex_free(fan->routes[i].regex);
    for (size_t i = 0; i < fan->ndrains; i++)
        stk_regex_free(fan->drains[i]);
    for (size_t i = 0; i < fan->nfilters; i++)
        stk_regex_free(fan->filters[i]);
    for (size_t i = 0; i < fan->nencoders; i++)
        stk_log_encoder_free(fan->encoders[i]);
    stk_regex_scratch_free(fan->scratch);
    stk_log_sink_close(&fan->raw_sink);
    fan_free_place(fan->raw);
    free(fan->places);
    free(fan->routes);
    free(fan->drains);
    free(fan->filters);
    free(fan->encoders);
    free(fan);
    return NULL;
}

static const struct stk_log_sink *fan_sink(const struct stk_log_fan *fan, const struct fan_place *p)
{
    return p->raw ? &fan->raw_sink : &p->sink;
}

/* Says that a place has lost lines; not often. The main log cannot say so in itself. */
static void fan_report(struct stk_log_fan *fan, struct fan_place *p)
{
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    stk_nsec now;

    if (p->lost == p->told_lost)
        return;
    now = stk_time_mono_ns();
    if (p->told_when != 0 && now - p->told_when < FAN_REPORT_EVERY)
        return;
    text = stk_mem_printf("%s: %llu lines lost: %s\n", p->what,
                          (unsigned long long)(p->lost - p->told_lost),
                          p->error == EAGAIN ? "its reader does not keep up" : strerror(p->error));
    p->told_lost = p->lost;
    p->told_when = now;
    if (fan->kind == STK_LOG_FAN_REQUESTS)
        stk_log_warning("%s", text);
    else if (stk_log_sink_write(&fan->raw_sink, STK_LOG_WARNING, text, strlen(text)) < 0) {
        /* There is nowhere else to say it. */
    }
}

/* How much of a buffer one write may carry. */
static size_t fan_piece(const struct stk_log_sink *sink, const char *from, size_t len)
{
    size_t max = stk_log_sink_write_max(sink);
    const char *nl;

    if (stk_log_sink_takes_lines(sink))
        return (size_t)((const char *)memchr(from, '\n', len) - from) + 1;
    if (len <= max)
        return len;
    nl = memrchr(from, '\n', max);
    return nl != NULL ? (size_t)(nl - from) + 1 : max;
}

/* Waits for a place. In the master all places together, for a part of the time of one write. */
static void fan_wait(struct stk_log_fan *fan, struct fan_place *p)
{
    stk_nsec begin = stk_time_mono_ns();

    stk_log_sink_wait(fan_sink(fan, p), fan->patience);
    p->stalled = true;
    if (fan->kind == STK_LOG_FAN_MAIN) {
        int taken = (int)((stk_time_mono_ns() - begin) / STK_NSEC_PER_MSEC) + 1;

        fan->patience = taken < fan->patience ? fan->patience - taken : 0;
    }
}

/* Writes the buffer of a place; returns how much of it was taken. */
static size_t fan_write(struct stk_log_fan *fan, struct fan_place *p)
{
    const struct stk_log_sink *sink = fan_sink(fan, p);
    size_t done = 0;

    while (done < p->len && (p->raw || p->open)) {
        ssize_t n = p->torn ? stk_log_sink_write(sink, STK_LOG_INFO, "\n", 1)
                            : stk_log_sink_write(sink, STK_LOG_INFO, p->buf + done,
                                                 fan_piece(sink, p->buf + done, p->len - done));

        if (n > 0) {
            p->stalled = false;
            done += p->torn ? 0 : (size_t)n;
            p->torn = false;
        } else if (n == -EAGAIN && !p->stalled && fan->patience > 0) {
            fan_wait(fan, p);
        } else {
            p->error = n < 0 ? (int)-n : EIO;
            p->torn |= done > 0 && p->buf[done - 1] != '\n';
            break;
        }
    }
    return done;
}

static void fan_flush(struct stk_log_fan *fan, struct fan_place *p)
{
    size_t done = fan_write(fan, p);

    for (const char *at = p->buf + done; at < p->buf + p->len; at++)
        p->lost += *at == '\n';
    if (p->raw || p->open)
        fan_report(fan, p);
    else
        p->told_lost = p->lost; /* that was said when it could not be opened */
    p->len = 0;
}

/* Puts an encoded line into the buffer of a place. */
static void fan_put(struct stk_log_fan *fan, struct fan_place *p, stk_span line)
{
    if (p->len + line.len + 1 > sizeof p->buf)
        fan_flush(fan, p);
    memcpy(p->buf + p->len, line.ptr, line.len);
    p->len += line.len;
    p->buf[p->len++] = '\n';
}

static void fan_send(struct stk_log_fan *fan, struct fan_place *p, stk_span line, int64_t micros)
{
    for (size_t i = 0, used = 0; i < fan->nencoders; i++) {
        const char *only = stk_log_encoder_logger(fan->encoders[i]);
        char *dst = fan->encoded[used % 2];

        if (only != NULL && (p->name == NULL || strcmp(only, p->name) != 0))
            continue;
        line = stk_span_make(dst,
                             stk_log_encode(fan->encoders[i], line, micros, dst, FAN_ENCODED_MAX));
        used++;
    }
    fan_put(fan, p, line);
}

static bool fan_matches(const struct stk_log_fan *fan, const struct stk_regex *regex, stk_span line)
{
    stk_span groups[STK_REGEX_GROUPS];

    return fan->scratch != NULL &&
           stk_regex_match(regex, fan->scratch, line, groups) == STK_REGEX_MATCH;
}

static bool fan_is_wanted(const struct stk_log_fan *fan, stk_span line)
{
    for (size_t i = 0; i < fan->ndrains; i++)
        if (fan_matches(fan, fan->drains[i], line))
            return false;
    for (size_t i = 0; i < fan->nfilters; i++)
        if (fan_matches(fan, fan->filters[i], line))
            return true;
    return fan->nfilters == 0;
}

static void fan_line(struct stk_log_fan *fan, stk_span line, int64_t micros)
{
    bool routed = false;

    if (!fan_is_wanted(fan, line))
        return;
    for (size_t i = 0; i < fan->nroutes; i++) {
        if (!fan_matches(fan, fan->routes[i].regex, line))
            continue;
        fan_send(fan, fan->routes[i].to, line, micros);
        routed = true;
    }
    if (routed)
        return;
    if (!fan->unnamed) {
        fan_send(fan, fan->raw, line, micros);
        return;
    }
    for (size_t i = 0; i < fan->nplaces; i++)
        if (fan->places[i]->name == NULL)
            fan_send(fan, fan->places[i], line, micros);
}

static uint64_t fan_lost(const struct stk_log_fan *fan)
{
    uint64_t n = fan->raw->lost;

    for (size_t i = 0; i < fan->nplaces; i++)
        n += fan->places[i]->lost;
    return n;
}

uint64_t stk_log_fan_write(struct stk_log_fan *fan, const char *lines, size_t len)
{
    uint64_t before = fan_lost(fan);
    struct timespec now;
    int64_t micros;

    fan->patience = FAN_WAIT_MS;
    clock_gettime(CLOCK_REALTIME, &now);
    micros = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    while (len > 0) {
        const char *nl = memchr(lines, '\n', len);
        size_t whole = nl != NULL ? (size_t)(nl - lines) : len;
        size_t n = whole < STK_LOG_FAN_LINE_MAX ? whole : STK_LOG_FAN_LINE_MAX;
        size_t used = n + (n == whole && nl != NULL);

        fan_line(fan, stk_span_make(lines, n > 0 && lines[n - 1] == '\r' ? n - 1 : n), micros);
        lines += used;
        len -= used;
    }
    for (size_t i = 0; i < fan->nplaces; i++)
        if (fan->places[i]->len > 0)
            fan_flush(fan, fan->places[i]);
    if (fan->raw->len > 0)
        fan_flush(fan, fan->raw);
    return fan_lost(fan) - before;
}

void stk_log_fan_reopen(struct stk_log_fan *fan)
{
    int r = stk_log_sink_reopen(&fan->raw_sink);

    if (r < 0)
        stk_log_error("%s cannot be opened again, so the old one stays in use: %s",
                      fan->raw_sink.path, strerror(-r));
    else
        fan->raw->torn = false;
    for (size_t i = 0; i < fan->nplaces; i++) {
        struct fan_place *p = fan->places[i];

        if (p->raw)
            continue;
        if (!p->open) {
            fan_open(fan, p);
            continue;
        }
        r = stk_log_sink_reopen(&p->sink);
        if (r < 0)
            stk_log_error("%s cannot be opened again, so the old one stays in use: %s", p->what,
                          strerror(-r));
        else
            p->torn = false;
    }
}

struct stk_log_sink stk_log_fan_release(struct stk_log_fan *fan)
{
    struct stk_log_sink raw = fan->raw_sink;

    fan->raw_sink = (struct stk_log_sink){.kind = STK_LOG_SINK_STREAM, .fd = -1};
    stk_log_fan_free(fan);
    return raw;
}

static uint64_t fan_out_write(void *arg, const char *lines, size_t len)
{
    return stk_log_fan_write(arg, lines, len);
}

static void fan_out_reopen(void *arg)
{
    stk_log_fan_reopen(arg);
}

static void fan_out_free(void *arg)
{
    stk_log_fan_free(arg);
}

struct stk_log_out stk_log_fan_out(struct stk_log_fan *fan)
{
    return (struct stk_log_out){
        .arg = fan, .write = fan_out_write, .reopen = fan_out_reopen, .free = fan_out_free};
}
