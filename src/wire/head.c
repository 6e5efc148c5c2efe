/*
 * Copies of heads. One that came as text is copied as text; of one whose parts lie in a packet, and
 * in what was made beside it, only the parts are copied.
 */
#include "wire/head.h"

#include <string.h>

size_t stk_head_text_size(const struct stk_head *h)
{
    size_t n = (size_t)h->method_len + h->target_len + h->path_len + h->query_len;

    if (!h->path_apart)
        return h->len;
    for (unsigned i = 0; i < h->nfields; i++)
        n += (size_t)h->fields[i].name_len + h->fields[i].value_len;
    /* An absolute target's; Host is a field, or that. */
    return n + h->authority_len;
}

/* Copies one part behind what is there, and tells where it is now. */
static void head_copy_part(const struct stk_head *from, char *text, size_t *at, uint32_t *off,
                           uint32_t len)
{
    if (len > 0)
        memcpy(text + *at, from->base + *off, len);
    *off = (uint32_t)*at;
    *at += len;
}

void stk_head_copy(struct stk_head *to, const struct stk_head *from, char *text)
{
    size_t at = 0;

    memcpy(to, from, offsetof(struct stk_head, fields) + from->nfields * sizeof from->fields[0]);
    to->base = text;
    if (!from->path_apart) {
        memcpy(text, from->base, from->len);
        return;
    }
    head_copy_part(from, text, &at, &to->method_off, from->method_len);
    head_copy_part(from, text, &at, &to->target_off, from->target_len);
    head_copy_part(from, text, &at, &to->path_off, from->path_len);
    head_copy_part(from, text, &at, &to->query_off, from->query_len);
    head_copy_part(from, text, &at, &to->authority_off, from->authority_len);
    for (unsigned i = 0; i < from->nfields; i++) {
        struct stk_head_field *f = &to->fields[i];

        head_copy_part(from, text, &at, &f->name_off, f->name_len);
        head_copy_part(from, text, &at, &f->value_off, f->value_len);
    }
    if (from->host_len == 0)
        return;
    if (from->target_form == STK_TARGET_ABSOLUTE)
        to->host_off = to->authority_off;
    else
        to->host_off = to->fields[from->known[STK_HEAD_HOST] - 1].value_off;
}
