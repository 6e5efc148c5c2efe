/*
 * --help and docs/options.md, made from the rows, so that neither can tell what is not so.
 *
 * The short --help holds what most people ever need and fits one screen; everything else is one
 * word away. Lines are wrapped for 80 columns, in which a terminal of any size is readable.
 */
#include "config/help.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "config/options.h"
#include "config/value.h"

#define HELP_WIDTH  79
#define HELP_COLUMN 25 /* where the sentences begin */

/* A growing text; stdio's own, so that printf's formats are at hand. */
struct help_text {
    FILE *file;
    char *text;
    size_t len;
};

static void help_begin(struct help_text *t)
{
    t->text = NULL;
    t->file = open_memstream(&t->text, &t->len);
    STK_ASSERT(t->file != NULL);
}

static char *help_end(struct help_text *t)
{
    STK_ASSERT(fclose(t->file) == 0 && t->text != NULL);
    return t->text;
}

/* Prints words from a column on, wrapped; `used` columns of the line are taken. */
static void help_wrap(FILE *f, const char *text, size_t column, size_t used)
{
    if (used + 1 >= column) {
        fputc('\n', f);
        used = 0;
    }
    fprintf(f, "%*s", (int)(column - used), "");
    used = column;
    while (*text) {
        size_t len = strcspn(text, " ");

        if (used > column && used + 1 + len > HELP_WIDTH) {
            fprintf(f, "\n%*s", (int)column, "");
            used = column;
        }
        if (used > column) {
            fputc(' ', f);
            used++;
        }
        fwrite(text, 1, len, f);
        used += len;
        text += len;
        text += strspn(text, " ");
    }
    fputc('\n', f);
}

/* A flag that is on by default is shown by the name that switches it off. */
static bool help_is_on(const struct stk_option *opt)
{
    return opt->kind == STK_OPTION_BOOL && opt->def && strcmp(opt->def, "true") == 0;
}

/* What the brackets behind the sentence show, or NULL. */
static const char *help_default(const struct stk_option *opt)
{
    if (!opt->def || !*opt->def || opt->kind == STK_OPTION_BOOL)
        return NULL;
    return opt->def;
}

static void help_row(FILE *f, const struct stk_option *opt)
{
    STK_CLEANUP(stk_mem_freep) char *left = NULL;
    STK_CLEANUP(stk_mem_freep) char *right = NULL;
    const char *value = stk_options_takes_value(opt) ? opt->metavar : NULL;
    const char *def = help_default(opt);
    char flag[] = {'-', opt->short_name, ',', ' ', '\0'};

    if (opt->positional)
        left = stk_mem_printf("  %s", opt->metavar);
    else
        left = stk_mem_printf("  %s--%s%s%s%s", opt->short_name ? flag : "    ",
                              help_is_on(opt) ? "no-" : "", opt->name, value ? " " : "",
                              value ? value : "");
    right = stk_mem_printf("%s%s%s%s%s", help_is_on(opt) ? "Do not: " : "", opt->help,
                           def ? " [" : "", def ? def : "", def ? "]" : "");
    fputs(left, f);
    help_wrap(f, right, HELP_COLUMN, strlen(left));
}

char *stk_help_text(bool all)
{
    const struct stk_option *rows = stk_options_rows();
    struct help_text t;

    help_begin(&t);
    fputs("Usage: stoker [OPTION]... APP\n", t.file);
    if (all)
        fputs("\nServes a Python application (WSGI) over HTTP. Each option can also be given in\n"
              "the environment (STOKER_MAX_CONNECTIONS=100), in stoker.toml or in\n"
              "[tool.stoker] of pyproject.toml (max-connections = 100). [Defaults] are in\n"
              "brackets.\n",
              t.file);
    for (int group = 0; group < STK_OPTION_NGROUPS; group++) {
        bool any = false;

        for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
            if ((int)rows[i].group != group || !(all || rows[i].common))
                continue;
            if (!any)
                fprintf(t.file, "%s%s:\n", all ? "\n" : "",
                        stk_options_group_name((enum stk_option_group)group));
            any = true;
            help_row(t.file, &rows[i]);
        }
    }
    fprintf(t.file,
            "%sCommands (stoker COMMAND --help): status, top, ping, reload, upgrade, stop,\n"
            "scale, recycle, stack, logs, config, curl, gunicorn, convert, explain\n",
            all ? "\n" : "");
    return help_end(&t);
}

/* --- markdown -------------------------------------------------------------------------------- */

