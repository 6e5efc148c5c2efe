/*
 * The application is named as "module", "module:callable", "module:factory(arguments)" or
 * "path/to/file.py", the last with the same endings. A file is imported by the name that it has in
 * its package, from the package's parent directory, so that its own imports, pickles and child
 * processes find it again.
 *
 * Whatever goes wrong is logged here in two parts: what happened (the traceback, which has no
 * frames of ours, because we call the import machinery from C), and one line with the remedy
 * (load_hint.c). SystemExit and KeyboardInterrupt are treated as any other exception.
 */
#include "pyhost/loader.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "pyhost/asgi_priv.h"
#include "pyhost/environ.h"
#include "pyhost/fork.h"
#include "pyhost/green.h"
#include "pyhost/head_cache.h"
#include "pyhost/load_hint.h"
#include "pyhost/report.h"
#include "pyhost/sources.h"
#include "pyhost/stacks.h"

/* Attributes that are tried when none is named; the last ones are called without arguments. */
static const char *const loader_names[] = {"application", "app"};
static const char *const loader_factories[] = {"create_app", "make_app"};

/* ---- sys.path ------------------------------------------------------------------------------ */

/* Makes a directory the first of sys.path. 0 or -1. */
static int loader_push_path(const char *dir)
{
    PyObject *path = PySys_GetObject("path");
    PyObject *text = PyUnicode_DecodeFSDefault(dir);
    Py_ssize_t at;
    int r = -1;

    if (text && path && PyList_Check(path)) {
        at = PySequence_Contains(path, text) > 0 ? PySequence_Index(path, text) : -1;
        if (at >= 0)
            PySequence_DelItem(path, at);
        r = PyList_Insert(path, 0, text);
    }
    Py_XDECREF(text);
    return r;
}

/* The current directory, and before it those of the configuration in their order. */
static int loader_set_path(const struct stk_host_params *params)
{
    char cwd[PATH_MAX];
    size_t n = 0;

    if (getcwd(cwd, sizeof(cwd)) && loader_push_path(cwd) < 0)
        return -1;
    while (params->pythonpath && params->pythonpath[n])
        n++;
    while (n > 0) {
        char *dir = realpath(params->pythonpath[--n], NULL);
        int r = loader_push_path(dir ? dir : params->pythonpath[n]);

        free(dir);
        if (r < 0)
            return -1;
    }
    return 0;
}

/* ---- files --------------------------------------------------------------------------------- */

/* Whether the word before ":" is a file rather than a module. */
static bool loader_is_file(const char *name)
{
    size_t len = strlen(name);

    return strchr(name, '/') || (len > 3 && strcmp(name + len - 3, ".py") == 0);
}

/*
 * Splits an absolute path into the directory from which it is imported and its module name: up to
 * the first directory that is not a package. Both are malloc'ed.
 */
static void loader_split_file(const char *path, char **ret_dir, char **ret_module)
{
    char *dir = stk_mem_strdup(path);
    char *slash = strrchr(dir, '/');
    char *module = stk_mem_strndup(slash + 1, strlen(slash + 1) - 3);

    *slash = '\0';
    for (;;) {
        char *init = stk_mem_printf("%s/__init__.py", dir);
        bool is_package = access(init, F_OK) == 0;
        char *longer;

        free(init);
        slash = strrchr(dir, '/');
        if (!is_package || !slash)
            break;
        longer = strcmp(module, "__init__") == 0 ? stk_mem_strdup(slash + 1)
                                                 : stk_mem_printf("%s.%s", slash + 1, module);
        free(module);
        module = longer;
        *slash = '\0';
    }
    *ret_dir = dir;
    *ret_module = module;
}

/* Whether a loaded module comes from this file. */
static bool loader_is_from(PyObject *module, const char *path)
{
    PyObject *file = PyObject_GetAttrString(module, "__file__");
    PyObject *bytes = file && PyUnicode_Check(file) ? PyUnicode_EncodeFSDefault(file) : NULL;
    char *real = bytes ? realpath(PyBytes_AS_STRING(bytes), NULL) : NULL;
    bool same = real && strcmp(real, path) == 0;

    free(real);
    Py_XDECREF(bytes);
    Py_XDECREF(file);
    PyErr_Clear();
    return same;
}

