/*
 * environ: a copy of a template dict, and then only what differs.
 *
 * The template (one per endpoint and scheme) has all keys that every request has, so many that
 * CPython has sized its table for twice as many: adding the HTTP_* keys then never resizes it. It
 * is ours alone, so it keeps the target and the peer of the last request: what is the same in the
 * next one costs a comparison. Heads whose field names have been seen before have a template of
 * their own, with all fields (environ_shape.c); the others get theirs added here. Values come from
 * the caches of strings.c; the key of a field comes from a table by the field's hash, together with
 * the last value seen. Fields that every browser sends are in that table for good and their keys
 * are interned, so that the application's lookups end at the first comparison of addresses; names
 * that a client makes up are never interned, because interned strings may live for ever, and only
 * displace each other.
 */
#include "pyhost/environ_priv.h"

#include <string.h>

#include "base/mem.h"
#include "pyhost/context.h"
#include "pyhost/guest.h"
#include "wire/http1.h"
#include "wire/uri.h"

enum {
    FIELD_SLOTS = 512, /* a power of two */
    FIELD_WINDOW = 4,  /* slots in which a field may stand */
    FIELD_NAME_MAX = 32,
    FIELD_VALUE_MAX = 512,
    PORT_SLOTS = 2048, /* clients take every other port */
    PATH_STACK = 1024, /* escaped paths up to this are decoded on the stack */
    VAR_KEPT_MAX = 64, /* values of variables up to this are remembered */
};

/* A field name that has been seen. */
struct environ_field {
    uint32_t hash;
    uint16_t name_len; /* 0: free */
    bool pinned;
    PyObject *key;
    PyObject *value;           /* the last one, a str; or NULL */
    char name[FIELD_NAME_MAX]; /* as the last client wrote it */
};

struct environ_port {
    uint16_t port;
    PyObject *text;
};

struct stk_environ {
    struct stk_state *st;
    const struct stk_endpoint *endpoints;
    size_t nendpoints;
    /* [(app * nendpoints + endpoint) * 4 + is https * 2 + has a port] */
    struct stk_environ_template *templates;
    size_t ntemplates;
    PyObject *common; /* what all templates share */
    struct stk_strings *paths;
    struct stk_strings *words; /* addresses, methods, mount points */
    struct environ_port ports[PORT_SLOTS];
    struct environ_field fields[FIELD_SLOTS];
};

/* What browsers, proxies and programs send: pinned in the table. */
static const char *const environ_common_fields[] = {
    "Host",
    "User-Agent",
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Accept-Charset",
    "Authorization",
    "Cache-Control",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Cookie",
    "DNT",
    "Expect",
    "Forwarded",
    "From",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Keep-Alive",
    "Origin",
    "Pragma",
    "Priority",
    "Range",
    "Referer",
    "Sec-CH-UA",
    "Sec-CH-UA-Mobile",
    "Sec-CH-UA-Platform",
    "Sec-Fetch-Dest",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "Sec-Fetch-User",
    "Sec-GPC",
    "TE",
    "Traceparent",
    "Tracestate",
    "Transfer-Encoding",
    "Upgrade",
    "Upgrade-Insecure-Requests",
    "Via",
    "X-CSRFToken",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "X-Request-ID",
    "X-Requested-With",
};

/* ---- helpers ------------------------------------------------------------------------------- */

static inline PyObject *environ_latin1(stk_span s)
{
    return PyUnicode_DecodeLatin1(s.ptr, (Py_ssize_t)s.len, NULL);
}

/* Sets a key and takes the reference to the value, which may be NULL after an error. */
static inline int environ_put(const struct stk_environ *env, PyObject *dict,
                              enum stk_state_name name, PyObject *value)
{
    int r;

    if (stk_unlikely(!value))
        return -1;
    r = PyDict_SetItem(dict, stk_state_name(env->st, name), value);
    Py_DECREF(value);
    return r;
}

static inline int environ_set(const struct stk_environ *env, PyObject *dict,
                              enum stk_state_name name, PyObject *value)
{
    return PyDict_SetItem(dict, stk_state_name(env->st, name), value);
}

static inline int environ_put_name(const struct stk_environ *env, PyObject *dict,
                                   enum stk_state_name name, enum stk_state_name value)
{
    return environ_set(env, dict, name, stk_state_name(env->st, value));
}

/* ---- templates ----------------------------------------------------------------------------- */

