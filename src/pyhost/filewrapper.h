/* wsgi.file_wrapper of PEP 3333. */
#pragma once

#include "pyhost/respond.h"

PyType_Spec *stk_filewrapper_spec(void);
/*
 * Sends a FileWrapper that the application has returned: by its descriptor where reading the
 * descriptor is certain to give what reading the object would. 1: not possible, iterate it; else as
 * stk_respond_write.
 */
int stk_filewrapper_send(struct stk_call *call, PyObject *wrapper, bool *ret_sent);
