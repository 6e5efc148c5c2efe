/*
 * Values that config/ takes as texts, because their parsers are in layers above it: addresses,
 * networks, the format of the access log. Checked before anything starts, so that a mistake is
 * reported with its place in the file and not by the first worker.
 */
#include <stdlib.h>
#include <string.h>

#include "app/host.h"
#include "base/mem.h"
#include "base/owner.h"
#include "cli/cli.h"
#include "config/programs.h"
#include "config/site.h"
#include "net/addr.h"
#include "net/cidr.h"
#include "serve/access_filter.h"
#include "serve/access_format.h"
#include "serve/compress.h"
#include "serve/log_encode.h"
#include "serve/log_fan.h"
#include "serve/log_place.h"
#include "serve/regex.h"
#include "serve/router.h"
#include "serve/static.h"
#include "services/caches.h"
#include "wire/uri.h"

enum { VERIFY_PATH_MAX = 512 };

static const struct stk_origin *verify_origin(const struct stk_load *load,
                                              const struct stk_option *opt, size_t item)
{
    const struct stk_provenance *prov = stk_load_provenance(load, opt);

    return item < prov->n ? &prov->items[item] : &prov->top;
}

static const struct stk_option *verify_row(enum stk_option_id id)
{
    return &stk_options_rows()[id];
}

/* Whether a spec can be reached from other machines. */
static bool verify_is_public(const struct stk_addr_spec *spec)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    struct stk_addr *addrs = NULL;
    size_t n = 0;
    bool is_public = false;

    if (spec->kind != STK_ADDR_TCP)
        return false;
    if (stk_addr_resolve(spec, &addrs, &n, &error) != 0)
        return false; /* it cannot be listened on either, which is said there */
    for (size_t i = 0; i < n; i++)
        is_public = is_public || !stk_addr_is_loopback(&addrs[i]);
    free(addrs);
    return is_public;
}

/* Whoever can send variables decides who the client is and what address it has. */
static void verify_gateway(struct stk_load *load, const struct stk_config *config, size_t i,
                           const struct stk_addr_spec *spec)
{
    if (strncmp(spec->scheme, "http", 4) == 0 || config->allow_public_gateway ||
        !verify_is_public(spec))
        return;
    stk_load_fail(
        load, verify_origin(load, verify_row(STK_OPTION_ID_BIND), i),
        "bind: %s can be reached from other machines, and whoever speaks a gateway "
        "protocol may claim to be any client: bind 127.0.0.1 or a unix socket, use "
        "http://, or set allow-public-gateway where a firewall lets only the front end in",
        config->bind.items[i]);
}

/* The PROXY protocol is taken from trusted peers only. */
static void verify_proxy(struct stk_load *load, const struct stk_config *config, int64_t how,
                         const struct stk_origin *origin)
{
    if (how > STK_PROXY_PROTOCOL_OFF && config->forwarded_allow.n == 0)
        stk_load_fail(load, origin,
                      "proxy-protocol: forwarded-allow is empty, so nobody may send it: name the "
                      "balancer there");
}

static void verify_bind(struct stk_load *load, const struct stk_config *config)
{
    const struct stk_option *opt = verify_row(STK_OPTION_ID_BIND);

    for (size_t i = 0; i < config->bind.n; i++) {
        STK_CLEANUP(stk_mem_freep) char *error = NULL;
        struct stk_addr_spec spec = {0};

        if (stk_addr_spec_parse(config->bind.items[i], &spec, &error) != 0)
            stk_load_fail(load, verify_origin(load, opt, i), "bind: %s", error);
        else if (strcmp(spec.scheme, "https") == 0 && config->tls_cert.n == 0)
            stk_load_fail(load, verify_origin(load, opt, i),
                          "bind: %s needs a certificate: give one by tls-cert and tls-key",
                          config->bind.items[i]);
        else
            verify_gateway(load, config, i, &spec);
        verify_proxy(load, config, spec.proxy_protocol, verify_origin(load, opt, i));
        stk_addr_spec_deinit(&spec);
    }
}

