/*
 * Titles. The kernel shows the bytes between two addresses of the process's stack: the command line
 * as it was given, and behind it the environment. They are overwritten in place. What libc keeps
 * pointers to is copied first, so that getenv() and the name in libc's messages stay right.
 *
 * When the last byte of the command line is not NUL any more, the kernel goes on reading into the
 * environment, so both together are the room for a title.
 */
#include "base/title.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

/* Numbers of /proc/self/stat, counted as proc(5) does. */
enum { TITLE_FIELD_ARG_START = 48, TITLE_FIELD_ENV_END = 51, TITLE_FIELDS = 4 };

static struct {
    char *start;
    size_t size; /* 0: not found */
    char **env;  /* what `environ` was set to: others may replace that, and keep strings of it */
} title_area;

/* arg_start, arg_end, env_start, env_end. False where /proc is not there or hides them. */
static bool title_read_area(uintptr_t ret_area[TITLE_FIELDS])
{
    char buf[2048];
    FILE *file = fopen("/proc/self/stat", "re");
    size_t n = file != NULL ? fread(buf, 1, sizeof buf - 1, file) : 0;
    char *p;

    if (file != NULL)
        (void)fclose(file);
    buf[n] = '\0';
    p = strrchr(buf, ')'); /* the name may hold anything */
    for (int field = 2; p != NULL && field < TITLE_FIELD_ARG_START; field++)
        p = strchr(p + 1, ' ');
    for (int i = 0; p != NULL && i < TITLE_FIELDS; i++) {
        ret_area[i] = (uintptr_t)strtoull(p, &p, 10);
        if (ret_area[i] == 0)
            return false;
    }
    return p != NULL;
}

/* Gives libc copies of what lies in the area. */
static void title_move(uintptr_t start, uintptr_t end)
{
    static char *const none[] = {NULL};
    char *const *env = environ != NULL ? environ : (char **)(uintptr_t)none;
    size_t n = 0;
    char **moved;

    while (env[n] != NULL)
        n++;
    moved = stk_new0_array(char *, n + 1);
    for (size_t i = 0; i < n; i++) {
        bool inside = (uintptr_t)env[i] >= start && (uintptr_t)env[i] < end;

        moved[i] = inside ? stk_mem_strdup(env[i]) : env[i];
    }
    environ = title_area.env = moved;
    program_invocation_name = stk_mem_strdup(program_invocation_name);
    program_invocation_short_name = stk_mem_strdup(program_invocation_short_name);
}

void stk_title_init(void)
{
    uintptr_t area[TITLE_FIELDS];
    uintptr_t end;

    if (title_area.size > 0 || !title_read_area(area) || area[1] <= area[0])
        return;
    end = area[2] == area[1] && area[3] > area[2] ? area[3] : area[1];
    title_move(area[0], end);
    title_area.start = (char *)area[0]; /* NOLINT: an address that the kernel gave */
    title_area.size = (size_t)(end - area[0]);
}

void stk_title_set(const char *fmt, ...)
{
    va_list args;
    int n;

    if (title_area.size == 0)
        return;
    memset(title_area.start, 0, title_area.size);
    va_start(args, fmt);
    n = vsnprintf(title_area.start, title_area.size, fmt, args);
    va_end(args);
    if (n < 0)
        title_area.start[0] = '\0';
}

void stk_title_set_role(const char *name, const char *role, const char *app, const char *state)
{
    if (name == NULL || *name == '\0')
        name = "stoker";
    if (app == NULL)
        app = "";
    if (state != NULL)
        stk_title_set("%s: %s %s [%s]", name, role, app, state);
    else
        stk_title_set("%s: %s %s", name, role, app);
}
