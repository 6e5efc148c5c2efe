/*
 * Prints what is made from the option rows and the table of the access log's fields, and checks it.
 *
 *   gen_options                    prints docs/options.md
 *   gen_options --fresh FILE       fails when FILE is not what would be printed
 *   gen_options --clashes FILE     fails when an option's name is one of FILE (names of uWSGI's
 *                                  options, one a line) and its row does not say that it means the
 *                                  same there, or says so of a name that is not in FILE
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "config/help.h"
#include "config/options.h"
#include "serve/access_format.h"

/* The whole of a file, or NULL with a message. */
static char *gen_read(const char *path)
{
    FILE *file = fopen(path, "re");
    char *text = NULL;
    size_t size = 0;
    ssize_t n;

    if (!file) {
        perror(path);
        return NULL;
    }
    n = getdelim(&text, &size, '\0', file);
    if (n < 0) {
        free(text);
        text = stk_mem_strdup("");
    }
    fclose(file);
    return text;
}

/* All of docs/options.md. */
static char *gen_document(void)
{
    static const char fields[] =
        "\n## Fields of the access log\n\n"
        "In a template, `{name}`; in `json:name,name`, the keys. A field that has no value is `-`, "
        "in\n"
        "JSON `null`. NAME stands for a parameter, as in `{header:x-request-id}`.\n\n"
        "| field | what |\n|---|---|\n"
#define X(id, name, kind, help) "| `" name "` | " help " |\n"
        STK_ACCESS_FIELDS(X)
#undef X
#define X(id, prefix, kind, help) "| `" prefix ":NAME` | " help " |\n"
            STK_ACCESS_FAMILIES(X);
#undef X
    STK_CLEANUP(stk_mem_freep) char *options = stk_help_markdown();

    return stk_mem_printf("%s%s", options, fields);
}

static int gen_fresh(const char *path)
{
    STK_CLEANUP(stk_mem_freep) char *have = gen_read(path);
    STK_CLEANUP(stk_mem_freep) char *want = gen_document();

    if (have && strcmp(have, want) == 0)
        return 0;
    fprintf(stderr, "%s is not what the option rows say; write it again: gen_options > %s\n", path,
            path);
    return 1;
}

/* Is there a line of the text that is the word? */
static bool gen_has_line(const char *text, const char *word, size_t len)
{
    for (; *text; text += strcspn(text, "\n"), text += *text == '\n')
        if (strcspn(text, "\n") == len && memcmp(text, word, len) == 0)
            return true;
    return false;
}

static bool gen_has_word(const char *list, const char *word, size_t len)
{
    const char *pos = list, *other;
    size_t n = 0;

    while ((other = stk_options_next_word(&pos, &n)))
        if (n == len && memcmp(other, word, len) == 0)
            return true;
    return false;
}

/* One name of an option against the names of uWSGI; the number of complaints. */
static int gen_clash(const char *theirs, const struct stk_option *opt, const char *name, size_t len)
{
    bool there = gen_has_line(theirs, name, len);
    bool same = gen_has_word(opt->uwsgi, name, len);

    if (there && !same)
        fprintf(stderr,
                "%.*s: uWSGI has an option of this name, and the row does not say that it "
                "means the same\n",
                (int)len, name);
    if (same && !there)
        fprintf(stderr, "%.*s: uWSGI has no option of this name\n", (int)len, name);
    return there != same;
}

static int gen_clashes(const char *path)
{
    STK_CLEANUP(stk_mem_freep) char *theirs = gen_read(path);
    const struct stk_option *rows = stk_options_rows();
    int found = 0;

    if (!theirs || !gen_has_line(theirs, "http-socket", strlen("http-socket"))) {
        fprintf(stderr, "%s does not hold the names of uWSGI's options\n", path);
        return 1;
    }
    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        const char *pos = rows[i].aliases, *word;
        size_t len = 0;

        found += gen_clash(theirs, &rows[i], rows[i].name, strlen(rows[i].name));
        while ((word = stk_options_next_word(&pos, &len)))
            found += gen_clash(theirs, &rows[i], word, len);
        pos = rows[i].uwsgi;
        while ((word = stk_options_next_word(&pos, &len)))
            if (stk_options_find(word, len) != &rows[i]) {
                fprintf(stderr, "%.*s is not a name of the option %s\n", (int)len, word,
                        rows[i].name);
                found++;
            }
    }
    return found > 0;
}

int main(int argc, char **argv)
{
    if (argc == 1) {
        STK_CLEANUP(stk_mem_freep) char *text = gen_document();

        return fputs(text, stdout) < 0 || fflush(stdout) != 0;
    }
    if (argc == 3 && strcmp(argv[1], "--fresh") == 0)
        return gen_fresh(argv[2]);
    if (argc == 3 && strcmp(argv[1], "--clashes") == 0)
        return gen_clashes(argv[2]);
    fputs("usage: gen_options [--fresh FILE | --clashes FILE]\n", stderr);
    return 2;
}
