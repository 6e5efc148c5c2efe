/*
 * The scope: a copy of a dict that is kept for each application, endpoint and scheme, and in which
 * only what differs from the last request is changed. Strings, bytes and tuples are shared; the
 * dicts and the list in it are each request's own, because middleware writes to them: but those
 * that the last request has left as they were, and that nobody holds any more, serve again.
 *
 * So does the dict itself, as an environ does (environ_shape.c): a copy is lent, and if it comes
 * back unchanged the next request gets it, brought up to date. What a request has put into any of
 * them is let go at its end.
 *
 * A field's (name, value) pair is looked for in a table by the field's hash; of clients that send
 * what they sent before, all pairs are found there, and of a head that is the very bytes of the
 * last one (its serial) the whole list.
 */
#include "pyhost/asgi_extensions.h"
#include "pyhost/asgi_priv.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "pyhost/dict_watch.h"
#include "pyhost/strings.h"
#include "wire/uri.h"

enum {
    SCOPE_FIELDS = 512, /* slots, a power of two */
    SCOPE_NAME_MAX = 40,
    SCOPE_VALUE_MAX = 512,
    SCOPE_CLIENTS = 1024,  /* slots, likewise */
    SCOPE_SPOILED_MAX = 8, /* after so many loans in a row that came back changed ... */
    SCOPE_LEND_EVERY = 64, /* ... only every 64th request gets one */
};

/* The dicts in a scope. */
enum scope_part_name { SCOPE_ASGI, SCOPE_EXTENSIONS, SCOPE_STATE, SCOPE_PARTS };

/* A field that has been seen, with its last value. */
struct scope_field {
    uint32_t hash;
    uint16_t name_len; /* 0: free */
    char name[SCOPE_NAME_MAX];
    PyObject *pair;
};

/* A dict in a scope: a copy of `source`, until its version changes. */
struct scope_part {
    PyObject *dict; /* NULL: the next request needs another */
    PyObject *source;
    uint64_t version;
};

/* What the last request of an application, endpoint and scheme had; borrowed from dict. */
struct scope_image {
    PyObject *dict;    /* NULL: there is none yet */
    PyObject *headers; /* a list of its own: the pairs that `list` should have */
    PyObject *list;    /* in dict; or NULL */
    struct scope_part parts[SCOPE_PARTS];
    PyObject *inner[STK_EXTENSIONS_MAX]; /* the dicts in that of the extensions */
    bool inner_fresh; /* a request has ended since, and nobody has or has changed one of them */
    uint64_t state_version; /* of what the state is a copy of */
    uint64_t serial;
    PyObject *method, *raw_path, *query;
    PyObject *root_path;
    bool trailers; /* the client takes them */
    bool told;     /* the server's address is not the endpoint's */
    bool is_apart; /* the path did not come out of raw_path */
    uint8_t version_minor;
    uint16_t port;
    uint8_t addr_len;
    char addr[sizeof(((struct stk_peer *)NULL)->addr)];
};

struct stk_scope_place {
    struct scope_image kept; /* that copies are made of */
    struct scope_image lent; /* a copy that a request has, or has had; dict NULL: there is none */
    uint64_t lent_version;
    unsigned spoiled; /* loans that came back changed, in a row */
    unsigned turns;
};

struct stk_scopes {
    struct stk_pyhost *host;
    struct stk_state *st;
    const struct stk_endpoint *endpoints;
    size_t nendpoints;
    struct stk_scope_place *places; /* [(app * nendpoints + endpoint) * 2 + is https] */
    size_t nplaces;
    PyObject *asgi; /* {"version": "3.0", "spec_version": "2.5"} */
    struct stk_extensions extensions;
    struct stk_strings *words;
    struct scope_field fields[SCOPE_FIELDS];
    PyObject *clients[SCOPE_CLIENTS]; /* (address, port), by the port; or NULL */
};

/* Sets a key and takes the reference to the value, which may be NULL after an error. */
static inline int scope_put(const struct stk_scopes *s, PyObject *dict, enum stk_state_name name,
                            PyObject *value)
{
    int r;

    if (stk_unlikely(!value))
        return -1;
    r = PyDict_SetItem(dict, stk_state_name(s->st, name), value);
    Py_DECREF(value);
    return r;
}

