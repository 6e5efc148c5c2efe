/*
 * The extension module stoker._core: multi-phase initialisation, one state per module object, heap
 * types only. So the module can be loaded, dropped and loaded again, and nothing of Python is kept
 * in a C variable that would outlive an interpreter.
 *
 * The functions that Python calls are those of cli/ (the console script), which are added when they
 * are linked in; the tests link their own instead.
 */
#include "pyhost/pyhost.h"

#include "pyhost/asgi_priv.h"
#include "pyhost/cancel.h"
#include "pyhost/errors.h"
#include "pyhost/filewrapper.h"
#include "pyhost/guest.h"
#include "pyhost/input.h"
#include "pyhost/respond.h"
#include "pyhost/state.h"
#include "pyhost/taken.h"

/* The console script's functions; absent where nothing defines them. */
extern PyMethodDef stk_cli_methods[] __attribute__((weak));

struct stk_state *stk_state_of(PyObject *module)
{
    return (struct stk_state *)PyModule_GetState(module);
}

static int module_add_names(struct stk_state *st)
{
    static const char *const texts[STK_NAME_COUNT] = {
#define X(id, text) [STK_NAME_##id] = text,
        STK_STATE_NAMES(X)
#undef X
    };

    for (size_t i = 0; i < STK_NAME_COUNT; i++) {
        st->names[i] = PyUnicode_InternFromString(texts[i]);
        if (!st->names[i])
            return -1;
    }
    return 0;
}

static int module_add_types(PyObject *module, struct stk_state *st)
{
    const struct {
        PyTypeObject **slot;
        PyType_Spec *spec;
    } types[] = {
        {&st->input_type, stk_input_spec()},
        {&st->errors_type, stk_errors_spec()},
        {&st->file_wrapper_type, stk_filewrapper_spec()},
        {&st->start_type, stk_respond_start_spec()},
        {&st->write_type, stk_respond_write_spec()},
        {&st->receive_type, stk_asgi_receive_spec()},
        {&st->send_type, stk_asgi_send_spec()},
        {&st->wait_type, stk_asgi_wait_spec()},
        {&st->done_type, stk_asgi_done_spec()},
        {&st->runner_type, stk_asgi_runner_spec()},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(types); i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, types[i].spec, NULL);

        if (!type)
            return -1;
        *types[i].slot = (PyTypeObject *)type;
    }
    /* For stoker._asgi, which registers them as coroutines. */
    if (PyObject_SetAttrString(module, "_done_type", (PyObject *)st->done_type) < 0 ||
        PyObject_SetAttrString(module, "_wait_type", (PyObject *)st->wait_type) < 0 ||
        PyObject_SetAttrString(module, "_runner_type", (PyObject *)st->runner_type) < 0)
        return -1;
    return PyModule_AddType(module, st->file_wrapper_type);
}

static int module_exec(PyObject *module)
{
    struct stk_state *st = stk_state_of(module);

    if (module_add_names(st) < 0 || module_add_types(module, st) < 0 ||
        stk_cancel_add_types(module, st) < 0)
        return -1;
    if (PyModule_AddStringConstant(module, "__version__", STK_VERSION) < 0)
        return -1;
    if (PyModule_AddFunctions(module, stk_guest_methods()) < 0 ||
        PyModule_AddFunctions(module, stk_taken_methods()) < 0)
        return -1;
    return stk_cli_methods ? PyModule_AddFunctions(module, stk_cli_methods) : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct stk_state *st = stk_state_of(module);

    Py_VISIT(st->input_type);
    Py_VISIT(st->errors_type);
    Py_VISIT(st->file_wrapper_type);
    Py_VISIT(st->start_type);
    Py_VISIT(st->write_type);
    Py_VISIT(st->receive_type);
    Py_VISIT(st->send_type);
    Py_VISIT(st->wait_type);
    Py_VISIT(st->done_type);
    Py_VISIT(st->runner_type);
    Py_VISIT(st->cancelled_type);
    Py_VISIT(st->timeout_type);
    Py_VISIT(st->disconnected_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct stk_state *st = stk_state_of(module);

    Py_CLEAR(st->input_type);
    Py_CLEAR(st->errors_type);
    Py_CLEAR(st->file_wrapper_type);
    Py_CLEAR(st->start_type);
    Py_CLEAR(st->write_type);
    Py_CLEAR(st->receive_type);
    Py_CLEAR(st->send_type);
    Py_CLEAR(st->wait_type);
    Py_CLEAR(st->done_type);
    Py_CLEAR(st->runner_type);
    Py_CLEAR(st->cancelled_type);
    Py_CLEAR(st->timeout_type);
    Py_CLEAR(st->disconnected_type);
    for (size_t i = 0; i < STK_NAME_COUNT; i++)
        Py_CLEAR(st->names[i]);
    return 0;
}

static void module_free(void *module)
{
    module_clear((PyObject *)module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    STK_PY_MODULE_SLOTS,
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "stoker._core",
    .m_doc = "The engine of the stoker application server.",
    .m_size = sizeof(struct stk_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
