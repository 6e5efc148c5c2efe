/* A directory of its own for each test, and whole files. */
#pragma once

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"

struct log_dir {
    char path[64];
    char name[128];
};

static inline int log_dir_setup(void **state)
{
    struct log_dir *d = calloc(1, sizeof *d);

    if (d == NULL)
        return -1;
    snprintf(d->path, sizeof d->path, "/tmp/stoker-log-XXXXXX");
    if (mkdtemp(d->path) == NULL) {
        free(d);
        return -1;
    }
    *state = d;
    return 0;
}

static inline const char *log_dir_file(struct log_dir *d, const char *name)
{
    snprintf(d->name, sizeof d->name, "%s/%s", d->path, name);
    return d->name;
}

static inline int log_dir_teardown(void **state)
{
    static const char *const names[] = {"log", "old", "error", "fifo", "socket"};
    struct log_dir *d = *state;

    for (size_t i = 0; i < STK_ARRAY_LEN(names); i++)
        unlink(log_dir_file(d, names[i]));
    rmdir(d->path);
    free(d);
    return 0;
}

/* The file's text, NUL-terminated, to be freed; "" when there is none. */
static inline char *log_dir_read(struct log_dir *d, const char *name)
{
    size_t size = 0;
    char *text = calloc(1, 1);
    int fd = open(log_dir_file(d, name), O_RDONLY | O_CLOEXEC);
    ssize_t n = 1;

    while (fd >= 0 && n > 0) {
        text = realloc(text, size + 65537);
        assert_non_null(text);
        n = read(fd, text + size, 65536);
        if (n > 0)
            size += (size_t)n;
        text[size] = '\0';
    }
    if (fd >= 0)
        close(fd);
    return text;
}

static inline unsigned log_count(const char *text, const char *what)
{
    unsigned n = 0;

    for (; (text = strstr(text, what)) != NULL; text += strlen(what))
        n++;
    return n;
}