static inline bool scope_bytes_are(PyObject *bytes, stk_span text)
{
    return bytes && (size_t)PyBytes_GET_SIZE(bytes) == text.len &&
           memcmp(PyBytes_AS_STRING(bytes), text.ptr, text.len) == 0;
}

static PyObject *scope_bytes(stk_span text)
{
    return PyBytes_FromStringAndSize(text.ptr, (Py_ssize_t)text.len);
}

/* ---- the template -------------------------------------------------------------------------- */

static void scope_image_clear(struct scope_image *image)
{
    Py_CLEAR(image->dict);
    Py_CLEAR(image->headers);
}

static STK_COLD int scope_make_image(struct stk_scopes *s, struct scope_image *image,
                                     const struct stk_request *req)
{
    PyObject *dict = PyDict_New();
    PyObject *headers = PyList_New(0);
    PyObject *empty = stk_state_name(s->st, STK_NAME_EMPTY);
    int r = dict && headers ? 0 : -1;

    scope_image_clear(image); /* what somebody has found of the last one is his */
    if (r == 0) {
        r |= scope_put(s, dict, STK_NAME_s_type,
                       stk_py_newref(stk_state_name(s->st, STK_NAME_s_http)));
        r |= scope_put(s, dict, STK_NAME_s_asgi, stk_py_newref(Py_None));
        r |= scope_put(s, dict, STK_NAME_s_http_version,
                       stk_py_newref(stk_state_name(s->st, STK_NAME_one_one)));
        r |= scope_put(s, dict, STK_NAME_s_server, stk_scope_server(req->endpoint));
        r |= scope_put(s, dict, STK_NAME_s_client, stk_py_newref(Py_None));
        r |= scope_put(s, dict, STK_NAME_s_scheme, stk_strings_get(s->words, req->scheme));
        r |= scope_put(s, dict, STK_NAME_s_method,
                       stk_py_newref(stk_state_name(s->st, STK_NAME_GET)));
        r |= scope_put(s, dict, STK_NAME_s_root_path, stk_py_newref(empty));
        r |= scope_put(s, dict, STK_NAME_s_path, stk_py_newref(empty));
        r |= scope_put(s, dict, STK_NAME_s_raw_path, PyBytes_FromStringAndSize(NULL, 0));
        r |= scope_put(s, dict, STK_NAME_s_query_string, PyBytes_FromStringAndSize(NULL, 0));
        r |= scope_put(s, dict, STK_NAME_headers, stk_py_newref(headers));
        r |= scope_put(s, dict, STK_NAME_s_state, stk_py_newref(Py_None));
        r |= scope_put(s, dict, STK_NAME_s_extensions, stk_py_newref(Py_None));
    }
    /* The garbage collector may have run, and in it another thread, which has made one. */
    if (r != 0 || image->dict) {
        Py_XDECREF(dict);
        Py_XDECREF(headers);
        return r != 0 ? -1 : 0;
    }
    *image = (struct scope_image){
        .dict = dict,
        .headers = headers,
        .method = stk_state_name(s->st, STK_NAME_GET),
        .root_path = empty,
        .version_minor = 1,
        .is_apart = true,
    };
    return 0;
}

/* ---- fields -------------------------------------------------------------------------------- */

