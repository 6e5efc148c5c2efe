/*
 * Shapes: browsers and programs send the same field names in the same order with every request, and
 * front ends the same variables.
 *
 * For each such sequence that was seen twice there is a template with all its keys, in which only
 * the values that differ from the last request's are replaced: what is the same costs a comparison
 * of bytes, and no key is looked up or made. The names are compared byte by byte, so that two
 * sequences can never be taken for each other; a sequence that names a field twice, or one that
 * must not be shown, is remembered as such and takes the long way.
 *
 * A copy of the template is what the application gets; but most applications only read it. So the
 * copy is lent: if it comes back unchanged (dict_watch.h) and nobody holds it any
 * more, then the next request of the shape gets it again, brought up to date; if not, it is the
 * application's alone, and after a few such loans in a row they become rare. A changed dict is let
 * go at the end of its request, with all that the application has put into it.
 *
 * Memory: a shape keeps values of at most STK_ENVIRON_VALUE_MAX bytes each.
 */
#include <string.h>

#include "base/mem.h"
#include "pyhost/dict_watch.h"
#include "pyhost/environ_priv.h"

/* Variables are looked at apart, so that requests without any pay nothing. */
#define SHAPE_APART __attribute__((noinline))

enum {
    SHAPE_SPOILED_MAX = 8, /* after so many spoiled loans in a row ... */
    SHAPE_LEND_EVERY = 64, /* ... only every 64th request tries again */
    SHAPE_HITS_MAX = 1 << 16,
};

static void shape_clear(struct stk_environ_shape *s)
{
    Py_CLEAR(s->kept.dict);
    Py_CLEAR(s->lent.dict);
    for (unsigned i = 0; i < STK_ENVIRON_FIELDS; i++)
        Py_CLEAR(s->keys[i]);
    s->hash = 0;
}

void stk_environ_shapes_free(struct stk_environ_template *t)
{
    if (!t->shapes)
        return;
    for (unsigned i = 0; i < STK_ENVIRON_SHAPES; i++)
        shape_clear(&t->shapes[i]);
    free(t->shapes);
    t->shapes = NULL;
}

/* ---- finding ------------------------------------------------------------------------------- */

/* Of a variable's name, whose bytes are compared in any case: its length and its ends. */
static uint32_t shape_hash_name(stk_span name)
{
    size_t n = name.len < 8 ? name.len : 8;
    uint64_t first = 0, last = 0;

    memcpy(&first, name.ptr, n);
    memcpy(&last, name.ptr + name.len - n, n);
    return (uint32_t)((first ^ (last << 29 | last >> 35) ^ name.len) *
                          UINT64_C(0x9E3779B97F4A7C15) >>
                      32);
}

/* Adds the variables to the number of the fields; `names` bytes are theirs. 0: as shape_hash. */
static SHAPE_APART uint32_t shape_hash_vars(const struct stk_request *req, uint32_t hash,
                                            size_t names)
{
    if (req->head->nfields + req->nvars > STK_ENVIRON_FIELDS)
        return 0;
    for (size_t i = 0; i < req->nvars; i++) {
        const struct stk_var *var = &req->vars[i];

        hash = (hash << 7 | hash >> 25) ^ shape_hash_name(var->name);
        names += var->name.len;
        if (stk_unlikely(var->value.len > STK_ENVIRON_VALUE_MAX))
            return 0;
    }
    return names > STK_ENVIRON_NAMES ? 0 : hash | 1;
}

/* A number for the sequence of names, 0 where there may be no shape for it. */
static uint32_t shape_hash(const struct stk_request *req)
{
    const struct stk_head *head = req->head;
    uint32_t hash = head->nfields;
    size_t names = 0;

    if (head->nfields == 0 || head->nfields > STK_ENVIRON_FIELDS)
        return 0;
    for (unsigned i = 0; i < head->nfields; i++) {
        const struct stk_head_field *f = &head->fields[i];

        hash = (hash << 7 | hash >> 25) ^ f->hash;
        names += f->name_len;
        if (stk_unlikely(f->value_len > STK_ENVIRON_VALUE_MAX))
            return 0;
    }
    if (stk_unlikely(req->nvars > 0))
        return shape_hash_vars(req, hash, names);
    return names > STK_ENVIRON_NAMES ? 0 : hash | 1;
}