/* The keys that depend on the worker only. */
static PyObject *environ_common(const struct stk_environ *env, struct stk_pyhost *host,
                                const struct stk_host_params *params)
{
    PyObject *dict = PyDict_New();
    int r = 0;

    if (!dict)
        return NULL;
    r |= environ_put_name(env, dict, STK_NAME_REQUEST_METHOD, STK_NAME_GET);
    r |= environ_put_name(env, dict, STK_NAME_SCRIPT_NAME, STK_NAME_EMPTY);
    r |= environ_put_name(env, dict, STK_NAME_PATH_INFO, STK_NAME_EMPTY);
    r |= environ_put_name(env, dict, STK_NAME_QUERY_STRING, STK_NAME_EMPTY);
    r |= environ_put_name(env, dict, STK_NAME_REQUEST_URI, STK_NAME_EMPTY);
    r |= environ_put_name(env, dict, STK_NAME_RAW_URI, STK_NAME_EMPTY);
    r |= environ_put_name(env, dict, STK_NAME_SERVER_PROTOCOL, STK_NAME_HTTP_1_1);
    r |= environ_put_name(env, dict, STK_NAME_REMOTE_ADDR, STK_NAME_EMPTY);
    r |= environ_put(env, dict, STK_NAME_SERVER_SOFTWARE,
                     PyUnicode_FromString("stoker/" STK_VERSION));
    r |= environ_put(env, dict, STK_NAME_GATEWAY_INTERFACE, PyUnicode_FromString("CGI/1.1"));
    r |= environ_put(env, dict, STK_NAME_stoker_version, PyUnicode_FromString(STK_VERSION));
    r |= environ_put(env, dict, STK_NAME_wsgi_version, Py_BuildValue("(ii)", 1, 0));
    r |= environ_put(env, dict, STK_NAME_wsgi_input, stk_py_newref(host->empty_input));
    r |= environ_put(env, dict, STK_NAME_wsgi_errors, stk_py_newref(host->errors));
    r |= environ_put(env, dict, STK_NAME_wsgi_file_wrapper,
                     stk_py_newref((PyObject *)env->st->file_wrapper_type));
    r |= environ_put(env, dict, STK_NAME_wsgi_multithread,
                     PyBool_FromLong(params->threads > 1 || params->gevent > 1));
    r |= environ_put(env, dict, STK_NAME_wsgi_multiprocess, PyBool_FromLong(params->workers > 1));
    r |= environ_put(env, dict, STK_NAME_wsgi_run_once, PyBool_FromLong(0));
    r |= environ_put(env, dict, STK_NAME_wsgi_input_terminated, PyBool_FromLong(1));
    r |= stk_context_add(host, dict);
    r |= stk_guest_add(host, dict);
    if (params->document_root)
        r |= environ_put(env, dict, STK_NAME_DOCUMENT_ROOT,
                         PyUnicode_DecodeFSDefault(params->document_root));
    if (r != 0)
        Py_CLEAR(dict);
    return dict;
}

/* Adds what depends on the endpoint and the scheme: 22 keys and more, see the top of the file. */
static STK_COLD int environ_make_template(struct stk_environ *env, const struct stk_request *req,
                                          struct stk_environ_template *t)
{
    const struct stk_endpoint *ep = req->endpoint;
    PyObject *dict = PyDict_Copy(env->common);
    PyObject *empty = stk_state_name(env->st, STK_NAME_EMPTY);
    int r = 0;

    if (!dict)
        return -1;
    r |= environ_put(env, dict, STK_NAME_SERVER_NAME, environ_latin1(ep->server_name));
    r |= environ_put(env, dict, STK_NAME_SERVER_PORT, environ_latin1(ep->server_port));
    r |= environ_put(env, dict, STK_NAME_REQUEST_SCHEME, environ_latin1(req->scheme));
    r |= environ_put(env, dict, STK_NAME_wsgi_url_scheme, environ_latin1(req->scheme));
    if (stk_span_eq(req->scheme, STK_SPAN_LIT("https")))
        r |= environ_put(env, dict, STK_NAME_HTTPS, PyUnicode_FromString("on"));
    if (req->peer.port)
        r |= environ_put_name(env, dict, STK_NAME_REMOTE_PORT, STK_NAME_EMPTY);
    /* The garbage collector may have run, and in it another thread, which has made one. */
    if (r != 0 || t->base.dict) {
        Py_DECREF(dict);
        return r != 0 ? -1 : 0;
    }
    t->shapes = stk_new0_array(struct stk_environ_shape, STK_ENVIRON_SHAPES);
    t->base = (struct stk_environ_image){
        .dict = dict,
        .method = stk_state_name(env->st, STK_NAME_GET),
        .script_name = empty,
        .uri = empty,
        .query = empty,
        .addr = empty,
        .version_minor = 1,
    };
    return 0;
}

