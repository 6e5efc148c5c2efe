/*
 * The lines with which a server starts. They answer what one asks first: which stoker, which Python
 * (the wrong virtual environment is the commonest mistake of all), which application, at which
 * address (as a URL that a terminal makes clickable), how many processes, and how to stop it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "net/listen.h"

char *stk_banner_python(void)
{
    PyObject *path = PySys_GetObject("executable"); /* borrowed */
    const char *text = path && PyUnicode_Check(path) ? PyUnicode_AsUTF8(path) : NULL;
    const char *version = Py_GetVersion();

    PyErr_Clear();
    return stk_mem_printf("Python %.*s (%s)", (int)strcspn(version, " "), version,
                          text && *text ? text : "embedded");
}

/* A listener on all interfaces is reached at none of its own name: show one that works. */
static void banner_address(FILE *f, const struct stk_listener *listener)
{
    if (listener->is_wildcard && !listener->is_unix)
        fprintf(f, "%s://127.0.0.1:%s (every address of this machine)", listener->scheme,
                listener->server_port);
    else
        fputs(listener->display, f);
}

/* What is served besides the application. */
static void banner_aside(const struct stk_config *config, struct stk_listener *const *listeners,
                         size_t n)
{
    const char *at = config->metrics;

    for (size_t i = 0; i < n && at != NULL && at[0] != '/'; i++) {
        if (strcmp(listeners[i]->spec, at) == 0)
            at = listeners[i]->display;
    }
    if (at != NULL && config->metrics[0] == '/')
        stk_log_info("metrics at %s of these addresses", at);
    else if (at != NULL)
        stk_log_info("metrics at %s/metrics", at);
    if (config->stats != NULL)
        stk_log_info("statistics at %s", config->stats);
}

void stk_banner_log(const struct stk_config *config, unsigned nworkers, const char *python,
                    struct stk_listener *const *listeners, size_t n)
{
    char *addresses = NULL, least[32] = "";
    size_t len = 0;
    FILE *f = open_memstream(&addresses, &len);

    STK_ASSERT(f != NULL);
    for (size_t i = 0; i < n; i++) {
        if (config->metrics != NULL && strcmp(listeners[i]->spec, config->metrics) == 0)
            continue;
        if (i > 0)
            fputs(", ", f);
        banner_address(f, listeners[i]);
    }
    STK_ASSERT(fclose(f) == 0 && addresses != NULL);
    stk_log_info("stoker %s on %s", STK_VERSION, python);
    stk_log_info("serving %s at %s", stk_config_app_name(config), addresses);
    banner_aside(config, listeners, n);
    if (config->workers_min > 0 && config->workers_min < nworkers)
        snprintf(least, sizeof least, "%lld to ", (long long)config->workers_min);
    stk_log_info("%s%u worker%s with %lld thread%s each; stop with Ctrl-C or kill %ld", least,
                 nworkers, nworkers == 1 ? "" : "s", (long long)config->threads,
                 config->threads == 1 ? "" : "s", (long)getpid());
    free(addresses);
}