static void help_markdown_head(FILE *f)
{
    fputs(
        "<!-- Made by tools/gen_options from src/config/options.def: do not edit. -->\n"
        "# Options\n"
        "\n"
        "Each option can be given in four places; a higher one wins:\n"
        "\n"
        "1. on the command line: `--max-connections 100` or `--max-connections=100`; a flag as\n"
        "   `--preload` or `--no-preload`;\n"
        "2. in the environment: `STOKER_MAX_CONNECTIONS=100`; a flag as `true` or `false`;\n"
        "3. in a TOML file, `max-connections = 100`: the one that `--config` names, or else\n"
        "   `stoker.toml`, or else the table `[tool.stoker]` of `pyproject.toml`, in the current\n"
        "   directory;\n"
        "4. the default.\n"
        "\n"
        "Names may be written with `-` or `_`. A repeatable option takes a list in a file; what a\n"
        "higher place gives replaces the whole list, but for `env`.\n"
        "\n"
        "Durations are seconds, or have a unit: `500ms`, `10s`, `2m`, `1h`. Sizes are bytes, or\n"
        "have one: `64k`, `10m`, `1g` (of 1024).\n"
        "\n"
        "`stoker --check` prints each value, and where it came from.\n",
        f);
}

static char *help_upper(const char *name)
{
    char *text = stk_mem_strdup(name);

    for (char *c = text; *c; c++)
        *c = (char)(*c == '-' ? '_' : *c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    return text;
}

static void help_markdown_words(FILE *f, const char *before, const char *words, const char *prefix)
{
    const char *pos = words, *word;
    size_t len = 0;

    for (int n = 0; (word = stk_options_next_word(&pos, &len)); n++)
        fprintf(f, "%s`%s%.*s`", n == 0 ? before : ", ", prefix, (int)len, word);
}

static void help_markdown_spellings(FILE *f, const struct stk_option *opt)
{
    const char *value = stk_options_takes_value(opt) ? opt->metavar : NULL;

    fprintf(f, "- Command line: `--%s%s%s`", opt->name, value ? " " : "", value ? value : "");
    if (opt->short_name)
        fprintf(f, ", `-%c%s%s`", opt->short_name, value ? " " : "", value ? value : "");
    if (opt->kind == STK_OPTION_BOOL)
        fprintf(f, ", `--no-%s`", opt->name);
    if (opt->positional)
        fputs(", or without a dash", f);
    help_markdown_words(f, "; also ", opt->aliases, "--");
    fputc('\n', f);
    if (opt->kind != STK_OPTION_COMMAND) {
        STK_CLEANUP(stk_mem_freep) char *variable = help_upper(opt->name);

        fprintf(f, "- Environment: `STOKER_%s`", variable);
        if (opt->variable)
            fprintf(f, ", or `%s`", opt->variable);
        if (opt->separators && strcmp(opt->separators, ":") == 0)
            fputs("; colons separate several", f);
        else if (opt->separators)
            fputs("; commas or blanks separate several", f);
        fputc('\n', f);
    }
}

static void help_markdown_row(FILE *f, const struct stk_option *opt)
{
    fprintf(f, "\n### `%s`\n%s.\n", opt->name, opt->help);
    if (opt->doc)
        fprintf(f, "%s\n", opt->doc);
    fputc('\n', f);
    help_markdown_spellings(f, opt);
    if (opt->kind == STK_OPTION_COMMAND)
        return;
    if (opt->kind != STK_OPTION_STRING && opt->kind != STK_OPTION_STRINGS) {
        STK_CLEANUP(stk_mem_freep) char *expected = stk_value_expected(opt);

        fprintf(f, "- Value: %s\n", expected);
    }
    if (opt->def && *opt->def)
        fprintf(f, "- Default: `%s`\n", opt->def);
    else
        fputs("- Default: unset\n", f);
    if (opt->uwsgi) {
        help_markdown_words(f, "- uWSGI has it as ", opt->uwsgi, "");
        fputc('\n', f);
    }
}

char *stk_help_markdown(void)
{
    const struct stk_option *rows = stk_options_rows();
    struct help_text t;

    help_begin(&t);
    help_markdown_head(t.file);
    for (int group = 0; group < STK_OPTION_NGROUPS; group++) {
        fprintf(t.file, "\n## %s\n", stk_options_group_name((enum stk_option_group)group));
        for (size_t i = 0; i < STK_OPTION_COUNT; i++)
            if ((int)rows[i].group == group)
                help_markdown_row(t.file, &rows[i]);
    }
    return help_end(&t);
}