/* Whether the variables of a shape have these names, which it keeps at `name`. */
static SHAPE_APART bool shape_is_vars(const struct stk_environ_shape *s,
                                      const struct stk_request *req, const char *name)
{
    for (unsigned i = 0; i < s->nvars; i++) {
        stk_span var = req->vars[i].name;

        if (var.len != s->name_len[s->nfields + i] || !stk_strings_same(name, var.ptr, var.len))
            return false;
        name += var.len;
    }
    return true;
}

static bool shape_is(const struct stk_environ_shape *s, const struct stk_request *req)
{
    const struct stk_head *head = req->head;
    const char *name = s->names;

    if (s->nfields != head->nfields || s->nvars != req->nvars)
        return false;
    for (unsigned i = 0; i < head->nfields; i++) {
        const struct stk_head_field *f = &head->fields[i];

        if (f->name_len != s->name_len[i] ||
            !stk_strings_same(name, head->base + f->name_off, f->name_len))
            return false;
        name += f->name_len;
    }
    return stk_likely(s->nvars == 0) || shape_is_vars(s, req, name);
}

/* Whether a sequence without shape has come a second time; remembers it if not. */
static bool shape_was_seen(struct stk_environ_template *t, uint32_t hash)
{
    for (unsigned i = 0; i < STK_ENVIRON_SHAPES; i++) {
        if (t->seen[i] == hash)
            return true;
    }
    t->seen[t->nseen++ % STK_ENVIRON_SHAPES] = hash;
    return false;
}

/* A place for a new shape: a free one, or one that is hardly used; NULL: later. */
static struct stk_environ_shape *shape_victim(struct stk_environ_template *t)
{
    struct stk_environ_shape *victim = &t->shapes[0];

    for (unsigned i = 0; i < STK_ENVIRON_SHAPES; i++) {
        if (t->shapes[i].hash == 0)
            return &t->shapes[i];
        if (t->shapes[i].hits < victim->hits)
            victim = &t->shapes[i];
    }
    if (victim->hits == 0)
        return victim;
    victim->hits /= 2;
    return NULL;
}

/* ---- making -------------------------------------------------------------------------------- */

/* Sets the value of the i-th key of a new shape. 0, or -1 and an exception. */
static int shape_set(struct stk_environ_shape *s, unsigned i, stk_span value)
{
    PyObject *str = PyUnicode_DecodeLatin1(value.ptr, (Py_ssize_t)value.len, NULL);
    int r;

    if (!str)
        return -1;
    r = PyDict_SetItem(s->kept.dict, s->keys[i], str);
    s->kept.values[i] = str;
    Py_DECREF(str);
    return r;
}

/* Adds one field to a new shape. 1; 0: the shape cannot have it; -1: an exception. */
static int shape_add(struct stk_environ *env, struct stk_environ_shape *s,
                     const struct stk_head *head, unsigned i)
{
    const struct stk_head_field *f = &head->fields[i];
    Py_ssize_t n = PyDict_GET_SIZE(s->kept.dict);

    s->keys[i] = stk_environ_key(env, f->hash, stk_head_field_name(head, f));
    if (!s->keys[i])
        return PyErr_Occurred() ? -1 : 0;
    if (shape_set(s, i, stk_head_field_value(head, f)) < 0)
        return -1;
    return PyDict_GET_SIZE(s->kept.dict) > n;
}

/*
 * Whether a shape may have a variable that replaces a key of the template: those that no request
 * has a value of its own for (stk_environ_update), and that come only once.
 */
static bool shape_may_replace(const struct stk_request *req, unsigned i)
{
    static const stk_span names[] = {
        {"SERVER_NAME", 11}, {"SERVER_PORT", 11},   {"REQUEST_SCHEME", 14},
        {"HTTPS", 5},        {"DOCUMENT_ROOT", 13},
    };
    stk_span name = req->vars[i].name;
    bool known = false;

    for (unsigned k = 0; k < STK_ARRAY_LEN(names); k++)
        known = known || stk_span_eq(name, names[k]);
    for (unsigned k = 0; k < i; k++)
        known = known && !stk_span_eq(name, req->vars[k].name);
    return known;
}

/* As shape_add, the i-th variable. */
static int shape_add_var(struct stk_environ *env, struct stk_environ_shape *s,
                         const struct stk_request *req, unsigned i)
{
    unsigned at = s->nfields + i;
    int r;

    s->keys[at] = stk_environ_var_key(env, req->vars[i].name);
    if (!s->keys[at])
        return -1;
    r = PyDict_Contains(s->kept.dict, s->keys[at]);
    if (r < 0)
        return -1;
    if (r > 0 && !shape_may_replace(req, i))
        return 0;
    return shape_set(s, at, req->vars[i].value) < 0 ? -1 : 1;
}

