/*
 * The inside of the master, shared by its files:
 *   master.c    set-up, signals, the loop, stopping
 *   control.c   the control socket, with control_*.c
 *   spawn.c     forking: the parent's side and the child's
 *   template.c  the life of a template process
 *   proc.c      one child process: its channel, its messages, how it is ended
 *   reap.c      waiting for the dead, and saying what they died of
 *   slot.c      who serves which slot: first start, respawn, adoption
 *   death.c     what is said, and done, when a worker is gone
 *   reload.c    replacing workers: one by one (HUP), or all at once (autoreload)
 *   refresh.c   a template that has imported what workers import
 *   recycle.c   replacing single workers: max-requests, max-rss ...
 *   scale.c     how many slots have a worker
 *   fifo.c      commands through a named pipe
 *   report.c    the statistics, at an address of their own
 *   startup.c   what this process was started with
 *   notify.c    the service manager, and its watchdog
 *   privilege.c from root to a user
 *   upgrade.c   a new master in the place of this one
 *   beside.h    programs beside the workers, with a list of its files
 */
#pragma once

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "base/macros.h"
#include "base/time.h"
#include "loop/loop.h"
#include "master/beside.h"
#include "master/fifo.h"
#include "master/master.h"
#include "master/pidfile.h"
#include "master/recycle.h"
#include "master/reload.h"
#include "master/scale.h"
#include "master/system.h"
#include "net/listen.h"
#include "net/tls_store.h"

#define STK_PROC_MAGIC   0x50524f43u
#define STK_MASTER_MAGIC 0x4d415354u

struct stk_control;
struct stk_master;
struct stk_scoreboard;
struct stk_scoreboard_row;
struct stk_transfer;
struct stk_stats;
struct stk_stats_server;
struct stk_watch;

enum stk_proc_kind {
    STK_PROC_WORKER,
    STK_PROC_TEMPLATE,
};

enum stk_proc_state {
    STK_PROC_FORKING,  /* asked of a template; its process id is not known yet */
    STK_PROC_STARTING, /* loads the application */
    STK_PROC_READY,    /* serves, or can fork */
    STK_PROC_DRAINING, /* finishes what was begun */
    STK_PROC_STOPPING, /* told to exit now; SIGKILL comes next */
    STK_PROC_KILLED,   /* SIGKILL was sent */
};

/* One child process of ours, from the fork until it has been waited for. */
struct stk_proc {
    uint32_t magic;
    enum stk_proc_kind kind;
    enum stk_proc_state state;
    struct stk_list link; /* in master->procs, or master->dead until the turn ends */
    struct stk_master *master;
    pid_t pid; /* 0: not known yet */
    unsigned slot;
    uint32_t generation;
    struct stk_scoreboard_row *row; /* of a worker */
    struct stk_source channel;      /* fd -1: closed */
    struct stk_timer deadline;      /* what comes next when it does not end */
    struct stk_timer loading;       /* when to say that it is not ready yet */
    unsigned warned;                /* how often that was said */
    stk_nsec started;
    uint64_t cut;    /* connections that were open when it ended */
    stk_msec pinged; /* since when a PING is unanswered; 0: none is (notify.c) */
    bool was_ready;
    bool asked;   /* its end was ours to order: DRAIN, STOP or SIGKILL was sent */
    bool unheard; /* DRAIN was sent, and it has not answered: it may accept connections still */
    struct stk_retirement retirement; /* of a worker: recycle.c */
    char *failure;                    /* what it logged when it could not load, or NULL */
};

/* A worker's place: its sockets and its number, which outlive processes. */
struct stk_slot {
    struct stk_master *master;
    unsigned index;
    struct stk_proc *current; /* serves the slot, or will when it is ready */
    struct stk_proc *next;    /* its replacement, not ready yet */
    struct stk_proc *adopter; /* accepts for this slot while current does not */
    struct stk_timer respawn;
    bool wanted;      /* it is to have a worker: scale.c */
    bool waits;       /* respawn is armed */
    bool failed;      /* could not load at the first start; tried again when another could */
    stk_msec backoff; /* the last pause before a respawn */
};

