/*
 * Conditional requests. One pass over the fields finds those that matter, by the length of their
 * names first; a request without any, which is nearly every first one, costs that pass only.
 *
 * Lists of entity-tags are read as they stand: a tag may hold commas. A date that cannot be read
 * makes its field count for nothing (RFC 9110 13.1.3, 13.1.4).
 */
#include "wire/condition.h"

#include <stddef.h>

#include "wire/http_date.h"

static const stk_span condition_names[STK_CONDITION_FIELD_COUNT] = {
#define X(id, name) [STK_CONDITION_##id] = {name, sizeof(name) - 1},
    STK_CONDITION_FIELDS(X)
#undef X
};

/* The field of a name, or STK_CONDITION_FIELD_COUNT. */
static enum stk_condition_field condition_of(stk_span name)
{
    enum stk_condition_field id = STK_CONDITION_FIELD_COUNT;

    switch (name.len) {
    case 5:
        id = STK_CONDITION_RANGE;
        break;
    case 8: /* if-match, if-range */
        id = (name.ptr[3] | 0x20) == 'm' ? STK_CONDITION_IF_MATCH : STK_CONDITION_IF_RANGE;
        break;
    case 13:
        id = STK_CONDITION_IF_NONE_MATCH;
        break;
    case 15:
        id = STK_CONDITION_ACCEPT_ENCODING;
        break;
    case 17:
        id = STK_CONDITION_IF_MODIFIED_SINCE;
        break;
    case 19:
        id = STK_CONDITION_IF_UNMODIFIED_SINCE;
        break;
    default:
        return id;
    }
    return stk_span_ieq(name, condition_names[id]) ? id : STK_CONDITION_FIELD_COUNT;
}

void stk_conditions_find(struct stk_conditions *ret_conditions, const struct stk_head *head)
{
    struct stk_conditions *c = ret_conditions;

    c->head = head;
    c->any = c->many = 0;
    for (uint16_t i = 0; i < head->nfields; i++) {
        const struct stk_head_field *f = &head->fields[i];
        enum stk_condition_field id;

        if (f->known != STK_HEAD_OTHER)
            continue;
        id = condition_of(stk_head_field_name(head, f));
        if (id == STK_CONDITION_FIELD_COUNT)
            continue;
        if (c->any & 1u << id) {
            c->many |= (uint8_t)(1u << id);
        } else {
            c->any |= (uint8_t)(1u << id);
            c->first[id] = i;
        }
    }
}

/* The value of a field that may be there once: of length 0 if it is not there, or several times. */
static stk_span condition_single(const struct stk_conditions *c, enum stk_condition_field id)
{
    if (!(c->any & 1u << id) || c->many & 1u << id)
        return stk_span_make(NULL, 0);
    return stk_head_field_value(c->head, &c->head->fields[c->first[id]]);
}

/* Steps through the fields of one name; start with *pos = 0. False: there are no more. */
static bool condition_next(const struct stk_conditions *c, enum stk_condition_field id,
                           uint16_t *pos, stk_span *ret_value)
{
    uint16_t i = *pos;

    if (!(c->any & 1u << id))
        return false;
    if (i == 0)
        i = c->first[id];
    else if (!(c->many & 1u << id))
        return false;
    for (; i < c->head->nfields; i++) {
        const struct stk_head_field *f = &c->head->fields[i];

        if (f->known == STK_HEAD_OTHER && condition_of(stk_head_field_name(c->head, f)) == id) {
            *ret_value = stk_head_field_value(c->head, f);
            *pos = (uint16_t)(i + 1);
            return true;
        }
    }
    return false;
}

void stk_conditions_accept(const struct stk_conditions *c, struct stk_accept *ret_accept)
{
    uint16_t pos = 0;
    stk_span value;

    stk_accept_init(ret_accept);
    while (condition_next(c, STK_CONDITION_ACCEPT_ENCODING, &pos, &value))
        stk_accept_add(ret_accept, value);
}

static bool etag_is_weak(stk_span etag)
{
    return etag.len > 2 && etag.ptr[0] == 'W' && etag.ptr[1] == '/';
}

static stk_span etag_opaque(stk_span etag)
{
    return etag_is_weak(etag) ? stk_span_make(etag.ptr + 2, etag.len - 2) : etag;
}

