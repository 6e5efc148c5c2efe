/* Compiler attributes and the small macros that every layer uses. */
#pragma once

#include <stddef.h>

#define STK_MUST_CHECK      __attribute__((warn_unused_result))
#define STK_PRINTF(fmt, va) __attribute__((format(printf, fmt, va)))
#define STK_CLEANUP(fn)     __attribute__((cleanup(fn)))
#define STK_NORETURN        __attribute__((noreturn))
#define STK_COLD            __attribute__((cold, noinline))
#define STK_HOT             __attribute__((hot))
#define STK_UNUSED          __attribute__((unused))

#define stk_likely(x)   __builtin_expect(!!(x), 1)
#define stk_unlikely(x) __builtin_expect(!!(x), 0)

#define STK_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* The object of type `type` whose member `member` is at `ptr`. */
#define stk_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Takes ownership out of a pointer variable: yields its value and leaves NULL behind. */
#define stk_steal(pp)                  \
    __extension__({                    \
        __auto_type stk_pp_ = (pp);    \
        __auto_type stk_v_ = *stk_pp_; \
        *stk_pp_ = NULL;               \
        stk_v_;                        \
    })