/* Client certificates: whom to believe, and whether to ask at all. */
static void verify_tls(struct stk_load *load, const struct stk_config *config)
{
    bool asks = config->tls_verify_client != STK_TLS_VERIFY_OFF;

    if (asks && config->tls_client_ca == NULL)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_TLS_VERIFY_CLIENT), 0),
                      "tls-verify-client needs tls-client-ca, whose certificates are taken");
    if (!asks && config->tls_client_ca != NULL)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_TLS_CLIENT_CA), 0),
                      "tls-client-ca protects nothing while tls-verify-client is off: set that to "
                      "required, or to optional");
    if (config->tls_key.n > 0 && config->tls_cert.n == 0)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_TLS_KEY), 0),
                      "tls-key needs the certificate that it is for: tls-cert");
}

static void verify_forwarded(struct stk_load *load, const struct stk_config *config)
{
    const struct stk_option *opt = verify_row(STK_OPTION_ID_FORWARDED_ALLOW);
    struct stk_cidr_set set = {0};

    for (size_t i = 0; i < config->forwarded_allow.n; i++) {
        STK_CLEANUP(stk_mem_freep) char *error = NULL;

        if (stk_cidr_set_add(&set, config->forwarded_allow.items[i], &error) != 0)
            stk_load_fail(load, verify_origin(load, opt, i), "forwarded-allow: %s", error);
    }
    stk_cidr_set_deinit(&set);
    verify_proxy(load, config, config->proxy_protocol,
                 verify_origin(load, verify_row(STK_OPTION_ID_PROXY_PROTOCOL), 0));
}

static void verify_access_format(struct stk_load *load, const struct stk_config *config)
{
    const struct stk_option *opt = verify_row(STK_OPTION_ID_ACCESS_LOG_FORMAT);
    struct stk_access_format *format = NULL;
    char error[STK_ACCESS_ERROR_MAX] = "";

    if (stk_access_format_new(&format, config->access_log_format, 1, error) != 0)
        stk_load_fail(load, verify_origin(load, opt, 0), "%s", error);
    stk_access_format_free(format);
}

static void verify_access_only(struct stk_load *load, const struct stk_config *config)
{
    const struct stk_option *opt = verify_row(STK_OPTION_ID_ACCESS_LOG_ONLY);
    struct stk_access_filter filter = {0};

    for (size_t i = 0; i < config->access_log_only.n; i++) {
        const char *error = stk_access_filter_add(&filter, config->access_log_only.items[i]);

        if (error != NULL)
            stk_load_reject(load, opt, i, "%s", error);
    }
}

/* Routes, patterns and encoders of logs. */
static void verify_log_item(struct stk_load *load, enum stk_option_id id, const char *text,
                            char **ret_error)
{
    struct stk_log_encoder *encoder = NULL;
    struct stk_log_place place = {0};

    switch (id) {
    case STK_OPTION_ID_LOGGER:
    case STK_OPTION_ID_REQ_LOGGER:
        if (stk_log_place_parse(&place, text, ret_error) == 0)
            stk_log_place_deinit(&place);
        break;
    case STK_OPTION_ID_LOG_ENCODER:
    case STK_OPTION_ID_LOG_REQ_ENCODER:
        if (stk_log_encoder_new(&encoder, text, ret_error) == 0)
            stk_log_encoder_free(encoder);
        break;
    case STK_OPTION_ID_LOG_ROUTE:
    case STK_OPTION_ID_LOG_REQ_ROUTE:
        (void)!stk_log_fan_check_route(stk_load_config(load), text, ret_error);
        break;
    default:
        (void)!stk_log_fan_check_pattern(text, ret_error);
        break;
    }
}

