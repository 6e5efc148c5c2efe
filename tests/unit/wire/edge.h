/*
 * Input between two unreadable pages: a parser that looks one byte beyond what it was given, on
 * either side, dies.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { EDGE_PAGES = 24 };

/* The readable pages; mapped once and left to the end of the process. */
static inline char *edge_pages(size_t *ret_size)
{
    static char *pages;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    if (!pages) {
        char *map =
            mmap(NULL, (EDGE_PAGES + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        assert_ptr_not_equal(map, MAP_FAILED);
        pages = map + page;
        assert_int_equal(mprotect(pages, EDGE_PAGES * page, PROT_READ | PROT_WRITE), 0);
    }
    *ret_size = EDGE_PAGES * page;
    return pages;
}

/* A copy of the bytes whose last one is followed by an unreadable page. */
static inline char *edge_before(const char *data, size_t len)
{
    size_t size;
    char *pages = edge_pages(&size);

    assert_true(len <= size);
    if (len > 0)
        memcpy(pages + size - len, data, len);
    return pages + size - len;
}

/* A copy of the bytes whose first one comes right after an unreadable page. */
static inline char *edge_behind(const char *data, size_t len)
{
    size_t size;
    char *pages = edge_pages(&size);

    assert_true(len <= size);
    if (len > 0)
        memcpy(pages, data, len);
    return pages;
}