static inline struct stk_environ_template *environ_template(struct stk_environ *env,
                                                            const struct stk_request *req)
{
    struct stk_environ_template *t;

    if (stk_unlikely(req->endpoint->index >= env->nendpoints)) {
        PyErr_SetString(PyExc_SystemError, "environ: the endpoint is not one of those loaded for");
        return NULL;
    }
    t = &env->templates[(req->app * env->nendpoints + req->endpoint->index) * 4 +
                        (req->scheme.len == 5) * 2u + (req->peer.port != 0)];
    if (stk_unlikely(!t->base.dict) && environ_make_template(env, req, t) < 0)
        return NULL;
    return t;
}

/* ---- fields -------------------------------------------------------------------------------- */

/*
 * The key of a field name: HTTP_ and the name in upper case, or one of the two names of CGI without
 * prefix. NULL without exception: a field that must not reach the application, because a client
 * could set a variable that means something else by it (HTTP_PROXY, HTTP_CONTENT_LENGTH).
 */
static PyObject *environ_make_key(const struct stk_environ *env, stk_span name)
{
    char stack[256];
    STK_CLEANUP(stk_mem_freep) char *heap = NULL;
    char *text = stack;
    stk_span cgi;

    if (name.len + 5 > sizeof(stack)) {
        heap = stk_try_alloc(name.len + 5);
        if (!heap)
            return PyErr_NoMemory();
        text = heap;
    }
    memcpy(text, "HTTP_", 5);
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];

        if (c >= 'a' && c <= 'z')
            c = (char)(c - 'a' + 'A');
        text[5 + i] = c == '-' ? '_' : c;
    }
    cgi = stk_span_make(text + 5, name.len);
    if (stk_span_eq(cgi, STK_SPAN_LIT("PROXY")))
        return NULL;
    if (stk_span_eq(cgi, STK_SPAN_LIT("CONTENT_TYPE")) ||
        stk_span_eq(cgi, STK_SPAN_LIT("CONTENT_LENGTH"))) {
        if (name.ptr[7] != '-')
            return NULL;
        return stk_py_newref(stk_state_name(env->st, name.len == 12 ? STK_NAME_CONTENT_TYPE
                                                                    : STK_NAME_CONTENT_LENGTH));
    }
    return environ_latin1(stk_span_make(text, name.len + 5));
}

static bool environ_field_is(struct environ_field *e, uint32_t hash, stk_span name)
{
    if (e->hash != hash || e->name_len != name.len)
        return false;
    if (stk_likely(memcmp(e->name, name.ptr, name.len) == 0))
        return true;
    if (strncasecmp(e->name, name.ptr, name.len) != 0)
        return false;
    memcpy(e->name, name.ptr, name.len); /* the next one of this client is found at once */
    return true;
}

/* The slot for a new name: a free one, else one that is not pinned, else NULL. */
static struct environ_field *environ_field_victim(struct stk_environ *env, uint32_t hash)
{
    struct environ_field *victim = NULL;
    uint32_t turn = hash >> 16;

    for (uint32_t k = 0; k < FIELD_WINDOW; k++) {
        struct environ_field *e = &env->fields[(hash + ((k + turn) % FIELD_WINDOW)) % FIELD_SLOTS];

        if (e->name_len == 0)
            return e;
        if (!e->pinned && !victim)
            victim = e;
    }
    return victim;
}

/* Puts a name into the table. NULL, without exception, where there is no room for it. */
static struct environ_field *environ_field_add(struct stk_environ *env, uint32_t hash,
                                               stk_span name, PyObject *key)
{
    struct environ_field *e;

    if (name.len > FIELD_NAME_MAX)
        return NULL;
    e = environ_field_victim(env, hash);
    if (!e)
        return NULL;
    e->hash = hash;
    e->name_len = (uint16_t)name.len;
    memcpy(e->name, name.ptr, name.len);
    Py_XSETREF(e->key, stk_py_newref(key));
    Py_CLEAR(e->value);
    return e;
}

