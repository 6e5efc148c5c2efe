/*
 * The contract between a server and an application host, second half: what a host does. A host
 * is the applications loaded in one worker process.
 *
 * "Locked" means: the calling thread may use the host's interpreter (it holds the GIL). The engine
 * calls `lock` and `unlock` around blocking, never while it owns the loop and waits.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "app/request.h"
#include "base/macros.h"

/* How the application is named and prepared (all strings owned by the caller, alive during load).
 */
struct stk_host_params {
    /* "app:app", "pkg.wsgi", "path/app.py", "pkg.mod:create_app()"; a request names its application
     * by the index */
    const char *const *targets;
    const char *const *places; /* where each is mounted, for messages ("" of one that is not); or
                                  NULL */
    size_t ntargets;
    const char *const *pythonpath; /* NULL-terminated; put in front of sys.path */
    const struct stk_endpoint *endpoints;
    size_t nendpoints;
    unsigned threads;          /* wsgi.multithread = threads > 1 */
    unsigned workers;          /* wsgi.multiprocess = workers > 1 */
    const char *document_root; /* may be NULL */
    bool preload;              /* loading in the template: workers will be forked from here */
    uint8_t interface;         /* enum stk_host_interface */
    uint8_t loop;              /* enum stk_host_loop */
    uint8_t lifespan;          /* enum stk_host_lifespan */
    stk_msec task_grace;       /* at the end, for what goes on behind responses */
    unsigned gevent;           /* WSGI in greenlets, so many at a time; 0: in threads */
    bool monkey_patch;         /* with gevent: patch the standard library first */
    bool limits_async;         /* there is a limit that concerns ASGI applications only */
};

/* How applications are called. */
enum stk_host_interface {
    STK_HOST_INTERFACE_AUTO, /* as each looks */
    STK_HOST_INTERFACE_WSGI,
    STK_HOST_INTERFACE_ASGI,
};

/* The event loop of asynchronous applications; auto: uvloop where it is installed. */
enum stk_host_loop { STK_HOST_LOOP_AUTO, STK_HOST_LOOP_ASYNCIO, STK_HOST_LOOP_UVLOOP };

/* Whether asynchronous applications are told of startup and shutdown; auto: those that want to. */
enum stk_host_lifespan { STK_HOST_LIFESPAN_AUTO, STK_HOST_LIFESPAN_ON, STK_HOST_LIFESPAN_OFF };

enum stk_host_result {
    STK_HOST_OK = 0,
    STK_HOST_E_IMPORT = 1, /* traceback and remedy have been logged */
    STK_HOST_E_NOT_CALLABLE = 2,
};

/* Why a call is cancelled. */
enum stk_host_cancel {
    STK_HOST_CANCEL_TIMEOUT = 1,      /* request-timeout; 504 was sent where it could be */
    STK_HOST_CANCEL_DISCONNECTED = 2, /* the client has left, with cancel-on-disconnect */
    STK_HOST_CANCEL_AGAIN = 4,        /* with one of them: once more, although it has been raised */
};

/* What has become of a call. */
enum stk_host_call {
    STK_HOST_DONE,    /* the response is whole, failed or cut */
    STK_HOST_PENDING, /* the application waits: the request has been detached (app/request.h) */
};

/* What a detached request is woken for. */
enum stk_wake {
    STK_WAKE_INPUT = 1,  /* asked for: bytes of the body, or the end of the body, are there */
    STK_WAKE_OUTPUT = 2, /* asked for: little output is queued */
    /* The client has ended its side, or vanished; once. A client that only ended its side still
     * takes a response: whether it is gone for good, write and is_disconnected say. */
    STK_WAKE_GONE = 4,
    /* request-timeout is over; once. 504 was sent, or the response cut: write answers -EPIPE. The
     * application is to be cancelled, and finish is due as ever. */
    STK_WAKE_TIMEOUT = 8,
    STK_WAKE_DRAIN = 16, /* the worker is going to stop; once */
    /* With GONE: cancel-on-disconnect is on, and the client is gone for good. The application is to
     * be cancelled. */
    STK_WAKE_CANCEL = 32,
};