/*
 * A shape of the head. The dict is copied from the template's, during which the garbage collector
 * may run and in it another thread: so what is in it is noted before.
 */
static int shape_fill(struct stk_environ *env, struct stk_environ_shape *s,
                      struct stk_environ_template *t, const struct stk_request *req)
{
    const struct stk_head *head = req->head;
    char *name = s->names;
    int r = 1;

    if (stk_environ_update(env, &t->base, req) != 0)
        return -1;
    s->kept = t->base;
    s->kept.dict = PyDict_Copy(t->base.dict);
    if (!s->kept.dict)
        return -1;
    s->nfields = head->nfields;
    s->nvars = (uint16_t)req->nvars;
    for (unsigned i = 0; i < head->nfields; i++) {
        const struct stk_head_field *f = &head->fields[i];

        s->name_len[i] = f->name_len;
        memcpy(name, head->base + f->name_off, f->name_len);
        name += f->name_len;
        if (r > 0)
            r = shape_add(env, s, head, i);
    }
    for (unsigned i = 0; i < s->nvars; i++) {
        stk_span var = req->vars[i].name;

        s->name_len[s->nfields + i] = (uint16_t)var.len;
        memcpy(name, var.ptr, var.len);
        name += var.len;
        if (r > 0)
            r = shape_add_var(env, s, req, i);
    }
    if (r == 0)
        Py_CLEAR(s->kept.dict);
    return r < 0 ? -1 : 0;
}

static STK_COLD struct stk_environ_shape *shape_new(struct stk_environ *env,
                                                    struct stk_environ_template *t,
                                                    const struct stk_request *req, uint32_t hash)
{
    struct stk_environ_shape *made, *place;

    if (!shape_was_seen(t, hash) || !shape_victim(t))
        return NULL;
    made = stk_new0(struct stk_environ_shape);
    if (shape_fill(env, made, t, req) < 0) {
        shape_clear(made);
        free(made);
        return NULL;
    }
    made->hash = hash;
    made->number = ++t->numbers;
    place = shape_victim(t);
    if (place) {
        shape_clear(place);
        t->last_serial = 0;
        *place = *made;
    } else {
        shape_clear(made);
    }
    free(made);
    return place;
}

/* Whether heads of one serial have the same variables, too: none, or those that made the head. */
static inline bool shape_serial_tells(const struct stk_environ_shape *s,
                                      const struct stk_request *req)
{
    return s->nvars == req->nvars && (req->nvars == 0 || req->vars_of_head);
}

static inline struct stk_environ_shape *shape_get(struct stk_environ *env,
                                                  struct stk_environ_template *t,
                                                  const struct stk_request *req)
{
    const struct stk_head *head = req->head;
    struct stk_environ_shape *s = NULL;
    uint32_t hash;

    if (head->serial != 0 && head->serial == t->last_serial && shape_serial_tells(t->last, req))
        return t->last;
    hash = shape_hash(req);
    if (stk_unlikely(hash == 0))
        return NULL;
    for (unsigned i = 0; i < STK_ENVIRON_SHAPES && !s; i++) {
        if (t->shapes[i].hash == hash && shape_is(&t->shapes[i], req))
            s = &t->shapes[i];
    }
    if (stk_unlikely(!s))
        s = shape_new(env, t, req, hash);
    if (!s)
        return NULL;
    s->hits += s->hits < SHAPE_HITS_MAX;
    t->last = s;
    t->last_serial = head->serial;
    return s;
}

/* ---- using --------------------------------------------------------------------------------- */

static int shape_change(struct stk_environ_shape *s, struct stk_environ_image *image, unsigned i,
                        stk_span value)
{
    PyObject *str = PyUnicode_DecodeLatin1(value.ptr, (Py_ssize_t)value.len, NULL);
    int r;

    if (stk_unlikely(!str))
        return -1;
    r = PyDict_SetItem(image->dict, s->keys[i], str);
    if (stk_likely(r == 0))
        image->values[i] = str;
    Py_DECREF(str);
    return r;
}

