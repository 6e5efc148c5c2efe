/* The CPU quota of control groups, v1 and v2, read from a made-up /proc and /sys. */
#include "config/cpus.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static int setup(void **state)
{
    char *root = stk_mem_strdup("/tmp/stoker-cpus-XXXXXX");

    *state = mkdtemp(root);
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    int r = nftw(*state, remove_one, 8, FTW_DEPTH | FTW_PHYS);

    free(*state);
    return r;
}

/* Writes a file below the root and makes the folders on its way. */
static void put(const char *root, const char *name, const char *text)
{
    STK_CLEANUP(stk_mem_freep) char *path = stk_mem_printf("%s%s", root, name);
    FILE *file;

    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
        *slash = '/';
    }
    file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_nothing_there(void **state)
{
    assert_int_equal(stk_cpus_quota(*state), 0);
    assert_true(stk_cpus_usable(*state) >= 1);
    put(*state, "/proc/self/cgroup", "");
    assert_int_equal(stk_cpus_quota(*state), 0);
    put(*state, "/proc/self/cgroup", "garbage\n::\n0:\n0::\n:cpu:\n");
    assert_int_equal(stk_cpus_quota(*state), 0);
}

static void test_v2(void **state)
{
    put(*state, "/proc/self/cgroup", "0::/app.slice/one\n");
    put(*state, "/sys/fs/cgroup/app.slice/one/cpu.max", "max 100000\n");
    assert_int_equal(stk_cpus_quota(*state), 0);
    put(*state, "/sys/fs/cgroup/app.slice/one/cpu.max", "400000 100000\n");
    assert_int_equal(stk_cpus_quota(*state), 4);
    put(*state, "/sys/fs/cgroup/app.slice/one/cpu.max", "150000 100000\n");
    assert_int_equal(stk_cpus_quota(*state), 2);
    put(*state, "/sys/fs/cgroup/app.slice/one/cpu.max", "1000 100000\n");
    assert_int_equal(stk_cpus_quota(*state), 1);
    assert_int_equal(stk_cpus_usable(*state), 1);
}

static void test_v2_ancestors(void **state)
{
    put(*state, "/proc/self/cgroup", "0::/a/b\n");
    put(*state, "/sys/fs/cgroup/a/b/cpu.max", "800000 100000\n");
    put(*state, "/sys/fs/cgroup/a/cpu.max", "300000 100000\n");
    assert_int_equal(stk_cpus_quota(*state), 3);
}

/* A container sees its own group as the root, under a path that it cannot see. */
static void test_v2_container(void **state)
{
    put(*state, "/proc/self/cgroup", "0::/docker/0123456789abcdef\n");
    put(*state, "/sys/fs/cgroup/cpu.max", "200000 100000\n");
    assert_int_equal(stk_cpus_quota(*state), 2);
    put(*state, "/proc/self/cgroup", "0::/\n");
    assert_int_equal(stk_cpus_quota(*state), 2);
}

static void test_v2_nonsense(void **state)
{
    static const char *const texts[] = {"", "\n", "100000", "0 100000", "-5 100000", "5 0", "x y"};

    put(*state, "/proc/self/cgroup", "0::/\n");
    for (size_t i = 0; i < STK_ARRAY_LEN(texts); i++) {
        put(*state, "/sys/fs/cgroup/cpu.max", texts[i]);
        assert_int_equal(stk_cpus_quota(*state), 0);
    }
}

static void test_v1(void **state)
{
    put(*state, "/proc/self/cgroup",
        "12:cpuset:/x\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n");
    put(*state, "/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
    put(*state, "/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
    assert_int_equal(stk_cpus_quota(*state), 0);
    put(*state, "/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "250000\n");
    assert_int_equal(stk_cpus_quota(*state), 3);
}

static void test_v1_container(void **state)
{
    put(*state, "/proc/self/cgroup", "4:cpuacct,cpu:/docker/abc\n0::/docker/abc\n");
    put(*state, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
    put(*state, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(stk_cpus_quota(*state), 1);
}

/* The memory limit is the number of workers that fit. */
static void test_memory(void **state)
{
    assert_int_equal(stk_cpus_memory(*state), 0);
    put(*state, "/proc/self/cgroup", "0::/app\n");
    put(*state, "/sys/fs/cgroup/app/memory.max", "max\n");
    assert_int_equal(stk_cpus_memory(*state), 0);
    put(*state, "/sys/fs/cgroup/app/memory.max", "536870912\n");
    assert_int_equal(stk_cpus_memory(*state), 8);
    put(*state, "/sys/fs/cgroup/memory.max", "134217728\n");
    assert_int_equal(stk_cpus_memory(*state), 2);
    put(*state, "/sys/fs/cgroup/memory.max", "1000\n");
    assert_int_equal(stk_cpus_memory(*state), 1);
    assert_int_equal(stk_cpus_workers(*state), 1);
    assert_int_equal(stk_cpus_quota(*state), 0);
}

static void test_memory_v1(void **state)
{
    put(*state, "/proc/self/cgroup", "5:memory:/app\n4:cpu,cpuacct:/app\n");
    put(*state, "/sys/fs/cgroup/memory/app/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(stk_cpus_memory(*state), 0);
    put(*state, "/sys/fs/cgroup/memory/app/memory.limit_in_bytes", "268435456\n");
    assert_int_equal(stk_cpus_memory(*state), 4);
    assert_int_equal(stk_cpus_quota(*state), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_v2, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_v1, setup, teardown),
        cmocka_unit_test_setup_teardown(test_v2_ancestors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_v2_container, setup, teardown),
        cmocka_unit_test_setup_teardown(test_v2_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_v1, setup, teardown),
        cmocka_unit_test_setup_teardown(test_v1_container, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