/*
 * Imports a file whose name belongs to another module already (a file called "time.py"), or is
 * none ("my.app.py"), under a name of its own.
 */
static PyObject *loader_import_location(const char *path, const char *name)
{
    PyObject *util = PyImport_ImportModule("importlib.util");
    PyObject *unique = PyUnicode_FromFormat("stoker_file_%s", name);
    PyObject *spec = NULL;
    PyObject *module = NULL;
    PyObject *loader = NULL;
    PyObject *done = NULL;

    if (util && unique)
        spec = PyObject_CallMethod(util, "spec_from_file_location", "Os", unique, path);
    if (spec && spec != Py_None)
        module = PyObject_CallMethod(util, "module_from_spec", "O", spec);
    if (module && PyDict_SetItem(PyImport_GetModuleDict(), unique, module) == 0)
        loader = PyObject_GetAttrString(spec, "loader");
    if (loader)
        done = PyObject_CallMethod(loader, "exec_module", "O", module);
    if (!done)
        Py_CLEAR(module);
    Py_XDECREF(done);
    Py_XDECREF(loader);
    Py_XDECREF(spec);
    Py_XDECREF(unique);
    Py_XDECREF(util);
    return module;
}

/* Whether a module of this name would come from elsewhere than `path`. */
static bool loader_name_is_taken(const char *name, const char *path)
{
    PyObject *key = PyUnicode_FromString(name);
    PyObject *loaded = key ? PyDict_GetItemWithError(PyImport_GetModuleDict(), key) : NULL;
    bool taken = loaded && loaded != Py_None && !loader_is_from(loaded, path);
    PyObject *builtin = PySys_GetObject("builtin_module_names");

    if (!taken && key && builtin)
        taken = PySequence_Contains(builtin, key) > 0;
    Py_XDECREF(key);
    PyErr_Clear();
    return taken;
}

static PyObject *loader_import_file(struct stk_pyhost *host, const char *name)
{
    STK_CLEANUP(stk_mem_freep) char *path = realpath(name, NULL);
    STK_CLEANUP(stk_mem_freep) char *dir = NULL;
    STK_CLEANUP(stk_mem_freep) char *module = NULL;
    size_t len = path ? strlen(path) : 0;

    if (!path || access(path, R_OK) < 0) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, name);
        return NULL;
    }
    if (len <= 3 || strcmp(path + len - 3, ".py") != 0) {
        PyErr_Format(PyExc_ValueError, "'%s' is not a Python file (.py)", name);
        return NULL;
    }
    stk_sources_note(host, path);
    loader_split_file(path, &dir, &module);
    if (loader_push_path(dir) < 0)
        return NULL;
    if (loader_name_is_taken(module, path) || strchr(strrchr(path, '/') + 1, '.') != path + len - 3)
        return loader_import_location(path, module);
    return PyImport_ImportModule(module);
}

/* ---- the callable -------------------------------------------------------------------------- */

/* obj.a.b for "a.b". */
static PyObject *loader_get_dotted(PyObject *obj, const char *dotted)
{
    STK_CLEANUP(stk_mem_freep) char *copy = stk_mem_strdup(dotted);
    char *rest = NULL;
    PyObject *value = stk_py_newref(obj);

    for (char *name = strtok_r(copy, ".", &rest); value && name; name = strtok_r(NULL, ".", &rest))
        Py_SETREF(value, PyObject_GetAttrString(value, name));
    return value;
}

