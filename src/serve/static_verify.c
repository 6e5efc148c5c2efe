/* The options of static files, looked at before anything starts. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "config/config.h"
#include "serve/static_priv.h"
#include "wire/mime.h"

struct verify {
    const char *dir;
    void (*fail)(void *arg, enum stk_option_id id, size_t item, const char *text);
    void *arg;
};

static void verify_path(const struct verify *v, enum stk_option_id id, size_t item,
                        const char *path, bool directory)
{
    STK_CLEANUP(stk_mem_freep)
    char *full =
        v->dir && *path != '/' ? stk_mem_printf("%s/%s", v->dir, path) : stk_mem_strdup(path);
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    struct stat st;

    if (stat(full, &st) < 0)
        text = stk_mem_printf("%s: %s", full, strerror(errno));
    else if (!S_ISDIR(st.st_mode) && (directory || !S_ISREG(st.st_mode)))
        text = stk_mem_printf("%s is not a directory", full);
    if (text != NULL)
        v->fail(v->arg, id, item, text);
}

static void verify_pairs(const struct verify *v, enum stk_option_id id,
                         const struct stk_strv *items, bool directory)
{
    for (size_t i = 0; i < items->n; i++) {
        const char *text = items->items[i], *equal = strchr(text, '=');

        if (*text != '/' || equal == NULL || equal[1] == '\0')
            v->fail(v->arg, id, i, "expected /PREFIX=DIRECTORY, as /static=public");
        else if (memchr(text, '%', (size_t)(equal - text)) != NULL || strstr(text, "//") == text)
            v->fail(v->arg, id, i, "the prefix is a decoded path, without % and //");
        else
            verify_path(v, id, i, equal + 1, directory);
    }
}

/* static-try names the prefix of a --static. */
static void verify_try(const struct verify *v, const struct stk_config *config)
{
    for (size_t i = 0; i < config->static_try.n; i++) {
        const char *text = config->static_try.items[i], *equal = strchr(text, '=');
        size_t len = equal ? (size_t)(equal - text) : 0;
        bool found = false;

        while (len > 0 && text[len - 1] == '/')
            len--;
        if (*text != '/' || equal == NULL || equal[1] != '/') {
            v->fail(v->arg, STK_OPTION_ID_STATIC_TRY, i,
                    "expected /PREFIX=/FILE, as /=/index.html: FILE is looked for in the directory "
                    "of the prefix");
            continue;
        }
        for (size_t k = 0; k < config->static_dirs.n; k++) {
            const char *other = config->static_dirs.items[k];
            size_t n = strcspn(other, "=");

            while (n > 0 && other[n - 1] == '/')
                n--;
            found = found || (n == len && memcmp(other, text, n) == 0);
        }
        if (!found)
            v->fail(
                v->arg, STK_OPTION_ID_STATIC_TRY, i,
                "there is no `static` of this prefix (static-map and static-check leave what is "
                "not there to the application)");
    }
}

static void verify_types(const struct verify *v, const struct stk_config *config)
{
    for (size_t i = 0; i < config->static_mime.n; i++) {
        const char *text = config->static_mime.items[i], *equal = strchr(text, '=');
        size_t len = equal ? (size_t)(equal - text) : 0;

        if (len == 0 || len > STK_MIME_EXT_MAX || !stk_mime_is_type(stk_span_str(equal + 1)))
            v->fail(v->arg, STK_OPTION_ID_STATIC_MIME, i,
                    "expected ENDING=TYPE, as md=text/markdown");
    }
    for (size_t i = 0; i < config->mime_file.n; i++)
        verify_path(v, STK_OPTION_ID_MIME_FILE, i, config->mime_file.items[i], false);
    for (size_t i = 0; i < config->static_expires.n; i++) {
        struct static_expiry e = {0};
        const char *text = stk_static_expiry_parse(config->static_expires.items[i], &e);

        free(e.cache);
        if (text != NULL)
            v->fail(v->arg, STK_OPTION_ID_STATIC_EXPIRES, i, text);
    }
    for (size_t i = 0; i < config->static_index.n; i++)
        if (strchr(config->static_index.items[i], '/') != NULL ||
            strlen(config->static_index.items[i]) > 255)
            v->fail(v->arg, STK_OPTION_ID_STATIC_INDEX, i,
                    "expected the name of a file, without a slash");
}

void stk_statics_verify(const struct stk_config *config, const char *dir,
                        void (*fail)(void *arg, enum stk_option_id id, size_t item,
                                     const char *text),
                        void *arg)
{
    const struct verify v = {dir, fail, arg};

    verify_pairs(&v, STK_OPTION_ID_STATIC, &config->static_dirs, false);
    verify_pairs(&v, STK_OPTION_ID_STATIC_MAP, &config->static_map, false);
    verify_pairs(&v, STK_OPTION_ID_X_ACCEL_REDIRECT, &config->x_accel_redirect, true);
    for (size_t i = 0; i < config->x_sendfile.n; i++)
        verify_path(&v, STK_OPTION_ID_X_SENDFILE, i, config->x_sendfile.items[i], true);
    for (size_t i = 0; i < config->static_check.n; i++)
        verify_path(&v, STK_OPTION_ID_STATIC_CHECK, i, config->static_check.items[i], true);
    verify_try(&v, config);
    verify_types(&v, config);
}

static void settle(struct stk_strv *items, bool pair)
{
    char cwd[PATH_MAX];

    if (getcwd(cwd, sizeof cwd) == NULL)
        return;
    for (size_t i = 0; i < items->n; i++) {
        char *text = items->items[i], *path = pair ? strchr(text, '=') + 1 : text;

        if (*path == '/')
            continue;
        items->items[i] = stk_mem_printf("%.*s%s/%s", (int)(path - text), text, cwd, path);
        free(text);
    }
}

void stk_statics_settle(struct stk_config *config)
{
    char cwd[PATH_MAX];

    if (getcwd(cwd, sizeof cwd) != NULL && config->cwd == NULL)
        config->cwd = stk_mem_strdup(cwd);
    settle(&config->static_dirs, true);
    settle(&config->static_map, true);
    settle(&config->static_check, false);
    settle(&config->mime_file, false);
    settle(&config->x_sendfile, false);
    settle(&config->x_accel_redirect, true);
}