/* Certificates: tls.c. */
struct stk_master_tls {
    struct stk_tls_files files;      /* as they were read last */
    struct stk_tls_store *store;     /* NULL: there are none */
    struct stk_tls_tickets *tickets; /* shared with the workers */
    struct stk_watch *watch;
    struct stk_timer settle; /* until files that change are read */
    struct stk_timer rotate;
    bool again; /* they did not fit together a moment ago */
};

/* Logs: logs.c. */
struct stk_master_logs {
    struct stk_log_fan *fan;  /* NULL: all processes write by themselves */
    struct stk_source source; /* the end of the pipe that is read */
    int out, err;             /* the standard streams as they were */
    int own;                  /* the end of the pipe for what the server logs; -1: standard error */
    char *buf;
    size_t len;
    pthread_t pump; /* reads while a hook runs, to pump_to (-1: it does not), until pump_stop */
    int pump_to, pump_stop;
    struct stk_watch *watch; /* of files that are touched; NULL: there are none */
    struct stk_timer look;   /* at the sizes of files */
    stk_nsec complained;
};

struct stk_master {
    uint32_t magic;
    const struct stk_master_params *params;
    const struct stk_config *config;
    struct stk_loop *loop;
    struct stk_listen_set listeners;
    bool has_slots;  /* a listener with a socket of its own for each slot */
    unsigned nslots; /* of the listeners; those beyond the workers are inherited, and adopted */
    struct stk_scoreboard *scoreboard;
    struct stk_transfer *transfer;
    struct stk_pidfile pidfile;
    struct stk_fifo fifo;
    struct stk_control *control; /* NULL: there is no control socket */
    struct stk_listen_set stats_listeners;
    struct stk_stats_server *stats_server; /* NULL: there is none */
    struct stk_master_tls tls;
    struct stk_caches *caches; /* NULL: there are none */
    struct stk_timer sweep;    /* of them */

    struct stk_list procs;
    struct stk_list dead;
    struct stk_list children; /* commands beside the workers (child.h) */
    struct stk_beside beside;
    struct stk_slot *slots; /* nslots of them */
    uint32_t generation;
    uint64_t oom_kills;        /* as last seen: oom.c */
    struct stk_notify *notify; /* NULL: no service manager listens */
    struct stk_upgrade *upgrade;

    struct stk_master_logs logs;

    /* templates (preload) */
    struct stk_proc *template;
    struct stk_proc *template_next;
    struct stk_timer template_retry;
    stk_msec template_backoff;
    bool template_waits;

    /* the first start */
    bool held;           /* only slot 0 is started until it is ready, or a second has passed */
    bool ever_ready;     /* a worker has been ready */
    bool announced;      /* all were ready at once, and the log said so */
    unsigned early_dead; /* deaths before any worker was ready */
    struct stk_timer release;
    stk_nsec started;

    /* reload */
    bool reloading;
    bool reload_stuck;   /* waits for a row of the scoreboard: a draining worker's */
    bool waits_for_save; /* autoreload, after a failed load */
    struct stk_watch *watch;
    struct stk_reload reload;
    struct stk_recycle recycle;
    struct stk_scale scale;

    /* stopping: 0, 1 gracefully, 2 now */
    int stopping;
    bool finishing; /* stopping by an upgrade: a first signal, as one sent to a group, asks for no
                       more than that */
    stk_nsec stop_asked; /* when a signal first asked to stop */
    int exit_code;

    /* signals */
    struct stk_source signals;
    sigset_t saved_mask;
    struct sigaction saved_chld, saved_pipe;
    bool signals_taken;
    bool hup_ignored; /* nohup */
    bool reaps_strangers;
    bool subreaper_set;
    pid_t *prior; /* children that were there before us */
    size_t nprior;
};

/* master.c */
void stk_master_stop(struct stk_master *m, bool now);
/* Ends with this exit code: the reason has been logged. */
void stk_master_fail(struct stk_master *m, int exit_code);
/* Passes an event on to who has asked for them (stk_master_params). */
void stk_master_tell(struct stk_master *m, enum stk_master_event event, unsigned number, pid_t pid);
/* In a child: gives signals back as the master found them. */
void stk_master_restore_signals(struct stk_master *m);
/* Opens the log files again, here and in the children: the control socket may ask for it. */
void stk_master_reopen_logs(struct stk_master *m);

