/*
 * strftime reads the locale of the application, and takes libc's lock of the time zone, which a
 * fork may inherit locked. Log lines have neither: names are English, and the zone comes from
 * base/log_clock.h.
 */
#include "base/log_date.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log_clock.h"
#include "base/macros.h"

enum { DATE_PIECE = 32 };

struct date {
    struct stk_log_clock clock;
    int64_t unix_seconds;
    unsigned weekday; /* 0: Sunday */
    unsigned yearday; /* 1: the first of January */
};

static const char date_days[7][10] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                      "Thursday", "Friday", "Saturday"};
static const char date_months[12][10] = {"January",   "February", "March",    "April",
                                         "May",       "June",     "July",     "August",
                                         "September", "October",  "November", "December"};

static void date_make(struct date *d, int64_t unix_seconds)
{
    static const uint16_t before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    const struct stk_log_clock *c = &d->clock;
    int64_t local, days;
    bool leap;

    stk_log_clock_local(unix_seconds, &d->clock);
    local = unix_seconds + c->offset;
    days = local / 86400 - (local % 86400 < 0);
    leap = (c->year % 4 == 0 && c->year % 100 != 0) || c->year % 400 == 0;
    d->unix_seconds = unix_seconds;
    d->weekday = (unsigned)(((days + 4) % 7 + 7) % 7);
    d->yearday = before[(c->month - 1) % 12] + c->day + (leap && c->month > 2);
}

static const char *date_zone(const struct stk_log_clock *clock)
{
    if (clock->offset == 0 && timezone == 0)
        return tzname[0][0] != '\0' ? tzname[0] : "UTC";
    return tzname[clock->offset != -timezone];
}

/* The conversions that stand for several others; NULL: it is none of them. */
static const char *date_composite(char c)
{
    switch (c) {
    case 'c':
        return "%a %b %e %H:%M:%S %Y";
    case 'D':
    case 'x':
        return "%m/%d/%y";
    case 'F':
        return "%Y-%m-%d";
    case 'R':
        return "%H:%M";
    case 'r':
        return "%I:%M:%S %p";
    case 'T':
    case 'X':
        return "%H:%M:%S";
    default:
        return NULL;
    }
}

/* The value of a conversion that is a number; -1: it is none. */
static int date_value(const struct date *d, char conversion)
{
    const struct stk_log_clock *c = &d->clock;
    unsigned hour12 = c->hour % 12 == 0 ? 12 : c->hour % 12;
    const struct {
        char conversion;
        unsigned value;
    } known[] = {
        {'d', c->day},
        {'e', c->day},
        {'H', c->hour},
        {'k', c->hour},
        {'I', hour12},
        {'l', hour12},
        {'j', d->yearday},
        {'M', c->minute},
        {'m', c->month},
        {'S', c->second},
        {'u', d->weekday == 0 ? 7 : d->weekday},
        {'w', d->weekday},
        {'Y', (unsigned)(c->year < 0 ? 0 : c->year)},
        {'y', (unsigned)(c->year < 0 ? 0 : c->year) % 100},
        {'C', (unsigned)(c->year < 0 ? 0 : c->year) / 100},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(known); i++)
        if (known[i].conversion == conversion)
            return (int)known[i].value;
    return -1;
}

/* A conversion that is a number; false: it is none. */
static bool date_number(const struct date *d, char conversion, char out[DATE_PIECE])
{
    int value = date_value(d, conversion);

    if (value < 0)
        return false;
    if (strchr("uwY", conversion) != NULL)
        snprintf(out, DATE_PIECE, "%d", value);
    else if (strchr("ekl", conversion) != NULL)
        snprintf(out, DATE_PIECE, "%2d", value);
    else
        snprintf(out, DATE_PIECE, "%0*d", conversion == 'j' ? 3 : 2, value);
    return true;
}

/* Any other one; what is not known stands as it is. */
static void date_word(const struct date *d, char conversion, char out[DATE_PIECE])
{
    const struct stk_log_clock *c = &d->clock;
    unsigned zone = (unsigned)(c->offset < 0 ? -c->offset : c->offset) / 60;
    const char *word;

    switch (conversion) {
    case 'a':
    case 'A':
        word = date_days[d->weekday];
        break;
    case 'b':
    case 'h':
    case 'B':
        word = date_months[(c->month - 1) % 12];
        break;
    case 'p':
        word = c->hour < 12 ? "AM" : "PM";
        break;
    case 'P':
        word = c->hour < 12 ? "am" : "pm";
        break;
    case 'Z':
        word = date_zone(c);
        break;
    case '%':
        word = "%";
        break;
    case 's':
        snprintf(out, DATE_PIECE, "%lld", (long long)d->unix_seconds);
        return;
    case 'z':
        snprintf(out, DATE_PIECE, "%c%02u%02u", c->offset < 0 ? '-' : '+', zone / 60, zone % 60);
        return;
    default:
        snprintf(out, DATE_PIECE, "%%%c", conversion);
        return;
    }
    snprintf(out, DATE_PIECE, "%.*s", strchr("abh", conversion) ? 3 : DATE_PIECE - 1, word);
}

/* Appends text; false: there is no room for it. */
static bool date_put(char *dst, size_t size, size_t *at, const char *text, size_t len)
{
    if (len >= size - *at)
        return false;
    memcpy(dst + *at, text, len);
    *at += len;
    return true;
}

static bool date_write(const struct date *d, const char *format, char *dst, size_t size, size_t *at)
{
    while (*format != '\0') {
        size_t plain = strcspn(format, "%");
        const char *several;
        char piece[DATE_PIECE];

        if (!date_put(dst, size, at, format, plain))
            return false;
        format += plain;
        if (*format == '\0')
            break;
        if (format[1] == '\0')
            return date_put(dst, size, at, "%", 1);
        several = date_composite(format[1]);
        if (several != NULL) { /* whose own conversions are simple ones */
            if (!date_write(d, several, dst, size, at))
                return false;
        } else {
            if (!date_number(d, format[1], piece))
                date_word(d, format[1], piece);
            if (!date_put(dst, size, at, piece, strlen(piece)))
                return false;
        }
        format += 2;
    }
    return true;
}

size_t stk_log_date(char *dst, size_t size, const char *format, int64_t unix_seconds)
{
    struct date d;
    size_t at = 0;

    date_make(&d, unix_seconds);
    if (!date_write(&d, format, dst, size, &at)) {
        /* As far as there is room. */
    }
    dst[at] = '\0';
    return at;
}