/* The body of a Python thread of the engine: returns when the worker drains. */
typedef void (*stk_host_thread_fn)(void *arg, unsigned index, void *thread);

/*
 * How a host with an event loop of its own turns the engine's, which is nested in it. All calls
 * are made locked, on the thread that called run, and none from within a service or wake.
 *
 * Between two turns this thread is in the application for the engine: when it does not come back
 * for a tick while there is something to do, the stand-by thread turns the loop, and queues the
 * requests that come; the next turn runs them and takes the loop back.
 */
struct stk_host_engine {
    void *arg;
    int fd;   /* readable when a turn has something to do (an epoll set) */
    int bell; /* likewise (an eventfd; a turn reads it): work for this thread has been queued */
    /* Before the first turn, with the host's thread object; after the last one. */
    void (*begin)(void *arg, void *thread);
    void (*end)(void *arg);
    /*
     * One turn, which does not wait: runs queued requests, handles what is ready (not more than a
     * batch, nor for longer than about 1 ms), and wakes detached requests. False: the engine has
     * stopped, and the event loop is to end. For an event loop whose selector is not ours; the
     * engine's own timers make `fd` readable.
     */
    bool (*turn)(void *arg);
    /*
     * The same, but waits (unlocked) until the engine, or own_fd (the event loop's own epoll set,
     * always the same one; -1: there is none) has something, or `timeout` nanoseconds have passed
     * (-1: no limit; 0: does not wait); it may come back earlier, too. *ret_own: own_fd has
     * something. Returns as turn. Whoever has called it once does not call turn.
     */
    bool (*wait)(void *arg, int own_fd, stk_nsec timeout, bool *ret_own);
    /*
     * Several requests are about to go on one behind the other (true, and now and then among them),
     * or have (false): what they send on WebSockets may leave together, at false the latest.
     */
    void (*gather)(void *arg, bool on);
};

/* Exceptions of requests after which the process is to be replaced; lists end with NULL, or are it.
 */
struct stk_host_outcasts {
    bool any;
    const char *const *types;
    const char *const *values;
    const char *const *reprs; /* "type: value" */
};

/* The worker that a host is in; all of it lives as long as the process. */
struct stk_host_worker {
    struct stk_host_outcasts outcasts;
    void (*replace)(void *arg); /* has that done; from any thread; may be NULL */
    unsigned slot;              /* from 0 */
    /* The statistics of all workers as JSON; free it. 0 or a negative errno. */
    int (*statistics)(void *arg, char **ret_text, size_t *ret_len);
    void *arg;
};

struct stk_host_ops {
    const char *name; /* "wsgi" */

    /* First of all in a process that is going to serve, before load unless that was done ahead.
     * Locked, main thread. May be NULL. */
    void (*enter)(void *host, const struct stk_host_worker *worker);
    /* The value of a metric that the application counts, for the access log; false: there is none
     * of that name. From any thread, without the interpreter. May be NULL. */
    bool (*metric)(const void *host, stk_span name, int64_t *ret_value);

