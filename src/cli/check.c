/*
 * --check: the effective configuration, as TOML that could be a stoker.toml again, each line with
 * the origin of its value; then the application is loaded as a worker would load it.
 *
 * The application may leave threads behind that never end, for which Python would wait at its exit.
 * A worker gives them exit-timeout and goes; so does this, by an alarm.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/host.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "config/cpus.h"
#include "config/site.h"
#include "config/value.h"
#include "net/tls_store.h"
#include "pyhost/pyhost.h"
#include "services/caches.h"

#define CHECK_COLUMN 42 /* where the origins begin */

/* A TOML string; what is not UTF-8 comes out as it went in. */
static void check_quote(FILE *f, const char *text)
{
    fputc('"', f);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(f, "\\%c", *c);
        else if (*c < ' ' || *c == 0x7f)
            fprintf(f, "\\u%04X", *c);
        else
            fputc(*c, f);
    }
    fputc('"', f);
}

static bool check_is_bare(const struct stk_option *opt, const char *text)
{
    if (opt->kind == STK_OPTION_BOOL)
        return true;
    if (opt->kind != STK_OPTION_INT && opt->kind != STK_OPTION_SIZE)
        return false;
    return *text && text[strspn(text, "0123456789")] == '\0';
}

static void check_value(FILE *f, const struct stk_load *load, const struct stk_option *opt)
{
    bool list = stk_options_is_list(opt);
    size_t n = stk_load_count(load, opt);

    if (list)
        fputc('[', f);
    for (size_t i = 0; i < n; i++) {
        STK_CLEANUP(stk_mem_freep) char *text = stk_load_text(load, opt, i);

        if (i > 0)
            fputs(", ", f);
        if (check_is_bare(opt, text))
            fputs(text, f);
        else
            check_quote(f, text);
    }
    if (list)
        fputc(']', f);
}

/* The origins of all items, each once. */
static void check_origins(FILE *f, const struct stk_load *load, const struct stk_option *opt)
{
    const struct stk_provenance *prov = stk_load_provenance(load, opt);
    STK_CLEANUP(stk_mem_freep) char *last = NULL;

    if (prov->n == 0)
        last = stk_load_origin_text(&prov->top);
    if (last)
        fputs(last, f);
    for (size_t i = 0; i < prov->n; i++) {
        char *text = stk_load_origin_text(&prov->items[i]);

        if (!last || strcmp(last, text) != 0)
            fprintf(f, "%s%s", i > 0 ? ", " : "", text);
        free(last);
        last = text;
    }
}

/* What an automatic value comes to on this machine. */
static void check_effective(FILE *f, const struct stk_cli *cli, const struct stk_option *opt)
{
    struct stk_config *config = stk_load_config(cli->load);

    if (opt == &stk_options_rows()[STK_OPTION_ID_WORKERS] && config->workers == 0)
        fprintf(f, "; here %u", cli->nworkers);
}

static void check_line(const struct stk_cli *cli, const struct stk_option *opt)
{
    STK_CLEANUP(stk_mem_freep) char *line = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&line, &len);
    bool unset = stk_load_count(cli->load, opt) == 0 && (!stk_options_is_list(opt) || !opt->empty);

    if (!f)
        return;
    fprintf(f, "%s%s =", unset ? "# " : "", opt->name);
    if (!unset) {
        fputc(' ', f);
        check_value(f, cli->load, opt);
    }
    fclose(f);
    printf("%-*s # ", CHECK_COLUMN, line);
    if (unset)
        fputs("unset", stdout);
    else
        check_origins(stdout, cli->load, opt);
    check_effective(stdout, cli, opt);
    fputc('\n', stdout);
}

static bool check_is_default(const struct stk_load *load, const struct stk_option *opt)
{
    return stk_load_provenance(load, opt)->top.kind == STK_ORIGIN_DEFAULT;
}

/* All options that are (or are not) at their default, by groups. */
static void check_lines(const struct stk_cli *cli, bool defaults)
{
    const struct stk_option *rows = stk_options_rows();

    for (int group = 0; group < STK_OPTION_NGROUPS; group++) {
        bool any = false;

        for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
            const struct stk_option *opt = &rows[i];

            if ((int)opt->group != group || opt->kind == STK_OPTION_COMMAND ||
                check_is_default(cli->load, opt) != defaults)
                continue;
            if (!any)
                printf("# %s%s\n", stk_options_group_name((enum stk_option_group)group),
                       defaults ? ", by default" : "");
            any = true;
            check_line(cli, opt);
        }
    }
}

static void check_on_mistake(void *arg, enum stk_option_id option, size_t item, const char *text)
{
    fprintf(stderr, "%s: %s\n", stk_options_rows()[option].name, text);
}

static void check_match(const struct stk_site_match *match)
{
    for (size_t i = 0; i < match->hosts.n; i++)
        printf(" host=%s", match->hosts.items[i]);
    for (size_t i = 0; i < match->methods.n; i++)
        printf(" method=%s", match->methods.items[i]);
    if (match->path)
        printf(" path=%s", match->path);
    if (match->prefix)
        printf(" prefix=%s", match->prefix[0] ? match->prefix : "/");
    if (match->regex)
        printf(" regex=%s", match->regex);
}

static void check_app(const struct stk_site *site, const struct stk_site_rule *rule)
{
    const struct stk_option *opt = &stk_options_rows()[STK_OPTION_ID_REQUEST_TIMEOUT];
    STK_CLEANUP(stk_mem_freep)
    char *time =
        rule->timeout != 0 ? stk_value_format(opt, rule->timeout > 0 ? rule->timeout : 0) : NULL;

    printf(" -> %s%s%s%s\n", site->apps.items[rule->app], time ? " (timeout " : "",
           time ? time : "", time ? ")" : "");
}