static PyObject *scope_lower(stk_span name)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)name.len);
    char *out = bytes ? PyBytes_AS_STRING(bytes) : NULL;

    for (size_t i = 0; bytes && i < name.len; i++) {
        char c = name.ptr[i];

        out[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    return bytes;
}

static PyObject *scope_pair(PyObject *name, PyObject *value)
{
    PyObject *pair = name && value ? PyTuple_Pack(2, name, value) : NULL;

    Py_XDECREF(name);
    Py_XDECREF(value);
    return pair;
}

static inline bool scope_field_is(struct scope_field *f, uint32_t hash, stk_span name)
{
    if (f->hash != hash || f->name_len != name.len)
        return false;
    return stk_likely(memcmp(f->name, name.ptr, name.len) == 0) ||
           strncasecmp(f->name, name.ptr, name.len) == 0;
}

/* The (name, value) of a field: a new reference. */
static PyObject *scope_field(struct stk_scopes *s, uint32_t hash, stk_span name, stk_span value)
{
    struct scope_field *f = &s->fields[hash % SCOPE_FIELDS];
    bool known = scope_field_is(f, hash, name);
    PyObject *pair;

    if (stk_likely(known) && scope_bytes_are(PyTuple_GET_ITEM(f->pair, 1), value))
        return stk_py_newref(f->pair);
    pair = scope_pair(known ? stk_py_newref(PyTuple_GET_ITEM(f->pair, 0)) : scope_lower(name),
                      scope_bytes(value));
    if (!pair || name.len > SCOPE_NAME_MAX || value.len > SCOPE_VALUE_MAX)
        return pair;
    f->hash = hash;
    f->name_len = (uint16_t)name.len;
    memcpy(f->name, name.ptr, name.len);
    Py_XSETREF(f->pair, stk_py_newref(pair));
    return pair;
}

/* The list of all fields. A trusted proxy's word on the host, or the authority of an absolute
 * target (RFC 9112 3.2.2), stands for Host. */
static int scope_change_headers(struct stk_scopes *s, struct scope_image *image,
                                const struct stk_request *req, bool other_host)
{
    const struct stk_head *head = req->head;
    PyObject *list = image->headers;

    if (!list || Py_REFCNT(list) != 1 || PyList_GET_SIZE(list) != (Py_ssize_t)head->nfields) {
        list = PyList_New(head->nfields);
        if (!list)
            return -1;
        Py_XSETREF(image->headers, list);
    }
    for (unsigned i = 0; i < head->nfields; i++) {
        const struct stk_head_field *f = &head->fields[i];
        bool is_host = other_host && f->known == STK_HEAD_HOST;
        PyObject *old = PyList_GET_ITEM(list, i);
        PyObject *pair = scope_field(s, f->hash, stk_head_field_name(head, f),
                                     is_host ? req->host : stk_head_field_value(head, f));

        if (stk_unlikely(!pair)) {
            image->headers = PyList_New(0); /* half of it is another request's */
            Py_DECREF(list);
            return -1;
        }
        PyList_SET_ITEM(list, i, pair);
        Py_XDECREF(old);
    }
    image->trailers = stk_scope_takes_trailers(head);
    return 0;
}

/* ---- extensions ---------------------------------------------------------------------------- */

int stk_scope_add_tls(struct stk_scopes *s, PyObject *extensions, const struct stk_request *req)
{
    return extensions ? stk_extensions_add_tls(&s->extensions, extensions, req) : -1;
}

static inline enum stk_offer scope_offer(const struct scope_image *image,
                                         const struct stk_head *head)
{
    if (stk_unlikely(head->version_minor == 0 || head->path_apart))
        return STK_OFFER_FILES;
    return image->trailers ? STK_OFFER_TRAILERS : STK_OFFER_HINTS;
}

/* ---- what is a request's own --------------------------------------------------------------- */

/* Whether a list has just these items. */
static inline bool scope_list_is(PyObject *list, PyObject *items)
{
    Py_ssize_t n = PyList_GET_SIZE(items);

    if (PyList_GET_SIZE(list) != n)
        return false;
    for (Py_ssize_t i = 0; i < n; i++)
        if (PyList_GET_ITEM(list, i) != PyList_GET_ITEM(items, i))
            return false;
    return true;
}

static inline bool scope_part_is(const struct scope_part *part)
{
    uint64_t version = stk_dict_version(part->dict);

    return version == part->version && version != UINT64_MAX;
}

static const enum stk_state_name scope_part_keys[SCOPE_PARTS] = {
    [SCOPE_ASGI] = STK_NAME_s_asgi,
    [SCOPE_EXTENSIONS] = STK_NAME_s_extensions,
    [SCOPE_STATE] = STK_NAME_s_state,
};

/* Sets a part anew. `source` may be NULL: an empty dict. */
static int scope_part_set(struct stk_scopes *s, struct scope_image *image,
                          const struct stk_head *head, enum scope_part_name which, PyObject *source)
{
    struct scope_part *part = &image->parts[which];
    PyObject *dict;

    if (which == SCOPE_EXTENSIONS)
        dict = stk_extensions_new(&s->extensions, scope_offer(image, head), image->inner);
    else
        dict = source ? PyDict_Copy(source) : PyDict_New();
    part->dict = NULL;
    if (!dict || PyDict_SetItem(image->dict, stk_state_name(s->st, scope_part_keys[which]), dict)) {
        Py_XDECREF(dict);
        return -1;
    }
    if (stk_dict_watch(dict)) {
        part->dict = dict;
        part->version = stk_dict_version(dict);
        part->source = source;
    }
    Py_DECREF(dict);
    return 0;
}

/* Whether the next request may have a part as it is. */
static inline bool scope_part_serves(const struct scope_part *part, PyObject *source)
{
    return part->dict && part->source == source && Py_REFCNT(part->dict) == 1 &&
           scope_part_is(part);
}

/* The address of the server, where a connection tells it, or has told it for the last request. */
static STK_COLD int scope_change_server(struct stk_scopes *s, struct scope_image *image,
                                        const struct stk_request *req)
{
    PyObject *server = stk_scope_told_server(req);

    if (!server && (PyErr_Occurred() || !image->told))
        return PyErr_Occurred() ? -1 : 0;
    image->told = server != NULL;
    return scope_put(s, image->dict, STK_NAME_s_server,
                     server ? server : stk_scope_server(req->endpoint));
}

/* Sees to it that list and dicts of a scope belong to nobody else. */
static inline int scope_own(struct stk_scopes *s, struct scope_image *image,
                            const struct stk_request *req)
{
    PyObject *sources[SCOPE_PARTS] = {
        [SCOPE_ASGI] = s->asgi,
        [SCOPE_EXTENSIONS] = s->extensions.offers[scope_offer(image, req->head)],
        [SCOPE_STATE] = s->host->apps[req->app].state,
    };

    /* The state is the application's, which may change it. */
    if (sources[SCOPE_STATE] && image->state_version != stk_dict_version(sources[SCOPE_STATE])) {
        image->parts[SCOPE_STATE].dict = NULL;
        image->state_version = stk_dict_version(sources[SCOPE_STATE]);
    }
    if (stk_unlikely(!image->inner_fresh))
        image->parts[SCOPE_EXTENSIONS].dict = NULL;
    image->inner_fresh = false;
    for (unsigned i = 0; i < SCOPE_PARTS; i++)
        if (stk_unlikely(!scope_part_serves(&image->parts[i], sources[i]) &&
                         scope_part_set(s, image, req->head, i, sources[i]) < 0))
            return -1;
    /* Every session of TLS has variables. */
    if (stk_unlikely(req->nvars > 0)) {
        PyObject *extensions =
            PyDict_GetItemWithError(image->dict, stk_state_name(s->st, STK_NAME_s_extensions));

        image->parts[SCOPE_EXTENSIONS].dict = NULL;
        if (!extensions || stk_scope_add_tls(s, extensions, req) < 0)
            return -1;
    }
    if (stk_unlikely((req->nvars > 0) | image->told) && scope_change_server(s, image, req) < 0)
        return -1;
    if (stk_unlikely(!image->list || Py_REFCNT(image->list) != 1 ||
                     !scope_list_is(image->list, image->headers))) {
        image->list = PyList_GetSlice(image->headers, 0, PyList_GET_SIZE(image->headers));
        if (scope_put(s, image->dict, STK_NAME_headers, image->list) < 0) {
            image->list = NULL;
            return -1;
        }
    }
    return 0;
}

/* Lets go what a request has put into dicts of an image that nobody holds any more. */
static inline void scope_tidy(struct stk_scopes *s, struct scope_image *image)
{
    struct scope_part *extensions = &image->parts[SCOPE_EXTENSIONS];

    if (stk_likely(extensions->dict && Py_REFCNT(extensions->dict) == 1 &&
                   scope_part_is(extensions))) {
        image->inner_fresh = stk_extensions_are_fresh(image->inner);
        if (stk_unlikely(!image->inner_fresh))
            extensions->version = 0; /* no dict has that */
    }
    for (unsigned i = 0; i < SCOPE_PARTS; i++) {
        struct scope_part *part = &image->parts[i];

        if (stk_unlikely(part->dict && !scope_part_is(part))) {
            part->dict = NULL;
            if (PyDict_SetItem(image->dict, stk_state_name(s->st, scope_part_keys[i]), Py_None) < 0)
                PyErr_Clear();
        }
    }
}

/* ---- the target ---------------------------------------------------------------------------- */

/*
 * The decoded path, with the mount point in front of it, whether the head's path has it or not.
 */
static PyObject *scope_path(const struct stk_request *req)
{
    const struct stk_head *head = req->head;
    stk_span path = stk_head_path(head);
    stk_span root = req->script_name;
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    size_t len = 0;

    if (head->target_form >= STK_TARGET_AUTHORITY)
        return PyUnicode_DecodeUTF8(path.ptr, (Py_ssize_t)path.len, "replace");
    text = stk_try_alloc(root.len + path.len + 1);
    if (!text)
        return PyErr_NoMemory();
    if (path.len == 0 && !head->path_apart) /* "http://host": RFC 9110 4.2.3 */
        path = STK_SPAN_LIT("/");
    if (head->path_escaped) {
        len = stk_uri_unescape(text + root.len, path);
    } else {
        memcpy(text + root.len, path.ptr, path.len);
        len = path.len;
    }
    if (root.len > 0 && (len < root.len || memcmp(text + root.len, root.ptr, root.len) != 0) &&
        req->script_skip == 0) {
        memcpy(text, root.ptr, root.len);
        return PyUnicode_DecodeUTF8(text, (Py_ssize_t)(root.len + len), "replace");
    }
    return PyUnicode_DecodeUTF8(text + root.len, (Py_ssize_t)len, "replace");
}

/* The path as received; for a gateway that of the target. */
static stk_span scope_raw_path(const struct stk_head *head)
{
    stk_span raw = head->path_apart ? stk_head_target(head) : stk_head_path(head);
    const char *query = head->path_apart ? memchr(raw.ptr, '?', raw.len) : NULL;

    if (query)
        raw.len = (size_t)(query - raw.ptr);
    return raw;
}

/* path, raw_path, root_path, query_string. */
static int scope_change_target(struct stk_scopes *s, struct scope_image *image,
                               const struct stk_request *req)
{
    const struct stk_head *head = req->head;
    stk_span raw = scope_raw_path(head);
    stk_span query = stk_head_query(head);
    int r = 0;

    if (image->is_apart || head->path_apart || !scope_bytes_are(image->raw_path, raw) ||
        !stk_strings_is(image->root_path, req->script_name)) {
        PyObject *bytes = scope_bytes(raw);
        PyObject *root =
            PyUnicode_DecodeUTF8(req->script_name.ptr, (Py_ssize_t)req->script_name.len, "replace");

        image->is_apart = true; /* should one of these fail */
        image->raw_path = bytes;
        image->root_path = root ? root : stk_state_name(s->st, STK_NAME_EMPTY);
        r |= scope_put(s, image->dict, STK_NAME_s_raw_path, bytes);
        r |= scope_put(s, image->dict, STK_NAME_s_root_path, root);
        r |= scope_put(s, image->dict, STK_NAME_s_path, scope_path(req));
        /* A root that is not latin-1 is not compared with the bytes that it came from. */
        if (r == 0)
            image->is_apart = head->path_apart || !PyUnicode_IS_ASCII(root);
    }
    if (!scope_bytes_are(image->query, query)) {
        PyObject *bytes = scope_bytes(query);

        image->query = bytes;
        r |= scope_put(s, image->dict, STK_NAME_s_query_string, bytes);
    }
    return r;
}

/* method and http_version. */
static int scope_change_line(struct stk_scopes *s, struct scope_image *image,
                             const struct stk_head *head)
{
    PyObject *method = stk_strings_get(s->words, stk_head_method(head));
    PyObject *version =
        stk_state_name(s->st, head->version_minor == 0 ? STK_NAME_one_zero : STK_NAME_one_one);
    int r;

    image->method = method ? method : stk_state_name(s->st, STK_NAME_EMPTY);
    r = scope_put(s, image->dict, STK_NAME_s_method, method);
    r |= scope_put(s, image->dict, STK_NAME_s_http_version, stk_py_newref(version));
    image->version_minor = head->version_minor;
    return r;
}

static PyObject *scope_new_client(struct stk_scopes *s, const struct stk_peer *peer)
{
    PyObject *addr = stk_strings_get(s->words, stk_span_make(peer->addr, peer->addr_len));
    PyObject *port = PyLong_FromLong(peer->port);
    PyObject *client = addr && port ? PyTuple_Pack(2, addr, port) : NULL;

    Py_XDECREF(addr);
    Py_XDECREF(port);
    return client;
}

/* (address, port), which the requests of a connection share. A new reference. */
static PyObject *scope_client(struct stk_scopes *s, const struct stk_peer *peer)
{
    PyObject **slot = &s->clients[peer->port % SCOPE_CLIENTS];
    PyObject *client;

    if (stk_unlikely(peer->addr_len == 0))
        return stk_py_newref(Py_None);
    if (stk_likely(
            *slot && PyLong_AsLong(PyTuple_GET_ITEM(*slot, 1)) == peer->port &&
            stk_strings_is(PyTuple_GET_ITEM(*slot, 0), stk_span_make(peer->addr, peer->addr_len))))
        return stk_py_newref(*slot);
    client = scope_new_client(s, peer);
    if (client)
        Py_XSETREF(*slot, stk_py_newref(client));
    return client;
}

static int scope_change_peer(struct stk_scopes *s, struct scope_image *image,
                             const struct stk_peer *peer)
{
    memcpy(image->addr, peer->addr, peer->addr_len);
    image->addr_len = peer->addr_len;
    image->port = peer->port;
    return scope_put(s, image->dict, STK_NAME_s_client, scope_client(s, peer));
}

/* ---- all of it ----------------------------------------------------------------------------- */

static inline int scope_update(struct stk_scopes *s, struct scope_image *image,
                               const struct stk_request *req)
{
    const struct stk_head *head = req->head;
    bool same = image->serial != 0 && image->serial == head->serial;
    bool other_host =
        req->host.len > 0 && req->host.ptr != stk_head_known_value(head, STK_HEAD_HOST).ptr;
    int r = 0;

    if (!same || stk_unlikely(other_host)) {
        image->serial = 0;
        if (!stk_strings_is(image->method, stk_head_method(head)) ||
            image->version_minor != head->version_minor)
            r |= scope_change_line(s, image, head);
        r |= scope_change_headers(s, image, req, other_host);
    }
    if (!same || head->path_apart || !stk_strings_is(image->root_path, req->script_name))
        r |= scope_change_target(s, image, req);
    if (image->port != req->peer.port || image->addr_len != req->peer.addr_len ||
        memcmp(image->addr, req->peer.addr, image->addr_len) != 0)
        r |= scope_change_peer(s, image, &req->peer);
    if (stk_likely(r == 0 && !other_host))
        image->serial = head->serial;
    return r;
}

static inline struct stk_scope_place *scope_place(struct stk_scopes *s,
                                                  const struct stk_request *req)
{
    struct stk_scope_place *place;

    if (stk_unlikely(req->endpoint->index >= s->nendpoints)) {
        PyErr_SetString(PyExc_SystemError, "scope: the endpoint is not one of those loaded for");
        return NULL;
    }
    place =
        &s->places[(req->app * s->nendpoints + req->endpoint->index) * 2 + (req->scheme.len == 5)];
    if (stk_unlikely(!place->kept.dict || Py_REFCNT(place->kept.dict) != 1) &&
        scope_make_image(s, &place->kept, req) < 0)
        return NULL;
    return place;
}

/* Lends a dict that is a copy of the kept one. 0, or -1 with an exception. */
static int scope_lend(struct stk_scopes *s, struct stk_scope_place *place, PyObject *dict,
                      const struct stk_request *req)
{
    struct scope_image image = place->kept;

    if (!stk_dict_watch(dict))
        return 0;
    image.dict = stk_py_newref(dict);
    image.headers = stk_py_newref(image.headers);
    image.list = NULL;
    for (unsigned i = 0; i < SCOPE_PARTS; i++)
        image.parts[i].dict = NULL;
    if (scope_own(s, &image, req) < 0) {
        scope_image_clear(&image);
        return -1;
    }
    if (place->lent.dict) { /* by a finalizer that has served a request */
        scope_image_clear(&image);
        return 0;
    }
    place->lent = image;
    place->lent_version = stk_dict_version(dict);
    return 0;
}

/* The dict that was lent before, if it came back as it was; NULL with or without an exception. */
static inline PyObject *scope_lend_again(struct stk_scopes *s, struct stk_scope_place *place,
                                         const struct stk_request *req)
{
    PyObject *dict = place->lent.dict;

    if (!dict || Py_REFCNT(dict) != 1 ||
        stk_unlikely(stk_dict_version(dict) != place->lent_version))
        return NULL;
    Py_INCREF(dict);
    if (stk_unlikely(scope_update(s, &place->lent, req) != 0 ||
                     scope_own(s, &place->lent, req) < 0)) {
        scope_image_clear(&place->lent);
        Py_DECREF(dict);
        return NULL;
    }
    place->lent_version = stk_dict_version(dict);
    if (stk_unlikely(place->lent_version == UINT64_MAX))
        scope_image_clear(&place->lent); /* it is the request's alone */
    return dict;
}

STK_HOT PyObject *stk_scope_build(struct stk_scopes *s, const struct stk_request *req,
                                  struct stk_scope_loan *ret_loan)
{
    struct stk_scope_place *place = scope_place(s, req);
    PyObject *dict;

    if (stk_unlikely(!place))
        return NULL;
    *ret_loan = (struct stk_scope_loan){.place = place, .whole = true};
    if (stk_likely(!req->websocket)) {
        dict = scope_lend_again(s, place, req);
        if (stk_likely(dict != NULL))
            return dict;
        if (stk_unlikely(PyErr_Occurred() != NULL))
            return NULL;
    }
    if (stk_unlikely(scope_update(s, &place->kept, req) != 0 ||
                     scope_own(s, &place->kept, req) < 0))
        return NULL;
    ret_loan->whole = false;
    dict = PyDict_Copy(place->kept.dict);
    if (dict && !place->lent.dict && !req->websocket &&
        (place->spoiled < SCOPE_SPOILED_MAX || ++place->turns % SCOPE_LEND_EVERY == 0)) {
        if (scope_lend(s, place, dict, req) < 0)
            Py_CLEAR(dict);
        ret_loan->whole = place->lent.dict == dict;
    }
    return dict;
}

void stk_scope_release(struct stk_scopes *s, const struct stk_scope_loan *loan)
{
    struct stk_scope_place *place = loan->place;
    struct scope_image *lent = &place->lent;

    if (!loan->whole) {
        scope_tidy(s, &place->kept);
    } else if (stk_likely(lent->dict != NULL)) {
        if (stk_likely(Py_REFCNT(lent->dict) == 1 &&
                       stk_dict_version(lent->dict) == place->lent_version)) {
            place->spoiled = 0;
            scope_tidy(s, lent);
            place->lent_version = stk_dict_version(lent->dict);
        } else {
            place->spoiled++;
            scope_image_clear(lent);
        }
    }
}

/* ---- life ---------------------------------------------------------------------------------- */

struct stk_scopes *stk_scopes_new(struct stk_pyhost *host, const struct stk_endpoint *endpoints,
                                  size_t nendpoints)
{
    struct stk_scopes *s = stk_new0(struct stk_scopes);

    s->host = host;
    s->st = host->st;
    s->endpoints = endpoints;
    s->nendpoints = nendpoints;
    s->nplaces = host->napps * nendpoints * 2;
    s->places = stk_new0_array(struct stk_scope_place, s->nplaces + 1);
    s->words = stk_strings_new(256);
    s->asgi = Py_BuildValue("{s:s,s:s}", "version", "3.0", "spec_version", "2.5");
    if (!s->asgi || stk_extensions_init(&s->extensions, s->st) < 0) {
        stk_scopes_free(s);
        return NULL;
    }
    return s;
}

void stk_scopes_free(struct stk_scopes *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->nplaces; i++) {
        scope_image_clear(&s->places[i].lent);
        scope_image_clear(&s->places[i].kept);
    }
    free(s->places);
    for (size_t i = 0; i < SCOPE_FIELDS; i++)
        Py_XDECREF(s->fields[i].pair);
    for (size_t i = 0; i < SCOPE_CLIENTS; i++)
        Py_XDECREF(s->clients[i]);
    stk_strings_free(s->words);
    Py_XDECREF(s->asgi);
    stk_extensions_free(&s->extensions);
    free(s);
}
