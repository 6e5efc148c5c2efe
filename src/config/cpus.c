/*
 * Usable CPUs and memory, for the default number of workers.
 *
 * The CPUs of the machine are the wrong answer in a container: its limit is a quota of its control
 * group, which neither sysconf nor the affinity mask knows. /proc/self/cgroup names the group of
 * each hierarchy; the quota of the group and of each of its ancestors applies, so the least one
 * counts. Inside a container the named path often does not exist below /sys/fs/cgroup, because only
 * the container's own group is mounted, as the root: ancestors that cannot be read are skipped.
 *
 *   v2  "0::/a/b"              /sys/fs/cgroup/a/b/cpu.max: "200000 100000" or "max 100000"
 *   v1  "4:cpu,cpuacct:/a/b"   /sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us (-1: none), and
 *                              cpu.cfs_period_us
 *
 * The memory limit (memory.max, memory.limit_in_bytes) is looked up likewise, as the number of
 * workers that fit: a container with little memory and no quota would start one for each CPU of the
 * machine, and be killed.
 */
#include "config/cpus.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/mem.h"

#define CPUS_MAX_SET 65536
/* What a worker takes at least: an interpreter and a framework. */
#define CPUS_WORKER_BYTES (64LL << 20)
/* v1 says "no limit" by a number that no machine has. */
#define CPUS_MEMORY_NONE (1LL << 50)

/* A resource of control groups: its controller of v1, and how many workers a group has room for. */
struct cpus_resource {
    const char *controller;
    unsigned (*dir_v1)(const char *dir);
    unsigned (*dir_v2)(const char *dir);
};

/* The least of two numbers of which 0 is "no limit". */
static unsigned cpus_least(unsigned a, unsigned b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static unsigned cpus_from_quota(long long quota, long long period)
{
    long long cpus;

    if (quota <= 0 || period <= 0)
        return 0;
    cpus = quota / period + (quota % period != 0);
    return cpus > INT_MAX ? INT_MAX : (unsigned)cpus;
}

/* Reads the first line of a file; false when there is none. */
static bool cpus_read_line(const char *path, char *line, size_t size)
{
    FILE *file = fopen(path, "re");
    bool found;

    if (!file)
        return false;
    found = fgets(line, (int)size, file) != NULL;
    fclose(file);
    return found;
}

static bool cpus_read_number(const char *dir, const char *name, long long *ret_number)
{
    STK_CLEANUP(stk_mem_freep) char *path = stk_mem_printf("%s/%s", dir, name);
    char line[64], *end;
    long long number;

    if (!cpus_read_line(path, line, sizeof(line)))
        return false;
    number = strtoll(line, &end, 10);
    if (end == line)
        return false;
    *ret_number = number;
    return true;
}

static unsigned cpus_dir_v2(const char *dir)
{
    STK_CLEANUP(stk_mem_freep) char *path = stk_mem_printf("%s/cpu.max", dir);
    char line[128], *rest, *end;
    long long quota, period;

    if (!cpus_read_line(path, line, sizeof(line)))
        return 0;
    quota = strtoll(line, &rest, 10);
    if (rest == line) /* "max" */
        return 0;
    period = strtoll(rest, &end, 10);
    return end == rest ? 0 : cpus_from_quota(quota, period);
}

static unsigned cpus_dir_v1(const char *dir)
{
    long long quota = 0, period = 0;

    if (!cpus_read_number(dir, "cpu.cfs_quota_us", &quota) ||
        !cpus_read_number(dir, "cpu.cfs_period_us", &period))
        return 0;
    return cpus_from_quota(quota, period);
}

static unsigned cpus_from_memory(long long bytes)
{
    long long n = bytes / CPUS_WORKER_BYTES;

    if (bytes <= 0 || bytes >= CPUS_MEMORY_NONE)
        return 0;
    return n > 0 ? (unsigned)n : 1;
}

static unsigned cpus_memory_v2(const char *dir)
{
    long long bytes;

    return cpus_read_number(dir, "memory.max", &bytes) ? cpus_from_memory(bytes) : 0;
}

static unsigned cpus_memory_v1(const char *dir)
{
    long long bytes;

    return cpus_read_number(dir, "memory.limit_in_bytes", &bytes) ? cpus_from_memory(bytes) : 0;
}

/* The least quota of a group and all its ancestors up to the mount point. */
static unsigned cpus_walk(const char *mount, const char *group, unsigned (*dir_quota)(const char *))
{
    STK_CLEANUP(stk_mem_freep) char *dir = stk_mem_printf("%s%s", mount, group);
    size_t least_len = strlen(mount);
    unsigned cpus = 0;

    for (;;) {
        char *slash;

        cpus = cpus_least(cpus, dir_quota(dir));
        slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < least_len)
            return cpus;
        *slash = '\0';
    }
}