static inline struct environ_field *environ_field_find(struct stk_environ *env, uint32_t hash,
                                                       stk_span name)
{
    for (uint32_t k = 0; k < FIELD_WINDOW; k++) {
        struct environ_field *e = &env->fields[(hash + k) % FIELD_SLOTS];

        if (environ_field_is(e, hash, name))
            return e;
    }
    return NULL;
}

PyObject *stk_environ_key(struct stk_environ *env, uint32_t hash, stk_span name)
{
    struct environ_field *e = environ_field_find(env, hash, name);
    PyObject *key;

    if (stk_likely(e != NULL))
        return stk_py_newref(e->key);
    key = environ_make_key(env, name);
    if (key)
        environ_field_add(env, hash, name, key);
    return key;
}

/* The value of a field as str, borrowed from the table or, in *ret_owned, new. */
static inline PyObject *environ_field_value(struct environ_field *e, stk_span value,
                                            PyObject **ret_owned)
{
    PyObject *str;

    if (stk_likely(e->value && stk_strings_is(e->value, value)))
        return e->value;
    str = environ_latin1(value);
    if (stk_unlikely(!str))
        return NULL;
    if (value.len <= FIELD_VALUE_MAX)
        Py_XSETREF(e->value, stk_py_newref(str));
    *ret_owned = str;
    return str;
}

/* A field that is repeated becomes one value (RFC 9110 5.3; cookies by RFC 6265 5.4). */
static STK_COLD int environ_join(const struct stk_environ *env, PyObject *dict, PyObject *key,
                                 PyObject *value)
{
    PyObject *old = PyDict_GetItemWithError(dict, key);
    PyObject *sep;
    PyObject *joined;
    int r;

    if (!old)
        return -1;
    sep = stk_state_name(env->st,
                         PyUnicode_Compare(key, stk_state_name(env->st, STK_NAME_HTTP_COOKIE)) == 0
                             ? STK_NAME_SEMICOLON
                             : STK_NAME_COMMA);
    joined = PyUnicode_FromFormat("%U%U%U", old, sep, value);
    if (!joined)
        return -1;
    r = PyDict_SetItem(dict, key, joined);
    Py_DECREF(joined);
    return r;
}

static inline int environ_set_field(const struct stk_environ *env, PyObject *dict, PyObject *key,
                                    PyObject *value)
{
    Py_ssize_t n = PyDict_GET_SIZE(dict);

    if (stk_unlikely(!PyDict_SetDefault(dict, key, value)))
        return -1;
    if (stk_unlikely(PyDict_GET_SIZE(dict) == n))
        return environ_join(env, dict, key, value);
    return 0;
}

/* A field whose name is not in the table. */
static STK_COLD int environ_add_unknown(struct stk_environ *env, PyObject *dict,
                                        const struct stk_head *head, const struct stk_head_field *f)
{
    stk_span name = stk_head_field_name(head, f);
    PyObject *key = stk_environ_key(env, f->hash, name);
    PyObject *value;
    int r;

    if (!key)
        return PyErr_Occurred() ? -1 : 0;
    value = environ_latin1(stk_head_field_value(head, f));
    r = value ? environ_set_field(env, dict, key, value) : -1;
    Py_XDECREF(value);
    Py_DECREF(key);
    return r;
}

static int environ_add_fields(struct stk_environ *env, PyObject *dict, const struct stk_head *head)
{
    for (unsigned i = 0; i < head->nfields; i++) {
        const struct stk_head_field *f = &head->fields[i];
        struct environ_field *e = environ_field_find(env, f->hash, stk_head_field_name(head, f));
        PyObject *owned = NULL;
        PyObject *value;
        int r;

        if (stk_unlikely(!e)) {
            if (environ_add_unknown(env, dict, head, f) < 0)
                return -1;
            continue;
        }
        value = environ_field_value(e, stk_head_field_value(head, f), &owned);
        r = value ? environ_set_field(env, dict, e->key, value) : -1;
        Py_XDECREF(owned);
        if (stk_unlikely(r < 0))
            return -1;
    }
    return 0;
}

/* ---- the target ---------------------------------------------------------------------------- */

/*
 * PATH_INFO: the decoded path below the mount point. For "OPTIONS *" it is empty, since the request
 * is not about a path: PEP 3333 (and wsgiref.validate) let PATH_INFO be empty or begin with "/",
 * and REQUEST_URI tells the application.
 */
