/* wsgi.errors of PEP 3333: a text stream into the error log. */
#pragma once

#include "pyhost/state.h"

PyType_Spec *stk_errors_spec(void);
PyObject *stk_errors_new(struct stk_state *st);
/* Logs a line that was begun and not ended; at the end of a request. */
void stk_errors_flush(PyObject *errors);
