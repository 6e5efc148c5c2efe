/*
 * The server forks workers from a template that has the interpreter and the application in it: the
 * interpreter is told before and after, as os.fork() does.
 *
 * The application may fork as well, and its child must never answer a request. To know a child
 * without a system call per request and without depending on how it was forked, a byte stands in a
 * page that the kernel hands out zeroed to every child (MADV_WIPEONFORK, Linux 4.14); without it
 * the process number is compared.
 */
#include "pyhost/fork.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "pyhost/report.h"
#include "pyhost/warm.h"

void stk_fork_claim(struct stk_pyhost *host)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page;

    host->home_pid = getpid();
    if (!host->home) {
        page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
            return;
        if (madvise(page, size, MADV_WIPEONFORK) < 0) {
            munmap(page, size);
            return;
        }
        host->home = page;
    }
    *host->home = 1;
}

void stk_fork_unclaim(struct stk_pyhost *host)
{
    if (host->home)
        munmap((void *)(uintptr_t)host->home, (size_t)sysconf(_SC_PAGESIZE));
    host->home = NULL;
}

void stk_fork_prepare(void *host)
{
    PyOS_BeforeFork();
}

void stk_fork_parent(void *host)
{
    PyOS_AfterFork_Parent();
}

void stk_fork_child(void *host)
{
    struct stk_pyhost *h = host;

    STK_CHECK_MAGIC(h, STK_PYHOST_MAGIC);
    stk_fork_claim(h);
    PyOS_AfterFork_Child();
}

/* Names threads that a fork would not take along. */
static void fork_warn_threads(void)
{
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *list = threading ? PyObject_CallMethod(threading, "enumerate", NULL) : NULL;
    PyObject *main = threading ? PyObject_CallMethod(threading, "main_thread", NULL) : NULL;

    for (Py_ssize_t i = 0; list && main && i < PyList_GET_SIZE(list); i++) {
        PyObject *thread = PyList_GET_ITEM(list, i);
        PyObject *name = thread == main ? NULL : PyObject_GetAttrString(thread, "name");
        const char *text = name && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;

        if (text)
            stk_log_warning("the application started the thread '%s' while it was loaded; with "
                            "preload it will not exist in the workers: start it with the first "
                            "request, or in os.register_at_fork(after_in_child=...)",
                            text);
        Py_XDECREF(name);
    }
    Py_XDECREF(main);
    Py_XDECREF(list);
    Py_XDECREF(threading);
    if (PyErr_Occurred())
        stk_report_exception(STK_LOG_WARNING, "the threads of the application cannot be listed");
}

void stk_fork_freeze(void *host)
{
    static const char *const steps[] = {"collect", "freeze"};
    PyObject *gc = PyImport_ImportModule("gc");

    for (size_t i = 0; gc && i < STK_ARRAY_LEN(steps); i++) {
        PyObject *done = PyObject_CallMethod(gc, steps[i], NULL);

        if (!done)
            break;
        Py_DECREF(done);
    }
    Py_XDECREF(gc);
    if (PyErr_Occurred())
        stk_report_exception(STK_LOG_WARNING, "gc.freeze() failed; workers share less memory");
    fork_warn_threads();
    stk_warm_note(host);
}
