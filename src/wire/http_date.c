/*
 * Dates of HTTP, by arithmetic on the proleptic Gregorian calendar: libc's strftime and strptime
 * follow the locale, which belongs to the application.
 *
 * Years are counted from March, so that the leap day is the last of a year and the days before
 * each month are a linear formula; 400 years (an era) have 146,097 days.
 */
#include "wire/http_date.h"

#include <errno.h>
#include <stdbool.h>

enum {
    DATE_DAY_SECONDS = 86400,
    DATE_ERA_DAYS = 146097,
    DATE_EPOCH_DAYS = 719468, /* from 0000-03-01 to 1970-01-01 */
    DATE_NAME_LEN = 3,
    DATE_PIVOT_YEAR = 70, /* two digits from here on are of the 20th century */
};

#define DATE_MIN INT64_C(-62167219200) /* 0000-01-01 00:00:00 */
#define DATE_MAX INT64_C(253402300799) /* 9999-12-31 23:59:59 */

static const char date_months[12][DATE_NAME_LEN] = {
    {'J', 'a', 'n'}, {'F', 'e', 'b'}, {'M', 'a', 'r'}, {'A', 'p', 'r'},
    {'M', 'a', 'y'}, {'J', 'u', 'n'}, {'J', 'u', 'l'}, {'A', 'u', 'g'},
    {'S', 'e', 'p'}, {'O', 'c', 't'}, {'N', 'o', 'v'}, {'D', 'e', 'c'},
};

static const char *const date_days[7] = {
    "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday",
};

struct date {
    unsigned year, month /* 0-11 */, day /* 1-31 */, hour, minute, second;
};

static char *date_put(char *out, const char *text, size_t len)
{
    memcpy(out, text, len);
    return out + len;
}

static char *date_put_number(char *out, unsigned value, unsigned digits)
{
    for (unsigned i = digits; i-- > 0; value /= 10)
        out[i] = (char)('0' + value % 10);
    return out + digits;
}

void stk_http_date_format(char out[STK_HTTP_DATE_LEN], int64_t unix_seconds)
{
    int64_t seconds = unix_seconds < DATE_MIN   ? DATE_MIN
                      : unix_seconds > DATE_MAX ? DATE_MAX
                                                : unix_seconds;
    /* One era back, so that nothing below is negative. */
    uint64_t from =
        (uint64_t)(seconds + (int64_t)(DATE_EPOCH_DAYS + DATE_ERA_DAYS) * DATE_DAY_SECONDS);
    unsigned days = (unsigned)(from / DATE_DAY_SECONDS), time = (unsigned)(from % DATE_DAY_SECONDS);
    unsigned era = days / DATE_ERA_DAYS, doe = days % DATE_ERA_DAYS;
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / (DATE_ERA_DAYS - 1)) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned march = (5 * doy + 2) / 153; /* months since March */
    unsigned month = march < 10 ? march + 2 : march - 10;
    unsigned year = era * 400 + yoe + (month < 2) - 400;

    out = date_put(out, date_days[(days + 3) % 7], DATE_NAME_LEN);
    out = date_put(out, ", ", 2);
    out = date_put_number(out, doy - (153 * march + 2) / 5 + 1, 2);
    *out++ = ' ';
    out = date_put(out, date_months[month], DATE_NAME_LEN);
    *out++ = ' ';
    out = date_put_number(out, year, 4);
    *out++ = ' ';
    out = date_put_number(out, time / 3600, 2);
    *out++ = ':';
    out = date_put_number(out, time / 60 % 60, 2);
    *out++ = ':';
    out = date_put_number(out, time % 60, 2);
    (void)date_put(out, " GMT", 4);
}

static int64_t date_seconds(const struct date *d)
{
    unsigned march = d->month >= 2 ? d->month - 2 : d->month + 10;
    unsigned year = d->year + 400 - (d->month < 2), yoe = year % 400;
    unsigned doy = (153 * march + 2) / 5 + d->day - 1;
    int64_t days = (int64_t)(year / 400) * DATE_ERA_DAYS + 365 * yoe + yoe / 4 - yoe / 100 + doy -
                   DATE_EPOCH_DAYS - DATE_ERA_DAYS;

    return days * DATE_DAY_SECONDS + d->hour * 3600 + d->minute * 60 + d->second;
}

