/*
 * The rendered head is the one form in which every way of stating it ends (field by field, or as a
 * copy of an earlier head), so rules about responses read and change it there. It is short, and
 * this is only done where an option asks for it.
 */
#include "serve/head_edit.h"

#include <string.h>

#include "base/assert.h"

static bool head_edit_is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static stk_span head_edit_trim(const char *begin, const char *end)
{
    while (begin < end && head_edit_is_blank(*begin))
        begin++;
    while (begin < end && head_edit_is_blank(end[-1]))
        end--;
    return stk_span_make(begin, (size_t)(end - begin));
}

bool stk_head_edit_next(const struct stk_out *out, struct stk_head_line *line)
{
    size_t off = line->off + line->len;
    const char *begin, *end, *colon;

    if (off == 0) { /* behind the status line */
        begin = out->buf + out->mark;
        end = memchr(begin, '\n', out->len - out->mark);
        if (end == NULL)
            return false;
        off = (size_t)(end + 1 - out->buf);
    }
    if (off >= out->len)
        return false;
    begin = out->buf + off;
    end = memchr(begin, '\n', out->len - off);
    STK_ASSERT(end != NULL && end > begin);
    line->off = off;
    line->len = (size_t)(end + 1 - begin);
    colon = memchr(begin, ':', line->len);
    STK_ASSERT(colon != NULL);
    line->name = stk_span_make(begin, (size_t)(colon - begin));
    line->value = head_edit_trim(colon + 1, end[-1] == '\r' ? end - 1 : end);
    return true;
}

void stk_head_edit_remove(struct stk_out *out, struct stk_head_line *line)
{
    char *at = out->buf + line->off;

    memmove(at, at + line->len, out->len - line->off - line->len);
    out->len -= line->len;
    line->len = 0;
}

void stk_head_edit_insert(struct stk_out *out, size_t off, stk_span bytes)
{
    char *at = out->buf + off;

    STK_ASSERT(off <= out->len && out->len + bytes.len <= out->cap);
    memmove(at + bytes.len, at, out->len - off);
    memcpy(at, bytes.ptr, bytes.len);
    out->len += bytes.len;
}

void stk_head_edit_add(struct stk_out *out, stk_span name, stk_span value)
{
    stk_head_edit_insert(out, out->len, name);
    stk_head_edit_insert(out, out->len, STK_SPAN_LIT(": "));
    stk_head_edit_insert(out, out->len, value);
    stk_head_edit_insert(out, out->len, STK_SPAN_LIT("\r\n"));
}

bool stk_head_edit_member(stk_span *list, stk_span *ret_member)
{
    while (list->len > 0) {
        bool quoted = false;
        size_t i = 0;
        stk_span member;

        for (; i < list->len && (quoted || list->ptr[i] != ','); i++) {
            if (list->ptr[i] == '"')
                quoted = !quoted;
            else if (quoted && list->ptr[i] == '\\' && i + 1 < list->len)
                i++;
        }
        member = head_edit_trim(list->ptr, list->ptr + i);
        *list = i < list->len ? stk_span_make(list->ptr + i + 1, list->len - i - 1)
                              : stk_span_make(list->ptr + i, 0);
        if (member.len > 0) {
            *ret_member = member;
            return true;
        }
    }
    return false;
}
