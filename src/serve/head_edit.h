/*
 * Changes of a response head after it was stated and before it leaves: of the bytes in a thread's
 * output buffer from out->mark to out->len, the status line and whole field lines.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"
#include "serve/server.h"

/* A field line; offsets are of out->buf. Zeroed: stands before the first. */
struct stk_head_line {
    size_t off, len; /* with its CRLF */
    stk_span name, value;
};

/* Goes to the next field; false: there is none. */
bool stk_head_edit_next(const struct stk_out *out, struct stk_head_line *line);
/* Takes a field out; the next call of stk_head_edit_next yields the one that followed it. */
void stk_head_edit_remove(struct stk_out *out, struct stk_head_line *line);
/* Puts bytes in at an offset of out->buf; the caller has seen to the room, and what it knew of
 * lines behind the offset is no longer true. */
void stk_head_edit_insert(struct stk_out *out, size_t off, stk_span bytes);
/* Adds a field at the end; likewise. */
void stk_head_edit_add(struct stk_out *out, stk_span name, stk_span value);
/* Takes the first member, without blanks around it, off a list that commas separate (a comma in a
 * quoted string is none); false: the list is empty. */
bool stk_head_edit_member(stk_span *list, stk_span *ret_member);
