/* The caches of the server as functions for Python: those of uWSGI's module `uwsgi`. */
#pragma once

#include "pyhost/compat.h"

/*
 * stoker._core._cache_functions(): a dict of the functions by their names, for the modules `uwsgi`
 * and `stoker.cache`.
 */
PyObject *stk_pycache_functions(PyObject *module, PyObject *unused);