static bool etag_same(stk_span a, stk_span b, bool weak)
{
    if (!weak && (etag_is_weak(a) || etag_is_weak(b)))
        return false;
    return stk_span_eq(etag_opaque(a), etag_opaque(b));
}

/* The entity-tag at p, of length 0 if there is none. */
static stk_span etag_read(const char *p, const char *end)
{
    const char *start = p;

    if (end - p > 2 && p[0] == 'W' && p[1] == '/')
        p += 2;
    if (p == end || *p != '"')
        return stk_span_make(start, 0);
    for (p++; p < end && *p != '"'; p++)
        if ((unsigned char)*p <= 0x20 || *p == 0x7f)
            return stk_span_make(start, 0);
    return p < end ? stk_span_make(start, (size_t)(p + 1 - start)) : stk_span_make(start, 0);
}

bool stk_etag_list_has(stk_span list, stk_span etag, bool weak)
{
    const char *p = list.ptr, *end = p + list.len;

    if (stk_span_eq(list, STK_SPAN_LIT("*")))
        return true;
    if (etag.len == 0)
        return false;
    while (p < end) {
        stk_span one;

        if (*p == ',' || *p == ' ' || *p == '\t') {
            p++;
            continue;
        }
        one = etag_read(p, end);
        if (one.len == 0)
            return false;
        if (etag_same(one, etag, weak))
            return true;
        p += one.len;
        while (p < end && (*p == ' ' || *p == '\t'))
            p++;
        if (p < end && *p != ',')
            return false;
    }
    return false;
}

static bool condition_tagged(const struct stk_conditions *c, enum stk_condition_field id,
                             stk_span etag, bool weak)
{
    uint16_t pos = 0;
    stk_span value;

    while (condition_next(c, id, &pos, &value))
        if (stk_etag_list_has(value, etag, weak))
            return true;
    return false;
}

/* Whether the date of a field is there and not before the modification. */
static bool condition_dated(const struct stk_conditions *c, enum stk_condition_field id,
                            int64_t modified, bool *ret_not_before)
{
    stk_span value = condition_single(c, id);
    int64_t date;

    if (value.len == 0 || modified < 0 || stk_http_date_parse(value, &date) != 0)
        return false;
    *ret_not_before = modified <= date;
    return true;
}

enum stk_condition_result stk_conditions_check(const struct stk_conditions *c,
                                               const struct stk_validators *v)
{
    bool not_before = false;

    if (c->any & 1u << STK_CONDITION_IF_MATCH) {
        if (!condition_tagged(c, STK_CONDITION_IF_MATCH, v->etag, false))
            return STK_CONDITION_FAILED;
    } else if (condition_dated(c, STK_CONDITION_IF_UNMODIFIED_SINCE, v->modified, &not_before) &&
               !not_before) {
        return STK_CONDITION_FAILED;
    }
    if (c->any & 1u << STK_CONDITION_IF_NONE_MATCH)
        return condition_tagged(c, STK_CONDITION_IF_NONE_MATCH, v->etag, true)
                   ? STK_CONDITION_NOT_MODIFIED
                   : STK_CONDITION_SEND;
    if (condition_dated(c, STK_CONDITION_IF_MODIFIED_SINCE, v->modified, &not_before) && not_before)
        return STK_CONDITION_NOT_MODIFIED;
    return STK_CONDITION_SEND;
}

/* If-Range: the representation is the one of which the client has a part. */
static bool condition_if_range(stk_span value, const struct stk_validators *v, int64_t now)
{
    int64_t date;

    if (value.len == 0)
        return false;
    if (value.ptr[0] == '"' || etag_is_weak(value))
        return v->etag.len > 0 && etag_same(value, v->etag, false);
    /* A date is strong when nothing can have changed within its second: RFC 9110 8.8.2.2. */
    return v->modified >= 0 && v->modified < now - 1 && stk_http_date_parse(value, &date) == 0 &&
           date == v->modified;
}

stk_span stk_conditions_range(const struct stk_conditions *c, const struct stk_validators *v,
                              int64_t now)
{
    stk_span range = condition_single(c, STK_CONDITION_RANGE);

    if (!c->head->is_get || range.len == 0)
        return stk_span_make(NULL, 0);
    if (c->any & 1u << STK_CONDITION_IF_RANGE &&
        !condition_if_range(condition_single(c, STK_CONDITION_IF_RANGE), v, now))
        return stk_span_make(NULL, 0);
    return range;
}
