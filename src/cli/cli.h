/*
 * The console script: what main.c puts together and the other files of this folder use. Everything
 * here runs on Python's main thread, with the GIL held.
 */
#pragma once

#include <stddef.h>

#include "base/macros.h"
#include "config/args.h"
#include "config/load.h"
#include "master/startup.h"
#include "pyhost/compat.h"

struct stk_listener;

/* The exit codes of the command. */
enum stk_cli_exit {
    STK_CLI_EXIT_OK = 0,
    STK_CLI_EXIT_CONFIG = 1, /* bad configuration or address */
    STK_CLI_EXIT_LOAD = 3,   /* the application failed to load */
};

struct stk_cli {
    PyObject *module; /* stoker._core, borrowed */
    struct stk_load *load;
    struct stk_args args;
    unsigned nworkers;          /* effective, at least 1 */
    PyObject *on_event;         /* told of what the master does (run.c), borrowed; or NULL */
    bool foreign;               /* the configuration is another server's: only STOKER_* count */
    bool capture;               /* what is printed goes to the error log */
    struct stk_startup startup; /* of a server (run.c) */
};

/* The functions that this folder adds to the module (methods.c). */
extern PyMethodDef stk_cli_methods[];

/* _core.main(argv, read_settings, on_event=None, foreign=False, capture=False) -> int: the whole
 * command (main.c).
 */
PyObject *stk_main_entry(PyObject *module, PyObject *args);
PyObject *stk_options_entry(PyObject *module, PyObject *args);

/* Checks values that only the layers above config understand; mistakes go to the load (verify.c).
 */
void stk_verify_values(struct stk_load *load);

/* --check: prints the effective configuration and loads the application; an exit code (check.c). */
int stk_check_run(struct stk_cli *cli);

/*
 * Changes into config->chdir, sets umask and environment and opens the error log: all that changes
 * this process. 0, or an exit code, the reason said (setup.c).
 */
int stk_setup_process(struct stk_cli *cli);
/*
 * Puts the name of the callable into config->app, for the host, which knows only the one form
 * "module:callable".
 */
void stk_setup_target(struct stk_config *config);

/* The effective configuration, with the origin of each value, as JSON; free it (control.c). */
char *stk_control_config(const struct stk_cli *cli) __attribute__((returns_nonnull));

/*
 * Takes what the process was started with into cli->startup, and out of the environment, also
 * Python's copy; prepares the title in ps. 0, or an exit code, the reason said (setup.c).
 */
int stk_setup_startup(struct stk_cli *cli);

/*
 * Leaves the terminal (daemon.c). -1 in the server, which goes on, with *ret_fd for the following
 * two; in the command the exit code, when the server is ready or has failed, the reason said.
 */
int stk_daemon_detach(const struct stk_config *config, int *ret_fd);
/* Has the waiting command print a text. */
void stk_daemon_tell(int fd, const char *text);
/* Ends the wait of the command with an exit code; harmless twice. */
void stk_daemon_report(int *fd, int code);

/* Serves until stopped; an exit code (run.c). */
int stk_run_server(struct stk_cli *cli);

/*
 * Logs how the server was started: versions, application, addresses, processes, how to stop it
 * (banner.c). `python` is the text of stk_banner_python.
 */
void stk_banner_log(const struct stk_config *config, unsigned nworkers, const char *python,
                    struct stk_listener *const *listeners, size_t n);
/* "Python 3.11.2 (/usr/bin/python3)"; free it. */
char *stk_banner_python(void) __attribute__((returns_nonnull));