/* logs.c */
/* Begins to collect lines, to look at sizes, and at files that are touched. 0 or a negative errno,
 * the reason logged where it is the configuration. */
int stk_logs_begin(struct stk_master *m) STK_MUST_CHECK;
/* Opens the files that the master writes again. */
void stk_logs_reopen(struct stk_master *m);
/* Renames all log files and opens new ones. */
void stk_logs_rotate(struct stk_master *m);
/* In a child that is to be another program: its standard streams are those that we were given. */
void stk_logs_restore(struct stk_master *m);
/* From here on somebody may print whatever he likes in this process, and nobody is in the loop. */
void stk_logs_lend(struct stk_master *m);
/* He is through. */
void stk_logs_return(struct stk_master *m);
/* In a child: closes what is the master's. */
void stk_logs_leave(struct stk_master *m);
/* Writes what is left, and has the log as it was before. Harmless twice. */
void stk_logs_end(struct stk_master *m);

/* privilege.c: the path of a log that is a file, else NULL. */
const char *stk_privilege_log_path(const char *target);

/* report.c */
/* Answers at `stats`, whose sockets are open. 0, or the exit code, the reason logged. */
int stk_report_open(struct stk_master *m) STK_MUST_CHECK;
/* Ends that. Harmless twice. */
void stk_report_close(struct stk_master *m);
/* In a child: closes its descriptors. */
void stk_report_leave(struct stk_master *m);
/* What services/stats.h writes from; valid as long as nothing happens to the master. */
void stk_report_stats(const struct stk_master *m, struct stk_stats *ret_stats);

/* spawn.c */
/* Starts a worker for a slot, by fork or by the template. 0; -ENOSPC: no row is free; -errno. */
int stk_spawn_worker(struct stk_master *m, unsigned slot, struct stk_proc **ret_proc)
    STK_MUST_CHECK;
int stk_spawn_template(struct stk_master *m, struct stk_proc **ret_proc) STK_MUST_CHECK;
/* Has the template fork another template, which imports the modules of a MODULES file. */
int stk_spawn_refork(struct stk_master *m, int modules, struct stk_proc **ret_proc) STK_MUST_CHECK;
/* In a child: closes what is the master's, and gives signals back. `keep` is left open. */
void stk_spawn_child_setup(struct stk_master *m, int keep, const char *name);
/* The name of this process in ps and in the log: "master", "worker 1". */
void stk_spawn_set_name(const struct stk_config *config, const char *name);
/* fork() with the hooks around it: as fork(), -errno on failure. */
pid_t stk_spawn_fork(struct stk_master *m);
/* In such a child: has the host do a task. */
STK_NORETURN void stk_spawn_run_task(struct stk_master *m, const char *name, const char *task);
/* In a child: lives a worker's life and ends the process. */
STK_NORETURN void stk_spawn_run_worker(struct stk_master *m, const struct stk_heritage *heritage);

/* caches.c */
/* Makes the caches. 0, or the exit code, the reason logged. */
int stk_master_open_caches(struct stk_master *m) STK_MUST_CHECK;
/* Begins to sweep them. */
void stk_master_sweep_caches(struct stk_master *m);
/* Harmless twice. */
void stk_master_close_caches(struct stk_master *m);
/* As stk_tls_hand_over. */
char *stk_master_hand_caches_over(const struct stk_master *m, char *text);

/* refresh.c */
/* A worker has imported what its template has not. */
void stk_refresh_on_modules(struct stk_proc *p, int file);

/* tls.c */
/* Reads the certificates, with the rights that the process has still. 0, or the exit code, the
 * reason logged. */