/* The parsers below take their part off the front of *s, or return false. */
static bool date_take(stk_span *s, const char *text)
{
    size_t len = strlen(text);

    if (s->len < len || memcmp(s->ptr, text, len) != 0)
        return false;
    *s = stk_span_make(s->ptr + len, s->len - len);
    return true;
}

static bool date_take_number(stk_span *s, unsigned digits, unsigned *ret_value)
{
    unsigned value = 0;

    if (s->len < digits)
        return false;
    for (unsigned i = 0; i < digits; i++) {
        if (s->ptr[i] < '0' || s->ptr[i] > '9')
            return false;
        value = value * 10 + (unsigned)(s->ptr[i] - '0');
    }
    *s = stk_span_make(s->ptr + digits, s->len - digits);
    *ret_value = value;
    return true;
}

static bool date_take_month(stk_span *s, unsigned *ret_month)
{
    for (unsigned i = 0; s->len >= DATE_NAME_LEN && i < 12; i++) {
        if (memcmp(s->ptr, date_months[i], DATE_NAME_LEN) != 0)
            continue;
        *s = stk_span_make(s->ptr + DATE_NAME_LEN, s->len - DATE_NAME_LEN);
        *ret_month = i;
        return true;
    }
    return false;
}

static bool date_take_time(stk_span *s, struct date *d)
{
    return date_take_number(s, 2, &d->hour) && date_take(s, ":") &&
           date_take_number(s, 2, &d->minute) && date_take(s, ":") &&
           date_take_number(s, 2, &d->second);
}

/* A day's name, short or long: the formats differ in what follows it. */
static bool date_take_day_name(stk_span *s, bool *ret_long)
{
    for (unsigned i = 0; i < 7; i++) {
        if (date_take(s, date_days[i])) {
            *ret_long = true;
            return true;
        }
        if (s->len >= DATE_NAME_LEN && memcmp(s->ptr, date_days[i], DATE_NAME_LEN) == 0) {
            *s = stk_span_make(s->ptr + DATE_NAME_LEN, s->len - DATE_NAME_LEN);
            *ret_long = false;
            return true;
        }
    }
    return false;
}

/* "06 Nov 1994 08:49:37 GMT" behind "Sun, ". */
static bool date_fixed(stk_span *s, struct date *d)
{
    return date_take_number(s, 2, &d->day) && date_take(s, " ") && date_take_month(s, &d->month) &&
           date_take(s, " ") && date_take_number(s, 4, &d->year) && date_take(s, " ") &&
           date_take_time(s, d) && date_take(s, " GMT");
}

/* "06-Nov-94 08:49:37 GMT" behind "Sunday, ". */
static bool date_rfc850(stk_span *s, struct date *d)
{
    if (!(date_take_number(s, 2, &d->day) && date_take(s, "-") && date_take_month(s, &d->month) &&
          date_take(s, "-") && date_take_number(s, 2, &d->year) && date_take(s, " ") &&
          date_take_time(s, d) && date_take(s, " GMT")))
        return false;
    d->year += d->year < DATE_PIVOT_YEAR ? 2000 : 1900;
    return true;
}

/* "Nov  6 08:49:37 1994" behind "Sun ". */
static bool date_asctime(stk_span *s, struct date *d)
{
    if (!date_take_month(s, &d->month) || !date_take(s, " "))
        return false;
    if (!(date_take(s, " ") ? date_take_number(s, 1, &d->day) : date_take_number(s, 2, &d->day)))
        return false;
    return date_take(s, " ") && date_take_time(s, d) && date_take(s, " ") &&
           date_take_number(s, 4, &d->year);
}

static bool date_is_real(const struct date *d)
{
    static const unsigned char days[12] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (d->year % 4 == 0 && d->year % 100 != 0) || d->year % 400 == 0;

    return d->day >= 1 && d->day <= days[d->month] && (d->month != 1 || d->day < 29 || leap) &&
           d->hour < 24 && d->minute < 60 && d->second <= 60; /* 60: a leap second */
}

int stk_http_date_parse(stk_span text, int64_t *ret_seconds)
{
    stk_span s = text;
    struct date d;
    bool is_long, good;

    if (!date_take_day_name(&s, &is_long))
        return -EINVAL;
    if (date_take(&s, ", "))
        good = is_long ? date_rfc850(&s, &d) : date_fixed(&s, &d);
    else
        good = !is_long && date_take(&s, " ") && date_asctime(&s, &d);
    if (!good || s.len > 0 || !date_is_real(&d))
        return -EINVAL;
    *ret_seconds = date_seconds(&d);
    return 0;
}