    /* Loads the application. Locked, main thread. 0 or STK_HOST_E_*, logged. */
    int (*load)(void *host, const struct stk_host_params *params);
    /* After load, in the process that serves, before it is ready: the applications' own startup.
     * As load. May be NULL. */
    int (*startup)(void *host);
    /*
     * Runs fn on `threads` threads: index 0 on the calling (main) thread, the others on threads of
     * the interpreter (threading.Thread), each with one thread state for life. Locked. Returns when
     * all have returned. `thread` is the host's per-thread object. With has_loop, index 0 does not
     * run fn: it drives `engine` (NULL otherwise) until that has stopped.
     */
    int (*run)(void *host, unsigned threads, stk_host_thread_fn fn, void *arg,
               const struct stk_host_engine *engine);
    /* After load: whether run turns the engine from an event loop of the host's own, because some
     * application is asynchronous; and whether this one is. Locked. May be NULL, as wake then. */
    bool (*has_loop)(void *host);
    bool (*is_async)(void *host, unsigned app);
    /*
     * A detached request can go on: `what` is of enum stk_wake. Locked, on the thread that drives
     * the engine, within a turn. Application code is not to run in here for long: set what it
     * waits for. All services of the request may be called, finish too.
     */
    void (*wake)(void *host, void *thread, struct stk_request *req, unsigned what);
    /*
     * A message has come on a WebSocket whose request has asked for STK_WAKE_INPUT, and none waits
     * before it. True: it is taken, and the request goes on asking for more. False: it is kept for
     * ws_peek, and the request asks for nothing. The view ends with the call. As wake; may be NULL.
     */
    bool (*message)(void *host, void *thread, struct stk_request *req,
                    const struct stk_ws_view *view);
    /* Releases, and takes again, the interpreter on this thread. */
    void (*unlock)(void *host, void *thread);
    void (*lock)(void *host, void *thread);
    /* Runs pending signal handlers of the interpreter (main thread only); cheap. Locked. */
    void (*check_signals)(void *host, void *thread);
    /* Answers one request. Locked. The response is whole, failed or cut when it returns, unless it
     * has detached the request: then it returns STK_HOST_PENDING. */
    enum stk_host_call (*call)(void *host, void *thread, struct stk_request *req);
    /*
     * A buffer for a body of exactly `size` bytes, that the host can give to the application
     * without a copy (a bytes object); *ret_data is where the bytes go. NULL: use your own memory.
     * Locked, as is body_free, which ends the server's hold on it; a host that keeps what a view
     * showed it (struct stk_body_view) takes a hold of its own.
     */
    void *(*body_alloc)(void *host, size_t size, char **ret_data);
    void (*body_free)(void *host, void *buffer);
    /* Runs atexit handlers, joins the application's threads. Locked, main thread. */
    void (*unload)(void *host);
    /* Around fork() of a process that has an interpreter. Locked. */
    void (*fork_prepare)(void *host);
    void (*fork_parent)(void *host);
    void (*fork_child)(void *host);
    /* The source files of what is loaded, NULL-terminated, for autoreload; free() each and the
     * array. Locked. */
    char **(*source_files)(void *host);
    /*
     * Raises in the application's call in progress on `thread` (a BaseException that says `why`,
     * see enum stk_host_cancel), as soon as that can be: the main thread by a signal, which also
     * interrupts what blocks; others at their next bytecode. `call` is the request's id: nothing
     * happens to another one. Said again it does what it could not do before, and nothing where it
     * could. From any thread without the interpreter, which it does not wait for.
     */
    void (*cancel)(void *host, void *thread, uint64_t call, int why);
    /*
     * Which step of a detached request's application runs now on the thread that drives the
     * engine, to be cancelled by the call above: a number of its own, and the request's id; 0: none
     * that is known. From any thread. May be NULL.
     */
    uint64_t (*step)(void *host, void *thread, uint64_t *ret_call);
    /*
     * Writes stacks as text to a descriptor: of all threads (thread NULL), or of one. Best effort,
     * from any thread, without the interpreter: nothing is allocated and nobody waits.
     */
    void (*stacks)(void *host, void *thread, int fd);
    /*
     * Writes what the tasks of the event loop wait for, and which request each serves, of all or
     * of one request (by its id). From any thread; where that is none of the interpreter's it waits
     * for it, but not for long: false. May be NULL.
     */
    bool (*tasks)(void *host, uint64_t call, int fd);
    /* Before workers are forked from a template: gc.freeze and a warning naming live threads.
     * Locked. */
    void (*freeze)(void *host);
    /*
     * What has been imported in this process since freeze, NULL-terminated; free() each and the
     * array. Locked. May be NULL, as the next.
     */
    char **(*list_modules)(void *host);
    /* Imports modules, in a template; what cannot be imported is left out. Locked. */
    void (*import_modules)(void *host, const char *const *names);
};
