/* Users and groups by name and number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "base/owner.h"

static void test_users(void **state)
{
    struct stk_owner owner = {0};

    assert_int_equal(stk_owner_find_user("root", &owner), 0);
    assert_int_equal(owner.uid, 0);
    assert_int_equal(owner.gid, 0);
    assert_string_equal(owner.name, "root");
    assert_non_null(owner.home);
    stk_owner_deinit(&owner);
    stk_owner_deinit(&owner);
    assert_int_equal(stk_owner_find_user("0", &owner), 0);
    assert_string_equal(owner.name, "root");
    stk_owner_deinit(&owner);
    assert_int_equal(stk_owner_find_user("no-such-user", &owner), -ENOENT);
}

/* A number needs no entry. */
static void test_numbers(void **state)
{
    struct stk_owner owner = {0};
    gid_t gid = 0;

    assert_int_equal(stk_owner_find_user("3999999", &owner), 0);
    assert_int_equal(owner.uid, 3999999);
    assert_true(owner.gid == (gid_t)-1);
    assert_null(owner.name);
    stk_owner_deinit(&owner);
    assert_int_equal(stk_owner_find_group("3999998", &gid), 0);
    assert_int_equal(gid, 3999998);
    /* What would mean "leave it" to the kernel, or does not fit, is a name that nobody has. */
    assert_int_equal(stk_owner_find_user("4294967295", &owner), -ENOENT);
    assert_int_equal(stk_owner_find_user("99999999999999999999", &owner), -ENOENT);
    assert_int_equal(stk_owner_find_user("12x", &owner), -ENOENT);
    assert_int_equal(stk_owner_find_user("-1", &owner), -ENOENT);
    assert_int_equal(stk_owner_find_user("", &owner), -ENOENT);
    assert_int_equal(stk_owner_find_group("-1", &gid), -ENOENT);
}

static void test_groups(void **state)
{
    gid_t gid = 1;

    assert_int_equal(stk_owner_find_group("root", &gid), 0);
    assert_int_equal(gid, 0);
    assert_int_equal(stk_owner_find_group("no-such-group", &gid), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_users),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_groups),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