/* What answers which requests, in the order in which it is tried. */
static void check_routes(const struct stk_config *config)
{
    STK_CLEANUP(stk_site_freep)
    struct stk_site *site = stk_site_new(config, check_on_mistake, NULL);

    for (size_t i = 0; site && i < site->nrules; i++) {
        const struct stk_site_rule *rule = &site->rules[i];

        printf("# %zu.", i + 1);
        check_match(&rule->match);
        if (rule->action == STK_SITE_APP)
            check_app(site, rule);
        else if (rule->action == STK_SITE_RETURN)
            printf(" -> %u\n", rule->status);
        else if (rule->action == STK_SITE_STATIC)
            printf(" -> files of %s%s%s\n", rule->target, rule->next ? ", else on" : "",
                   rule->attempt ? rule->attempt : "");
        else
            printf(" -> %u to %s\n", rule->status, rule->target);
    }
    if (site && site->nrules > 0)
        printf("# all else -> %s\n", site->has_app ? site->apps.items[0] : "404");
}

/* Loads the applications and drops them again; an exit code. */
static int check_application(struct stk_cli *cli)
{
    const struct stk_config *config = stk_load_config(cli->load);
    const struct stk_host_ops *ops = stk_pyhost_ops();
    const char *const none[] = {NULL};
    STK_CLEANUP(stk_site_freep)
    struct stk_site *site = stk_site_new(config, check_on_mistake, NULL);
    const struct stk_host_params params = {
        .targets = site ? (const char *const *)site->apps.items : NULL,
        .places = site ? (const char *const *)site->places.items : NULL,
        .ntargets = site ? site->apps.n : 0,
        .pythonpath = config->pythonpath.n ? (const char *const *)config->pythonpath.items : none,
        .threads = (unsigned)config->threads,
        .workers = cli->nworkers,
        .interface = (uint8_t)config->interface,
        .gevent = (unsigned)config->gevent,
        .monkey_patch = config->gevent_monkey_patch,
        .limits_async = config->max_concurrency > 0,
    };
    void *host = stk_pyhost_new(cli->module);
    struct stk_caches *caches = NULL;
    int r;

    if (!host) {
        PyErr_Print();
        return STK_CLI_EXIT_LOAD;
    }
    /* It may use them while it is loaded. */
    if (stk_caches_new(config, &(struct stk_caches_start){.trial = true}, &caches) < 0) {
        stk_pyhost_free(host);
        return STK_CLI_EXIT_CONFIG;
    }
    stk_pyhost_set_caches(host, caches);
    r = ops->load(host, &params);
    stk_pyhost_free(host);
    stk_caches_free(caches);
    return r == 0 ? STK_CLI_EXIT_OK : STK_CLI_EXIT_LOAD;
}

static void check_leave_ok(int sig)
{
    _exit(STK_CLI_EXIT_OK);
}

static void check_leave_failed(int sig)
{
    _exit(STK_CLI_EXIT_LOAD);
}

/* Ends the process when Python has not done so in time. */
static void check_bound_exit(int code, stk_msec timeout)
{
    struct sigaction action = {.sa_handler =
                                   code == STK_CLI_EXIT_OK ? check_leave_ok : check_leave_failed};

    if (sigaction(SIGALRM, &action, NULL) == 0)
        alarm((unsigned)(timeout / 1000) + 1);
}

static void check_loaded(const struct stk_config *config)
{
    STK_CLEANUP(stk_site_freep)
    struct stk_site *site = stk_site_new(config, check_on_mistake, NULL);

    check_routes(config);
    for (size_t i = 0; site && i < site->apps.n; i++)
        printf("# %s is loaded: everything is well\n", site->apps.items[i]);
}

/* Reads the certificates as the master would. */
static int check_certificates(const struct stk_config *config)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    struct stk_tls_files files = {0};
    struct stk_tls_store *store = NULL;
    int code = STK_CLI_EXIT_OK;

    if (config->tls_cert.n == 0)
        return code;
    if (stk_tls_files_read(config, &files, &error) != 0 ||
        stk_tls_store_new(&store, &files, config, NULL, &error) != 0) {
        fprintf(stderr, "%s\n", error);
        code = STK_CLI_EXIT_CONFIG;
    } else {
        const char *const *text = stk_tls_store_warnings(store);

        for (; *text != NULL; text++)
            fprintf(stderr, "warning: %s\n", *text);
        printf("# %zu TLS certificate%s fit\n", stk_tls_store_count(store),
               stk_tls_store_count(store) == 1 ? "" : "s");
    }
    stk_tls_store_free(store);
    stk_tls_files_deinit(&files);
    return code;
}

int stk_check_run(struct stk_cli *cli)
{
    struct stk_config *config = stk_load_config(cli->load);
    const struct stk_strv *warnings = stk_load_warnings(cli->load);
    STK_CLEANUP(stk_mem_freep) char *python = stk_banner_python();
    int r;

    for (size_t i = 0; i < warnings->n; i++)
        fprintf(stderr, "warning: %s\n", warnings->items[i]);
    printf("# stoker %s on %s\n", STK_VERSION, python);
    check_lines(cli, false);
    check_lines(cli, true);
    fflush(stdout);
    r = stk_setup_process(cli);
    if (r != 0)
        return r;
    r = check_certificates(config);
    if (r != 0)
        return r;
    stk_setup_target(config);
    r = check_application(cli);
    if (r == STK_CLI_EXIT_OK)
        check_loaded(config);
    fflush(stdout);
    check_bound_exit(r, config->exit_timeout);
    return r;
}