static void verify_logs(struct stk_load *load, const struct stk_config *config)
{
    const struct {
        enum stk_option_id id;
        const struct stk_strv *values;
    } all[] = {
        {STK_OPTION_ID_LOGGER, &config->logger},
        {STK_OPTION_ID_REQ_LOGGER, &config->req_logger},
        {STK_OPTION_ID_LOG_ROUTE, &config->log_route},
        {STK_OPTION_ID_LOG_REQ_ROUTE, &config->log_req_route},
        {STK_OPTION_ID_LOG_ENCODER, &config->log_encoder},
        {STK_OPTION_ID_LOG_REQ_ENCODER, &config->log_req_encoder},
        {STK_OPTION_ID_LOG_DRAIN, &config->log_drain},
        {STK_OPTION_ID_LOG_FILTER, &config->log_filter},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(all); i++) {
        for (size_t j = 0; j < all[i].values->n; j++) {
            STK_CLEANUP(stk_mem_freep) char *error = NULL;

            verify_log_item(load, all[i].id, all[i].values->items[j], &error);
            if (error != NULL)
                stk_load_reject(load, verify_row(all[i].id), j, "%s", error);
        }
    }
}

static void verify_address(struct stk_load *load, enum stk_option_id id, const char *text)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    const struct stk_option *opt = verify_row(id);
    struct stk_addr_spec spec = {0};

    if (text == NULL)
        return;
    if (stk_addr_spec_parse(text, &spec, &error) != 0)
        stk_load_fail(load, verify_origin(load, opt, 0), "%s: %s", opt->name, error);
    else if (id == STK_OPTION_ID_STATS && strcmp(spec.scheme, "https") == 0)
        stk_load_fail(load, verify_origin(load, opt, 0), "stats: there is no TLS there");
    else if (spec.scheme_given && strncmp(spec.scheme, "http", 4) != 0)
        stk_load_fail(load, verify_origin(load, opt, 0), "%s: only http:// is spoken there",
                      opt->name);
    else if (strcmp(spec.scheme, "https") == 0 && stk_load_config(load)->tls_cert.n == 0)
        stk_load_fail(load, verify_origin(load, opt, 0),
                      "%s: %s needs a certificate: give one by tls-cert and tls-key", opt->name,
                      text);
    stk_addr_spec_deinit(&spec);
}

/* A path of a request, as it is after decoding. */
static void verify_path(struct stk_load *load, enum stk_option_id id, const char *text)
{
    const struct stk_option *opt = verify_row(id);

    if (text == NULL)
        return;
    if (text[0] != '/' || strpbrk(text, "?#") != NULL)
        stk_load_fail(load, verify_origin(load, opt, 0),
                      "%s = '%s': expected a path, as /%s, without ? and #", opt->name, text,
                      id == STK_OPTION_ID_METRICS ? "metrics" : "health");
    else if (strlen(text) > VERIFY_PATH_MAX)
        stk_load_fail(load, verify_origin(load, opt, 0), "%s is over %d bytes long", opt->name,
                      VERIFY_PATH_MAX);
}

/* Somebody has to watch while the application runs. */
static void verify_deadline(struct stk_load *load, const struct stk_config *config)
{
    if (config->takeover)
        return;
    if (config->request_timeout > 0)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_REQUEST_TIMEOUT), 0),
                      "request-timeout needs the stand-by thread, which takeover = false has "
                      "switched off: leave out one of the two");
    if (config->cancel_on_disconnect)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_CANCEL_ON_DISCONNECT), 0),
                      "cancel-on-disconnect needs the stand-by thread, which takeover = false has "
                      "switched off: leave out one of the two");
    if (config->max_queue > 0)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_MAX_QUEUE), 0),
                      "max-queue needs the stand-by thread, which takeover = false has "
                      "switched off: leave out one of the two");
    if (config->max_queue_age > 0)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_MAX_QUEUE_AGE), 0),
                      "max-queue-age needs the stand-by thread, which takeover = false has "
                      "switched off: leave out one of the two");
}

