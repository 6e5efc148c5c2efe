/* wsgi.input of PEP 3333: a binary file object over the body of a request. */
#pragma once

#include "pyhost/host.h"

PyType_Spec *stk_input_spec(void);
/* An input without a body, which all such requests share: it cannot be changed. */
PyObject *stk_input_new_empty(struct stk_state *st);
/* The input of a call whose request has, or may have, a body. NULL with an exception. */
PyObject *stk_input_new(struct stk_call *call);
/*
 * Ends the input's view of the request; takes the reference to it. Where the application has kept
 * it, what is unread of the body and in memory is copied (up to 1 MiB).
 */
void stk_input_release(PyObject *op);