/* Is the word one of the comma-separated list? */
static bool cpus_has_word(const char *list, const char *word)
{
    size_t len = strlen(word);

    for (;;) {
        size_t n = strcspn(list, ",");

        if (n == len && memcmp(list, word, n) == 0)
            return true;
        if (!list[n])
            return false;
        list += n + 1;
    }
}

/* One line of /proc/self/cgroup: "number:controllers:path". */
static unsigned cpus_group(const char *root, char *line, const struct cpus_resource *resource)
{
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    unsigned cpus = 0;

    if (!group)
        return 0;
    controllers++;
    *group++ = '\0';
    group[strcspn(group, "\n")] = '\0';
    if (strcmp(group, "/") == 0)
        *group = '\0';
    if (!*controllers) {
        static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

        for (size_t i = 0; i < STK_ARRAY_LEN(mounts); i++) {
            STK_CLEANUP(stk_mem_freep) char *mount = stk_mem_printf("%s%s", root, mounts[i]);

            cpus = cpus_least(cpus, cpus_walk(mount, group, resource->dir_v2));
        }
    } else if (cpus_has_word(controllers, resource->controller)) {
        const char *const names[] = {resource->controller, controllers};

        for (size_t i = 0; i < STK_ARRAY_LEN(names); i++) {
            STK_CLEANUP(stk_mem_freep)
            char *mount = stk_mem_printf("%s/sys/fs/cgroup/%s", root, names[i]);

            cpus = cpus_least(cpus, cpus_walk(mount, group, resource->dir_v1));
        }
    }
    return cpus;
}

static unsigned cpus_look_up(const char *root, const struct cpus_resource *resource)
{
    STK_CLEANUP(stk_mem_freep) char *path = stk_mem_printf("%s/proc/self/cgroup", root);
    STK_CLEANUP(stk_mem_freep) char *line = NULL;
    FILE *file = fopen(path, "re");
    unsigned cpus = 0;
    size_t size = 0;

    if (!file)
        return 0;
    while (getline(&line, &size, file) > 0)
        cpus = cpus_least(cpus, cpus_group(root, line, resource));
    fclose(file);
    return cpus;
}

unsigned stk_cpus_quota(const char *root)
{
    static const struct cpus_resource cpu = {"cpu", cpus_dir_v1, cpus_dir_v2};

    return cpus_look_up(root, &cpu);
}

unsigned stk_cpus_memory(const char *root)
{
    static const struct cpus_resource memory = {"memory", cpus_memory_v1, cpus_memory_v2};

    return cpus_look_up(root, &memory);
}

/* CPUs in the affinity mask, of which the kernel may know more than a cpu_set_t holds. */
static unsigned cpus_affinity(void)
{
    for (int most = CPU_SETSIZE; most <= CPUS_MAX_SET; most *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)most);
        size_t size = CPU_ALLOC_SIZE((size_t)most);
        int r, n = 0;

        if (!set)
            break;
        r = sched_getaffinity(0, size, set);
        if (r == 0)
            n = CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (r == 0)
            return n > 0 ? (unsigned)n : 1;
        if (errno != EINVAL)
            break;
    }
    return 1;
}

unsigned stk_cpus_usable(const char *root)
{
    return cpus_least(cpus_affinity(), stk_cpus_quota(root));
}

unsigned stk_cpus_workers(const char *root)
{
    return cpus_least(stk_cpus_usable(root), stk_cpus_memory(root));
}