/* It is known here already that there is no ASGI application; else the loader sees it. */
static void verify_concurrency(struct stk_load *load, const struct stk_config *config)
{
    const struct stk_origin *origin =
        verify_origin(load, verify_row(STK_OPTION_ID_MAX_CONCURRENCY), 0);

    if (config->max_concurrency > 0 && config->gevent > 0)
        stk_load_fail(load, origin,
                      "max-concurrency is a limit of ASGI applications, and the number that gevent "
                      "takes is that of WSGI ones: leave max-concurrency out");
    else if (config->max_concurrency > 0 && config->interface == STK_HOST_INTERFACE_WSGI)
        stk_load_fail(load, origin,
                      "max-concurrency is a limit of ASGI applications, and interface = wsgi says "
                      "that there is none; a WSGI application has as many requests at a time as "
                      "threads: leave out max-concurrency");
}

/* All greenlets of a worker are on its main thread. */
static void verify_gevent(struct stk_load *load, const struct stk_config *config)
{
    if (config->gevent > 0 && config->threads > 1)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_GEVENT), 0),
                      "gevent runs all requests of a worker on one thread: leave out threads, or "
                      "gevent");
    if (config->gevent > 0 && config->interface == STK_HOST_INTERFACE_ASGI)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_GEVENT), 0),
                      "gevent runs WSGI applications, and interface = asgi says that this is none: "
                      "leave out one of the two");
}

static void verify_refresh(struct stk_load *load, const struct stk_config *config)
{
    if (config->preload_refresh > 0 && !config->preload)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_PRELOAD_REFRESH), 0),
                      "preload-refresh is of use with preload only: add preload, or leave it out");
}

/* A control character here would be one in every response. */
static void verify_server_header(struct stk_load *load, const struct stk_config *config)
{
    const struct stk_option *opt = verify_row(STK_OPTION_ID_SERVER_HEADER);

    for (const char *c = config->server_header; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            stk_load_fail(load, verify_origin(load, opt, 0),
                          "server-header holds a control character");
            return;
        }
}

/* Names of users and groups, also where --check runs: the server would not start there either. */
static void verify_owner(struct stk_load *load, const struct stk_config *config)
{
    STK_CLEANUP(stk_owner_deinit) struct stk_owner user = {0};
    gid_t gid;

    if (config->user && stk_owner_find_user(config->user, &user) < 0)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_USER), 0),
                      "user: there is no user \"%s\"", config->user);
    if (config->group && stk_owner_find_group(config->group, &gid) < 0)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_GROUP), 0),
                      "group: there is no group \"%s\"", config->group);
}

static void verify_on_mistake(void *arg, enum stk_option_id id, size_t item, const char *text)
{
    stk_load_reject(arg, verify_row(id), item, "%s", text);
}

/* Names, types, levels, and whether this build has the libraries. */
static void verify_compress(struct stk_load *load, const struct stk_config *config)
{
    static const enum stk_option_id rows[] = {STK_OPTION_ID_COMPRESS_LEVEL,
                                              STK_OPTION_ID_COMPRESS_TYPES, STK_OPTION_ID_COMPRESS};
    struct stk_compress *none = NULL;
    char error[STK_COMPRESS_ERROR_MAX] = "";
    const struct stk_option *opt = NULL;

    if (stk_compress_new(&none, config, NULL, error) != 1)
        return;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        opt = verify_row(rows[i]);
        if (strncmp(error, opt->name, strlen(opt->name)) == 0)
            break;
    }
    stk_load_fail(load, verify_origin(load, opt, 0), "%s", error);
}

/* Somebody has to watch here as well. */
static void verify_rules(struct stk_load *load, const struct stk_config *config,
                         const struct stk_site *site)
{
    for (size_t i = 0; i < site->nrules && !config->takeover; i++)
        if (site->rules[i].timeout > 0)
            verify_on_mistake(load, site->rules[i].option, site->rules[i].item,
                              "timeout needs the stand-by thread, which takeover = false has "
                              "switched off: leave out one of the two");
}