static PyObject *environ_path_info(struct stk_environ *env, const struct stk_request *req)
{
    const struct stk_head *head = req->head;
    stk_span path = stk_head_path(head);
    char stack[PATH_STACK];
    STK_CLEANUP(stk_mem_freep) char *heap = NULL;

    if (stk_unlikely(head->target_form >= STK_TARGET_AUTHORITY))
        return stk_py_newref(stk_state_name(env->st, STK_NAME_EMPTY));
    if (stk_unlikely(head->path_escaped)) {
        char *out = stack;

        if (path.len > sizeof(stack)) {
            heap = stk_try_alloc(path.len);
            if (!heap)
                return PyErr_NoMemory();
            out = heap;
        }
        path.len = stk_uri_unescape(out, path);
        path.ptr = out;
    }
    if (stk_unlikely(path.len == 0 && !head->path_apart)) /* "http://host": RFC 9110 4.2.3 */
        path = STK_SPAN_LIT("/");
    if (stk_unlikely(req->script_skip > 0)) {
        size_t skip = req->script_skip < path.len ? req->script_skip : path.len;

        path.ptr += skip;
        path.len -= skip;
    } else if (stk_unlikely(req->script_name.len > 0) && path.len >= req->script_name.len &&
               memcmp(path.ptr, req->script_name.ptr, req->script_name.len) == 0) {
        path.ptr += req->script_name.len;
        path.len -= req->script_name.len;
    }
    return stk_strings_get(env->paths, path);
}

/* Whether what a front end says of the path of a target is what the dict has of it. */
static bool environ_is_same_apart(const struct stk_environ_image *t, const struct stk_request *req)
{
    const struct stk_head *head = req->head;
    stk_span path = stk_head_path(head);

    if (!t->path || head->path_escaped || req->script_skip > 0 || path.len < req->script_name.len ||
        memcmp(path.ptr, req->script_name.ptr, req->script_name.len) != 0)
        return false;
    path.ptr += req->script_name.len;
    path.len -= req->script_name.len;
    return stk_strings_is(t->path, path) && stk_strings_is(t->query, stk_head_query(head));
}

/* SCRIPT_NAME, PATH_INFO, QUERY_STRING, REQUEST_URI, RAW_URI. */
static STK_COLD int environ_change_target(struct stk_environ *env, struct stk_environ_image *t,
                                          const struct stk_request *req)
{
    const struct stk_head *head = req->head;
    PyObject *path = environ_path_info(env, req);
    PyObject *script = stk_strings_get(env->words, req->script_name);
    PyObject *query = stk_strings_is(t->query, stk_head_query(head))
                          ? stk_py_newref(t->query)
                          : environ_latin1(stk_head_query(head));
    PyObject *uri = NULL;
    int r = -1;

    if (path && stk_strings_is(path, stk_head_target(head)))
        uri = stk_py_newref(path);
    else if (path)
        uri = stk_strings_get(env->paths, stk_head_target(head));
    if (script && query && uri) {
        bool same_script = script == t->script_name;
        bool same_query = query == t->query;

        /* Should one of these fail (no memory), the next request sets all of them again: no target
         * has this text. */
        t->uri = t->script_name = t->query = stk_state_name(env->st, STK_NAME_COMMA);
        t->path = NULL;
        r = environ_set(env, t->dict, STK_NAME_PATH_INFO, path);
        if (!same_script)
            r |= environ_set(env, t->dict, STK_NAME_SCRIPT_NAME, script);
        if (!same_query)
            r |= environ_set(env, t->dict, STK_NAME_QUERY_STRING, query);
        r |= environ_set(env, t->dict, STK_NAME_RAW_URI, uri);
        r |= environ_set(env, t->dict, STK_NAME_REQUEST_URI, uri);
    }
    if (r == 0) {
        t->script_name = script;
        t->query = query;
        t->uri = uri;
        if (head->path_apart) /* the same target may come with another path */
            t->path = path;
    }
    Py_XDECREF(path);
    Py_XDECREF(script);
    Py_XDECREF(query);
    Py_XDECREF(uri);
    return r;
}

