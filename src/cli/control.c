/*
 * What the control socket tells of the configuration (`stoker config`): the values as they are in
 * effect, each with its origin, as JSON. Made once, at the start: the master knows no options.
 */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"

static bool control_is_number(const struct stk_option *opt, const char *text)
{
    if (opt->kind != STK_OPTION_INT && opt->kind != STK_OPTION_SIZE)
        return false;
    /* More digits than a double holds stay text, so that no reader rounds them. */
    return *text && strlen(text) <= 15 && text[strspn(text, "0123456789")] == '\0' &&
           (*text != '0' || text[1] == '\0');
}

static void control_put_item(struct stk_json *j, const struct stk_load *load,
                             const struct stk_option *opt, size_t item)
{
    STK_CLEANUP(stk_mem_freep) char *text = stk_load_text(load, opt, item);

    if (opt->kind == STK_OPTION_BOOL)
        stk_json_bool(j, strcmp(text, "true") == 0);
    else if (control_is_number(opt, text))
        stk_json_raw(j, text, strlen(text));
    else
        stk_json_string(j, text);
}

static void control_put_value(struct stk_json *j, const struct stk_load *load,
                              const struct stk_option *opt)
{
    size_t n = stk_load_count(load, opt);

    if (!stk_options_is_list(opt)) {
        if (n > 0)
            control_put_item(j, load, opt, 0);
        else
            stk_json_null(j);
        return;
    }
    stk_json_array_begin(j);
    for (size_t i = 0; i < n; i++)
        control_put_item(j, load, opt, i);
    stk_json_array_end(j);
}

/* Of each item of a list, in their order. */
static void control_put_origins(struct stk_json *j, const struct stk_load *load,
                                const struct stk_option *opt)
{
    const struct stk_provenance *prov = stk_load_provenance(load, opt);
    size_t n = prov->n > 0 ? prov->n : 1;

    stk_json_name(j, "origins");
    stk_json_array_begin(j);
    for (size_t i = 0; i < n; i++) {
        STK_CLEANUP(stk_mem_freep)
        char *text = stk_load_origin_text(prov->n > 0 ? &prov->items[i] : &prov->top);

        stk_json_string(j, text);
    }
    stk_json_array_end(j);
}

static void control_put_option(struct stk_json *j, const struct stk_cli *cli,
                               const struct stk_option *opt)
{
    const struct stk_config *config = stk_load_config(cli->load);

    stk_json_object_begin(j);
    stk_json_put_string(j, "name", opt->name);
    stk_json_put_string(j, "group", stk_options_group_name(opt->group));
    stk_json_name(j, "value");
    control_put_value(j, cli->load, opt);
    if (opt == &stk_options_rows()[STK_OPTION_ID_WORKERS] && config->workers == 0)
        stk_json_put_uint(j, "effective", cli->nworkers);
    stk_json_put_bool(j, "default",
                      stk_load_provenance(cli->load, opt)->top.kind == STK_ORIGIN_DEFAULT);
    control_put_origins(j, cli->load, opt);
    stk_json_object_end(j);
}

char *stk_control_config(const struct stk_cli *cli)
{
    const struct stk_option *rows = stk_options_rows();
    struct stk_json j = {0};
    char *text = NULL;
    size_t len = 0;

    stk_json_array_begin(&j);
    for (size_t i = 0; i < STK_OPTION_COUNT; i++)
        if (rows[i].kind != STK_OPTION_COMMAND)
            control_put_option(&j, cli, &rows[i]);
    stk_json_array_end(&j);
    STK_ASSERT(stk_json_end(&j, &text, &len) == 0);
    return text;
}