/* Mounts, routes and fields. */
static void verify_site(struct stk_load *load, const struct stk_config *config)
{
    STK_CLEANUP(stk_site_freep)
    struct stk_site *site = stk_site_new(config, verify_on_mistake, load);
    const char *host = config->canonical_host;
    stk_span name, port;

    if (site) {
        (void)stk_router_check(site, verify_on_mistake, load);
        verify_rules(load, config, site);
    }
    (void)stk_router_check_uwsgi(config, verify_on_mistake, load);
    if (host && (strchr(host, '/') || !stk_uri_split_host(stk_span_str(host), &name, &port) ||
                 strchr(host, '$')))
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_CANONICAL_HOST), 0),
                      "canonical-host = '%s': expected a name as example.com, perhaps with :port",
                      host);
}

/* A user or group of a program's own. */
static void verify_program_owner(struct stk_load *load, const struct stk_config *config,
                                 const struct stk_program_spec *spec)
{
    STK_CLEANUP(stk_owner_deinit) struct stk_owner user = {0};
    gid_t gid;

    if (spec->user && stk_owner_find_user(spec->user, &user) < 0)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_PROGRAM), 0),
                      "program: %s: there is no user \"%s\"", spec->name, spec->user);
    if (spec->group && stk_owner_find_group(spec->group, &gid) < 0)
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_PROGRAM), 0),
                      "program: %s: there is no group \"%s\"", spec->name, spec->group);
    if ((spec->user || spec->group) && (config->user || config->group))
        stk_load_fail(load, verify_origin(load, verify_row(STK_OPTION_ID_PROGRAM), 0),
                      "program: %s: once the server is user %s it cannot start a program as "
                      "another one: leave out one of the two",
                      spec->name, config->user ? config->user : config->group);
}

/* What runs beside the workers, and the users that it is to have. */
static void verify_programs(struct stk_load *load, const struct stk_config *config)
{
    STK_CLEANUP(stk_programs_freep)
    struct stk_programs *programs = stk_programs_new(config, verify_on_mistake, load);

    for (size_t i = 0; programs && i < programs->nrules; i++) {
        STK_CLEANUP(stk_mem_freep) char *error = NULL;
        struct stk_regex *regex = stk_regex_new(programs->rules[i].pattern, &error);
        size_t negated = config->not_alarm_log.n;

        if (!regex)
            verify_on_mistake(load,
                              i < negated ? STK_OPTION_ID_NOT_ALARM_LOG : STK_OPTION_ID_ALARM_LOG,
                              i < negated ? i : i - negated, error);
        stk_regex_free(regex);
    }
    for (size_t i = 0; programs && i < programs->nprograms; i++)
        verify_program_owner(load, config, &programs->programs[i]);
}

void stk_verify_values(struct stk_load *load)
{
    const struct stk_config *config = stk_load_config(load);

    verify_site(load, config);
    verify_programs(load, config);
    verify_bind(load, config);
    verify_tls(load, config);
    verify_forwarded(load, config);
    verify_access_format(load, config);
    verify_access_only(load, config);
    verify_logs(load, config);
    verify_server_header(load, config);
    verify_owner(load, config);
    verify_deadline(load, config);
    verify_gevent(load, config);
    verify_concurrency(load, config);
    verify_refresh(load, config);
    stk_statics_verify(config, config->chdir, verify_on_mistake, load);
    verify_compress(load, config);
    stk_caches_verify(config, verify_on_mistake, load);
    verify_address(load, STK_OPTION_ID_STATS, config->stats);
    verify_path(load, STK_OPTION_ID_HEALTH_PATH, config->health_path);
    if (config->metrics != NULL && config->metrics[0] == '/')
        verify_path(load, STK_OPTION_ID_METRICS, config->metrics);
    else
        verify_address(load, STK_OPTION_ID_METRICS, config->metrics);
}