/* REQUEST_METHOD and SERVER_PROTOCOL. */
static STK_COLD int environ_change_line(struct stk_environ *env, struct stk_environ_image *t,
                                        const struct stk_head *head)
{
    PyObject *method = stk_strings_get(env->words, stk_head_method(head));
    PyObject *protocol =
        stk_state_name(env->st, head->version_minor == 0 ? STK_NAME_HTTP_1_0 : STK_NAME_HTTP_1_1);
    int r = method ? environ_set(env, t->dict, STK_NAME_REQUEST_METHOD, method) : -1;

    if (r == 0) {
        t->method = method;
        r = environ_set(env, t->dict, STK_NAME_SERVER_PROTOCOL, protocol);
    }
    if (r == 0)
        t->version_minor = head->version_minor;
    Py_XDECREF(method);
    return r;
}

/* ---- the peer ------------------------------------------------------------------------------ */

static int environ_change_addr(struct stk_environ *env, struct stk_environ_image *t, stk_span addr)
{
    PyObject *text = stk_strings_get(env->words, addr);
    int r = text ? environ_set(env, t->dict, STK_NAME_REMOTE_ADDR, text) : -1;

    if (r == 0)
        t->addr = text;
    Py_XDECREF(text);
    return r;
}

static PyObject *environ_port_text(uint16_t port)
{
    char text[5];
    size_t n = sizeof(text);

    do
        text[--n] = (char)('0' + port % 10);
    while ((port /= 10) != 0);
    return environ_latin1(stk_span_make(text + n, sizeof(text) - n));
}

/*
 * REMOTE_PORT is absent where there is none (a unix socket, a proxy that did not tell). Such peers
 * have a template of their own: no key is ever taken out of one, so that copying stays a copy of
 * the table, during which no other thread can run.
 */
static int environ_change_port(struct stk_environ *env, struct stk_environ_image *t, uint16_t port)
{
    struct environ_port *slot = &env->ports[(port >> 1) % PORT_SLOTS];

    if (stk_unlikely(slot->port != port)) {
        PyObject *text = environ_port_text(port);

        if (!text)
            return -1;
        Py_XSETREF(slot->text, text);
        slot->port = port;
    }
    if (environ_set(env, t->dict, STK_NAME_REMOTE_PORT, slot->text) < 0)
        return -1;
    t->port = port;
    return 0;
}

/* ---- all of it ----------------------------------------------------------------------------- */

static inline bool environ_is_same_target(const struct stk_environ_image *image,
                                          const struct stk_request *req)
{
    if (!stk_strings_is(image->uri, stk_head_target(req->head)))
        return false;
    return stk_likely(!req->head->path_apart) ? !image->path : environ_is_same_apart(image, req);
}

int stk_environ_update(struct stk_environ *env, struct stk_environ_image *image,
                       const struct stk_request *req)
{
    const struct stk_head *head = req->head;
    stk_span addr = stk_span_make(req->peer.addr, req->peer.addr_len);
    bool same = image->serial != 0 && image->serial == head->serial;
    int r = 0;

    if (!(same || environ_is_same_target(image, req)) ||
        !stk_strings_is(image->script_name, req->script_name))
        r |= environ_change_target(env, image, req);
    if (stk_unlikely(!same && (!stk_strings_is(image->method, stk_head_method(head)) ||
                               image->version_minor != head->version_minor)))
        r |= environ_change_line(env, image, head);
    if (!stk_strings_is(image->addr, addr))
        r |= environ_change_addr(env, image, addr);
    if (image->port != req->peer.port)
        r |= environ_change_port(env, image, req->peer.port);
    if (stk_unlikely(r != 0))
        image->serial = 0;
    return r;
}

PyObject *stk_environ_var_key(struct stk_environ *env, stk_span name)
{
    return stk_strings_get(env->words, name);
}

/* A variable of the connection's protocol. */
static int environ_add_var(struct stk_environ *env, PyObject *dict, const struct stk_var *var)
{
    PyObject *name = stk_environ_var_key(env, var->name);
    PyObject *value = var->value.len <= VAR_KEPT_MAX ? stk_strings_get(env->words, var->value)
                                                     : environ_latin1(var->value);
    int r = name && value ? PyDict_SetItem(dict, name, value) : -1;

    Py_XDECREF(name);
    Py_XDECREF(value);
    return r;
}