/* The literal arguments of a parsed call: a tuple and a dict. 0 or -1. */
static int loader_literals(PyObject *ast, PyObject *call, PyObject **ret_args,
                           PyObject **ret_kwargs)
{
    PyObject *nodes = PyObject_GetAttrString(call, "args");
    PyObject *keywords = PyObject_GetAttrString(call, "keywords");
    PyObject *values = PyList_New(0);
    PyObject *kwargs = PyDict_New();
    int r = nodes && keywords && values && kwargs ? 0 : -1;

    for (Py_ssize_t i = 0; r == 0 && i < PyList_GET_SIZE(nodes); i++) {
        PyObject *value = PyObject_CallMethod(ast, "literal_eval", "O", PyList_GET_ITEM(nodes, i));

        r = value ? PyList_Append(values, value) : -1;
        Py_XDECREF(value);
    }
    for (Py_ssize_t i = 0; r == 0 && i < PyList_GET_SIZE(keywords); i++) {
        PyObject *keyword = PyList_GET_ITEM(keywords, i);
        PyObject *name = PyObject_GetAttrString(keyword, "arg");
        PyObject *node = PyObject_GetAttrString(keyword, "value");
        PyObject *value = node ? PyObject_CallMethod(ast, "literal_eval", "O", node) : NULL;

        r = name && value ? PyDict_SetItem(kwargs, name, value) : -1;
        Py_XDECREF(value);
        Py_XDECREF(node);
        Py_XDECREF(name);
    }
    if (r == 0) {
        *ret_args = PyList_AsTuple(values);
        r = *ret_args ? 0 : -1;
    }
    if (r == 0)
        *ret_kwargs = stk_py_newref(kwargs);
    Py_XDECREF(nodes);
    Py_XDECREF(keywords);
    Py_XDECREF(values);
    Py_XDECREF(kwargs);
    return r;
}

/* Calls a factory with the arguments between the parentheses of "(1, name='x')". */
static PyObject *loader_call_factory(PyObject *factory, const char *arguments)
{
    PyObject *ast = PyImport_ImportModule("ast");
    PyObject *source = PyUnicode_FromFormat("f%s", arguments);
    PyObject *tree = NULL;
    PyObject *call = NULL;
    PyObject *args = NULL;
    PyObject *kwargs = NULL;
    PyObject *app = NULL;

    if (ast && source)
        tree = PyObject_CallMethod(ast, "parse", "Oss", source, "<application>", "eval");
    if (tree)
        call = PyObject_GetAttrString(tree, "body");
    if (call && strcmp(Py_TYPE(call)->tp_name, "Call") != 0 &&
        strcmp(Py_TYPE(call)->tp_name, "ast.Call") != 0)
        PyErr_Format(PyExc_ValueError, "'%s' is not a list of arguments", arguments);
    else if (call && loader_literals(ast, call, &args, &kwargs) == 0)
        app = PyObject_Call(factory, args, kwargs);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(call);
    Py_XDECREF(tree);
    Py_XDECREF(source);
    Py_XDECREF(ast);
    return app;
}

/* Tries the names that an application usually has. NULL: none (without exception), or an error. */
static PyObject *loader_find_default(PyObject *module)
{
    for (size_t i = 0; i < STK_ARRAY_LEN(loader_names); i++) {
        PyObject *app = PyObject_GetAttrString(module, loader_names[i]);

        if (app && PyCallable_Check(app))
            return app;
        Py_XDECREF(app);
        PyErr_Clear();
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(loader_factories); i++) {
        PyObject *factory = PyObject_GetAttrString(module, loader_factories[i]);
        PyObject *app;

        if (factory && PyCallable_Check(factory)) {
            app = PyObject_CallNoArgs(factory);
            Py_DECREF(factory);
            return app;
        }
        Py_XDECREF(factory);
        PyErr_Clear();
    }
    return NULL;
}

/* ---- load ---------------------------------------------------------------------------------- */

/* The parts of "module:attribute(arguments)", malloc'ed; the last two may be NULL. */
struct loader_target {
    char *module;
    char *attribute;
    char *arguments;
};

static void loader_target_deinit(struct loader_target *target)
{
    free(target->module);
    free(target->attribute);
    free(target->arguments);
}

static struct loader_target loader_parse(const char *text)
{
    const char *colon = strchr(text, ':');
    struct loader_target target = {NULL, NULL, NULL};
    const char *paren;

    if (!colon) {
        target.module = stk_mem_strdup(text);
        return target;
    }
    target.module = stk_mem_strndup(text, (size_t)(colon - text));
    paren = strchr(colon + 1, '(');
    if (paren) {
        target.attribute = stk_mem_strndup(colon + 1, (size_t)(paren - colon - 1));
        target.arguments = stk_mem_strdup(paren);
    } else if (colon[1] != '\0') {
        target.attribute = stk_mem_strdup(colon + 1);
    }
    return target;
}