int stk_tls_open(struct stk_master *m) STK_MUST_CHECK;
/* Begins to watch the files, and to change the keys of tickets. 0 or a negative errno. */
int stk_tls_watch(struct stk_master *m) STK_MUST_CHECK;
/* Reads them again, and says why they are not taken. */
void stk_tls_reload(struct stk_master *m);
/*
 * In a successor that is about to be executed: appends what it has to know to the text of the
 * upgrade, and leaves the descriptors open that are named. Returns `text` or a longer one.
 */
char *stk_tls_hand_over(const struct stk_master *m, char *text);
/* In a template: takes those of a CERTS message, for the workers that it forks. */
void stk_tls_take(struct stk_master *m, int fd);
/* In a child: closes descriptors and wipes what only the master needs. */
void stk_tls_leave(struct stk_master *m);
void stk_tls_close(struct stk_master *m);

/* template.c */
/* In a child: loads the application and forks workers until told to stop. */
STK_NORETURN void stk_template_run(struct stk_master *m, int channel);

/* proc.c */
struct stk_proc *stk_proc_new(struct stk_master *m, enum stk_proc_kind kind, unsigned slot,
                              int channel);
/* "worker 2" or "template", and its process id: "worker 2 (123)". */
char *stk_proc_name(const struct stk_proc *p);
void stk_proc_send(struct stk_proc *p, int type, unsigned slot, int64_t value);
/* Asks it to finish within `timeout`, then to stop, then kills it. */
void stk_proc_drain(struct stk_proc *p, stk_msec timeout);
/* It drains already: tells it who takes over now. */
void stk_proc_drain_on(struct stk_proc *p);
/* Asks it to stop; kills it when it has not within `grace`. */
void stk_proc_stop(struct stk_proc *p, stk_msec grace);
void stk_proc_kill(struct stk_proc *p);
/* Ends it by SIGABRT, for the report of where it hangs, and kills it when it does not. */
void stk_proc_abort(struct stk_proc *p);
bool stk_proc_is_serving(const struct stk_proc *p);
/* Handles the messages that have arrived already. */
void stk_proc_hear(struct stk_proc *p);
/* Whether the channels of all processes are read; what they say meanwhile waits in them. */
void stk_proc_listen(struct stk_master *m, bool on);
/* It has been waited for: hears its last messages first, then as stk_proc_gone. */
void stk_proc_exited(struct stk_proc *p, int status);
/* It is gone (its status as of waitpid, -1: unknown): tells the slots and frees it after the turn.
 */
void stk_proc_gone(struct stk_proc *p, int status);

/* reap.c */
void stk_reap_all(struct stk_master *m);
/* Remembers the children that are not ours; from then on others are waited for where needed. */
void stk_reap_init(struct stk_master *m);
/* "was killed by SIGSEGV (core dumped)", "ended with exit code 4"; free it. */
char *stk_reap_describe(int status);

/* slot.c */
void stk_slot_init(struct stk_master *m);
/* Starts what is missing. */
void stk_slot_fill(struct stk_master *m);
/* Whether workers can be forked; with preload starts a template when there is none. */
bool stk_slot_can_fork(struct stk_master *m);
/* The next of a series of growing pauses. */
stk_msec stk_slot_next_backoff(stk_msec backoff);
/* Fills a slot again after a pause. */
void stk_slot_wait(struct stk_slot *slot, stk_msec pause);
/* Its worker drains, with nobody in its place. */
void stk_slot_vacate(struct stk_slot *slot);
/* Gives orphan slots to ready workers, and takes them back. */
void stk_slot_balance(struct stk_master *m);
void stk_slot_on_ready(struct stk_proc *p);
/* A worker is gone: death.c. */
void stk_slot_on_gone(struct stk_proc *p, int status);
/* Whether a status says that the application cannot be loaded. */
bool stk_slot_is_load_failure(int status);
/* A worker drains by its own decision: its slot needs another now. */
void stk_slot_on_leaving(struct stk_proc *p);
void stk_slot_on_template_ready(struct stk_proc *p);
void stk_slot_on_template_gone(struct stk_proc *p, int status);
/* The end of holding back the other workers at the first start. */
void stk_slot_release(struct stk_master *m);
/* Forgets pauses and failures, as after a reload. */
void stk_slot_reset(struct stk_master *m);