/* All fields and variables into a copy of the template. */
static PyObject *environ_build_whole(struct stk_environ *env, struct stk_environ_template *t,
                                     const struct stk_request *req)
{
    PyObject *dict;

    if (stk_unlikely(stk_environ_update(env, &t->base, req) != 0))
        return NULL;
    dict = PyDict_Copy(t->base.dict);
    if (dict && stk_unlikely(environ_add_fields(env, dict, req->head) != 0))
        Py_CLEAR(dict);
    for (size_t i = 0; dict && i < req->nvars; i++)
        if (stk_unlikely(environ_add_var(env, dict, &req->vars[i]) < 0))
            Py_CLEAR(dict);
    return dict;
}

/* What few requests have: all that is in no template. */
static int environ_add_rest(struct stk_environ *env, PyObject *dict, const struct stk_request *req,
                            PyObject *input, bool other_host)
{
    int r = 0;

    if (other_host)
        r = environ_put(env, dict, STK_NAME_HTTP_HOST, environ_latin1(req->host));
    if (input && r == 0)
        r = environ_set(env, dict, STK_NAME_wsgi_input, input);
    /* A body that has been received has a length, however it came (RFC 3875 4.1.2). */
    if (req->head->chunked && req->body_length >= 0 && r == 0)
        r = environ_put(env, dict, STK_NAME_CONTENT_LENGTH,
                        PyUnicode_FromFormat("%lld", (long long)req->body_length));
    return r;
}

STK_HOT PyObject *stk_environ_build(struct stk_environ *env, const struct stk_request *req,
                                    PyObject *input, struct stk_environ_shape **ret_lender)
{
    struct stk_environ_template *t = environ_template(env, req);
    const struct stk_head *head = req->head;
    bool other_host;
    bool whole;
    PyObject *dict;

    if (stk_unlikely(!t))
        return NULL;
    /* A trusted proxy's word, or the authority of an absolute target (RFC 9112 3.2.2). */
    other_host =
        req->host.len > 0 && req->host.ptr != stk_head_known_value(head, STK_HEAD_HOST).ptr;
    whole = !other_host && !input && !head->chunked;
    dict = stk_environ_shape_build(env, t, req, whole, ret_lender);
    if (stk_unlikely(!dict) && !PyErr_Occurred())
        dict = environ_build_whole(env, t, req);
    if (stk_unlikely(!whole) && dict && environ_add_rest(env, dict, req, input, other_host) != 0)
        Py_CLEAR(dict);
    return dict;
}

/* ---- life ---------------------------------------------------------------------------------- */

static int environ_pin_fields(struct stk_environ *env)
{
    for (size_t i = 0; i < STK_ARRAY_LEN(environ_common_fields); i++) {
        stk_span name = stk_span_str(environ_common_fields[i]);
        PyObject *key = environ_make_key(env, name);
        struct environ_field *e;

        if (!key)
            return -1;
        PyUnicode_InternInPlace(&key);
        e = environ_field_add(env, stk_http1_field_hash(name), name, key);
        if (e)
            e->pinned = true;
        Py_DECREF(key);
    }
    return 0;
}

struct stk_environ *stk_environ_new(struct stk_pyhost *host, const struct stk_host_params *params)
{
    struct stk_environ *env = stk_new0(struct stk_environ);

    env->st = host->st;
    env->endpoints = params->endpoints;
    env->nendpoints = params->nendpoints;
    env->ntemplates = params->nendpoints * params->ntargets * 4;
    env->templates = stk_new0_array(struct stk_environ_template, env->ntemplates + 1);
    env->paths = stk_strings_new(256);
    env->words = stk_strings_new(256);
    env->common = environ_common(env, host, params);
    if (!env->common || environ_pin_fields(env) < 0) {
        stk_environ_free(env);
        return NULL;
    }
    return env;
}

void stk_environ_free(struct stk_environ *env)
{
    if (!env)
        return;
    for (size_t i = 0; i < env->ntemplates; i++) {
        stk_environ_shapes_free(&env->templates[i]);
        Py_XDECREF(env->templates[i].base.dict);
    }
    free(env->templates);
    Py_XDECREF(env->common);
    stk_strings_free(env->paths);
    stk_strings_free(env->words);
    for (size_t i = 0; i < PORT_SLOTS; i++)
        Py_XDECREF(env->ports[i].text);
    for (size_t i = 0; i < FIELD_SLOTS; i++) {
        Py_XDECREF(env->fields[i].key);
        Py_XDECREF(env->fields[i].value);
    }
    free(env);
}