/* Logs the pending exception and the remedy for it. */
static int loader_fail_import(struct stk_pyhost *host, const char *text,
                              const struct loader_target *target)
{
    PyObject *exc = stk_py_take_exception();
    STK_CLEANUP(stk_mem_freep)
    char *title = stk_mem_printf("the application '%s' cannot be loaded", text);
    STK_CLEANUP(stk_mem_freep) char *hint = NULL;

    if (exc) {
        stk_sources_note_exception(host, exc);
        hint = stk_load_hint_exception(exc, target->module, target->attribute);
        stk_py_raise_taken(exc);
        stk_report_exception(STK_LOG_ERROR, title);
    }
    stk_log_error("%s", hint ? hint : title);
    return STK_HOST_E_IMPORT;
}

static PyObject *loader_import(struct stk_pyhost *host, const struct loader_target *target)
{
    if (target->module[0] == '\0') {
        PyErr_SetString(PyExc_ValueError, "no module is named before the ':'");
        return NULL;
    }
    return loader_is_file(target->module) ? loader_import_file(host, target->module)
                                          : PyImport_ImportModule(target->module);
}

/* Finds the callable in an imported module. 0 or STK_HOST_E_*, logged. */
static int loader_resolve(struct stk_pyhost *host, const char *text, PyObject *module,
                          const struct loader_target *target, PyObject **ret_app)
{
    PyObject *app;

    if (!target->attribute) {
        app = loader_find_default(module);
        if (!app && !PyErr_Occurred()) {
            STK_CLEANUP(stk_mem_freep) char *hint = stk_load_hint_default(module, target->module);

            stk_log_error("%s", hint);
            return STK_HOST_E_NOT_CALLABLE;
        }
    } else {
        app = loader_get_dotted(module, target->attribute);
        if (!app && PyErr_ExceptionMatches(PyExc_AttributeError)) {
            STK_CLEANUP(stk_mem_freep) char *hint = NULL;

            PyErr_Clear();
            hint = stk_load_hint_attribute(module, target->module, target->attribute);
            stk_log_error("%s", hint);
            return STK_HOST_E_NOT_CALLABLE;
        }
        if (app && target->arguments)
            Py_SETREF(app, loader_call_factory(app, target->arguments));
    }
    if (!app)
        return loader_fail_import(host, text, target);
    *ret_app = app;
    return 0;
}

/* Whether the object can be a WSGI application, as far as can be told; logs what it is otherwise.
 */
static int loader_check(PyObject *app, const char *text)
{
    STK_CLEANUP(stk_mem_freep) char *fault = stk_load_hint_callable(app, text);

    if (!fault)
        return 0;
    stk_log_error("%s", fault);
    return STK_HOST_E_NOT_CALLABLE;
}

/*
 * Finds out how the application is called, or whether it can be called as it is said to. *app may
 * be replaced. 0 or STK_HOST_E_*, logged.
 */
static int loader_set_interface(struct stk_pyapp *app, const char *text, unsigned wanted)
{
    bool sure;
    enum stk_interface found = stk_asgi_detect(app->callable, &sure);

    if (wanted == STK_HOST_INTERFACE_WSGI && found != STK_INTERFACE_WSGI) {
        stk_log_error("'%s' is an ASGI application (it takes a scope, receive and send), and "
                      "interface = wsgi was asked for; leave that out, or say asgi",
                      text);
        return STK_HOST_E_NOT_CALLABLE;
    }
    if (wanted == STK_HOST_INTERFACE_ASGI && found == STK_INTERFACE_WSGI && sure) {
        stk_log_error("'%s' looks like a WSGI application: it cannot be called with (scope, "
                      "receive, send), and interface = asgi was asked for; leave that out, or say "
                      "wsgi",
                      text);
        return STK_HOST_E_NOT_CALLABLE;
    }
    if (wanted == STK_HOST_INTERFACE_ASGI && found == STK_INTERFACE_WSGI)
        found = STK_INTERFACE_ASGI;
    else if (wanted == STK_HOST_INTERFACE_AUTO && !sure)
        stk_log_info(
            "it cannot be seen whether '%s' is a WSGI or an ASGI application; it is called as "
            "WSGI; --interface says it",
            text);
    if (found == STK_INTERFACE_ASGI2) {
        PyObject *helpers = PyImport_ImportModule("stoker._asgi");
        PyObject *single =
            helpers ? PyObject_CallMethod(helpers, "adapt_double", "O", app->callable) : NULL;

        Py_XDECREF(helpers);
        if (!single) {
            stk_report_exception(STK_LOG_ERROR, "an ASGI 2 application cannot be adapted");
            return STK_HOST_E_IMPORT;
        }
        Py_SETREF(app->callable, single);
        found = STK_INTERFACE_ASGI;
    }
    app->interface = (uint8_t)found;
    return 0;
}

