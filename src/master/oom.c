/*
 * Whether the kernel kills for memory: the counter oom_kill of the control group (v2). SIGKILL
 * itself does not say who sent it, and "who killed my worker?" is asked at night.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "master/system.h"

/* The counter in one file; false when it is not there. */
static bool oom_read(const char *path, uint64_t *ret_count)
{
    FILE *file = fopen(path, "re");
    char line[128];
    bool found = false;

    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        found = strncmp(line, "oom_kill ", 9) == 0;
        if (found)
            *ret_count = strtoull(line + 9, NULL, 10);
    }
    if (file != NULL)
        (void)fclose(file);
    return found;
}

uint64_t stk_oom_kills(const char *root)
{
    STK_CLEANUP(stk_mem_freep) char *groups = stk_mem_printf("%s/proc/self/cgroup", root);
    STK_CLEANUP(stk_mem_freep) char *own = NULL;
    /* In a container only its own group is mounted, as the root. */
    STK_CLEANUP(stk_mem_freep)
    char *mounted = stk_mem_printf("%s/sys/fs/cgroup/memory.events", root);
    FILE *file = fopen(groups, "re");
    char line[4096];
    uint64_t count = 0;

    while (file != NULL && own == NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::", 3) == 0)
            own = stk_mem_printf("%s/sys/fs/cgroup%s/memory.events", root, line + 3);
    }
    if (file != NULL)
        (void)fclose(file);
    if ((own == NULL || !oom_read(own, &count)) && !oom_read(mounted, &count))
        return 0;
    return count;
}