static SHAPE_APART int shape_update_vars(struct stk_environ_shape *s,
                                         struct stk_environ_image *image,
                                         const struct stk_request *req)
{
    for (unsigned i = 0; i < s->nvars; i++) {
        stk_span value = req->vars[i].value;

        if (stk_unlikely(!stk_strings_is(image->values[s->nfields + i], value) &&
                         shape_change(s, image, s->nfields + i, value) < 0))
            return -1;
    }
    return 0;
}

/* Replaces the values of fields and variables that differ from what the dict has. */
static int shape_update_values(struct stk_environ_shape *s, struct stk_environ_image *image,
                               const struct stk_request *req)
{
    const struct stk_head *head = req->head;

    for (unsigned i = 0; i < head->nfields; i++) {
        stk_span value = stk_head_field_value(head, &head->fields[i]);

        if (stk_unlikely(!stk_strings_is(image->values[i], value) &&
                         shape_change(s, image, i, value) < 0))
            return -1;
    }
    return stk_likely(s->nvars == 0) ? 0 : shape_update_vars(s, image, req);
}

static inline int shape_update(struct stk_environ *env, struct stk_environ_shape *s,
                               struct stk_environ_image *image, const struct stk_request *req)
{
    const struct stk_head *head = req->head;

    if (stk_unlikely(stk_environ_update(env, image, req) != 0))
        return -1;
    if (head->serial != 0 && head->serial == image->serial && shape_serial_tells(s, req))
        return 0;
    image->serial = 0;
    if (stk_unlikely(shape_update_values(s, image, req) < 0))
        return -1;
    image->serial = head->serial;
    return 0;
}

/* The dict that was lent before, if it came back as it was; NULL with or without an exception. */
static inline PyObject *shape_lend_again(struct stk_environ *env, struct stk_environ_shape *s,
                                         const struct stk_request *req)
{
    struct stk_environ_image *image = &s->lent;

    if (!image->dict || Py_REFCNT(image->dict) != 1)
        return NULL;
    if (stk_unlikely(stk_dict_version(image->dict) != s->lent_version ||
                     shape_update(env, s, image, req) < 0)) {
        Py_CLEAR(image->dict);
        return NULL;
    }
    s->lent_version = stk_dict_version(image->dict);
    return stk_py_newref(image->dict);
}

/* A copy of the template, which is lent if nothing else is and it has paid. */
static PyObject *shape_copy(struct stk_environ *env, struct stk_environ_shape *s,
                            const struct stk_request *req, bool lend,
                            struct stk_environ_shape **ret_lender)
{
    struct stk_environ_image image;
    uint64_t number = s->number;
    PyObject *kept;
    PyObject *dict;

    if (stk_unlikely(shape_update(env, s, &s->kept, req) < 0))
        return NULL;
    lend = lend && !s->lent.dict &&
           (s->spoiled < SHAPE_SPOILED_MAX || ++s->turns % SHAPE_LEND_EVERY == 0);
    if (lend)
        image = s->kept;
    /* See shape_fill: another thread may even take the shape away. */
    kept = stk_py_newref(s->kept.dict);
    dict = PyDict_Copy(kept);
    Py_DECREF(kept);
    if (lend && dict && s->number == number && !s->lent.dict && stk_dict_watch(dict)) {
        s->lent = image;
        s->lent.dict = stk_py_newref(dict);
        s->lent_version = stk_dict_version(dict);
        *ret_lender = s;
    }
    return dict;
}

PyObject *stk_environ_shape_build(struct stk_environ *env, struct stk_environ_template *t,
                                  const struct stk_request *req, bool lend,
                                  struct stk_environ_shape **ret_lender)
{
    struct stk_environ_shape *s = shape_get(env, t, req);
    PyObject *dict;

    if (!s || !s->kept.dict)
        return NULL;
    if (lend) {
        dict = shape_lend_again(env, s, req);
        if (stk_likely(dict != NULL)) {
            *ret_lender = s;
            return dict;
        }
        if (PyErr_Occurred())
            return NULL;
    }
    return shape_copy(env, s, req, lend, ret_lender);
}

void stk_environ_release(PyObject *dict, struct stk_environ_shape *lender)
{
    if (lender && lender->lent.dict == dict) {
        if (stk_likely(Py_REFCNT(dict) == 2 && stk_dict_version(dict) == lender->lent_version)) {
            lender->spoiled = 0;
        } else {
            lender->spoiled++;
            Py_CLEAR(lender->lent.dict);
        }
    }
    Py_DECREF(dict);
}