/* Under gevent. 0 or STK_HOST_E_*, logged. */
static int loader_set_green(struct stk_pyapp *app, const char *text)
{
    if (app->interface != STK_INTERFACE_WSGI) {
        stk_log_error("'%s' is an ASGI application, and gevent runs WSGI applications only; leave "
                      "gevent out",
                      text);
        return STK_HOST_E_NOT_CALLABLE;
    }
    app->interface = STK_INTERFACE_GREEN;
    return 0;
}

/* Loads one application. 0 or STK_HOST_E_*, logged. */
static int loader_load_one(struct stk_pyhost *host, const char *text, PyObject **ret_app)
{
    struct loader_target target = loader_parse(text);
    PyObject *module = loader_import(host, &target);
    PyObject *app = NULL;
    int r = module ? loader_resolve(host, text, module, &target, &app)
                   : loader_fail_import(host, text, &target);

    if (r == 0)
        r = loader_check(app, text);
    if (r == 0)
        *ret_app = stk_py_newref(app);
    Py_XDECREF(app);
    Py_XDECREF(module);
    loader_target_deinit(&target);
    return r;
}

/* 0 or STK_HOST_E_*, logged. */
static int loader_check_limits(struct stk_pyhost *host, const struct stk_host_params *params)
{
    if (!params->limits_async || params->ntargets == 0 || stk_asgi_has_loop(host))
        return 0;
    stk_log_error(
        "max-concurrency is a limit of ASGI applications, and '%s' is a WSGI application, "
        "which has as many requests at a time as threads: leave max-concurrency out",
        params->targets[0]);
    return STK_HOST_E_NOT_CALLABLE;
}

/* All of them, in their order. */
static int loader_load_all(struct stk_pyhost *host, const struct stk_host_params *params)
{
    struct stk_pyapp *apps = stk_new0_array(struct stk_pyapp, params->ntargets + 1);
    int r = 0;

    stk_host_clear_apps(host);
    host->apps = apps;
    for (size_t i = 0; r == 0 && i < params->ntargets; i++) {
        r = loader_load_one(host, params->targets[i], &apps[i].callable);
        if (r == 0) {
            apps[i].heads = stk_head_cache_new();
            host->napps++;
            r = loader_set_interface(&apps[i], params->targets[i], params->interface);
            if (r == 0 && params->gevent > 0)
                r = loader_set_green(&apps[i], params->targets[i]);
        } else if (params->places && params->places[i][0] != '\0') {
            stk_log_error("'%s' is the application of %s", params->targets[i], params->places[i]);
        }
    }
    return r;
}

int stk_loader_load(void *host, const struct stk_host_params *params)
{
    struct stk_pyhost *h = host;
    const char *first = params->ntargets > 0 ? params->targets[0] : "application";
    struct loader_target target = loader_parse(first);
    int r = 0;

    STK_CHECK_MAGIC(h, STK_PYHOST_MAGIC);
    stk_fork_claim(h);
    stk_stacks_init(h);
    if (h->watch)
        PyList_SetSlice(h->watch, 0, PyList_GET_SIZE(h->watch), NULL);
    if (loader_set_path(params) < 0)
        r = loader_fail_import(h, first, &target);
    if (r == 0 && params->gevent > 0)
        r = stk_green_prepare(h, params->monkey_patch);
    if (r == 0)
        r = loader_load_all(h, params);
    if (r == 0)
        r = loader_check_limits(h, params);
    if (r == 0) {
        stk_environ_free(h->environ);
        h->environ = stk_environ_new(h, params);
        stk_scopes_free(stk_steal(&h->scopes));
        if (stk_asgi_has_loop(h))
            h->scopes = stk_scopes_new(h, params->endpoints, params->nendpoints);
        if (!h->environ || PyErr_Occurred())
            r = loader_fail_import(h, first, &target);
    }
    h->loop_kind = params->loop;
    h->lifespan = params->lifespan;
    h->task_grace = params->task_grace;
    loader_target_deinit(&target);
    return r;
}
