/* What to do when an application cannot be loaded: one line of text each, malloc'ed. */
#pragma once

#include "pyhost/compat.h"

/* For an exception (borrowed) of an import or a factory; never NULL. */
char *stk_load_hint_exception(PyObject *exc, const char *module, const char *attribute);
/* For a module without any of the usual names; never NULL. */
char *stk_load_hint_default(PyObject *module, const char *name);
/* For an attribute that the module does not have; never NULL. */
char *stk_load_hint_attribute(PyObject *module, const char *name, const char *attribute);
/* What keeps an object from being a WSGI application; NULL when nothing is known to. */
char *stk_load_hint_callable(PyObject *app, const char *target);
