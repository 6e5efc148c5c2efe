"""Processes of the benchmark: start pinned, account for, stop.

CPU time is read with clock_gettime() on each process's own CPU clock (the id that
clock_getcpuclockid(3) returns): nanoseconds, of all threads including ended ones, brought up to
date at the moment of the call.  The utime and stime of /proc/PID/stat hold the same sum in ticks of
10 ms, and /proc/PID/task/*/schedstat loses a thread's share when it ends.  Only for children that
have ended and were waited for there is no such clock: their cutime and cstime are added in ticks.
"""

import ctypes
import os
import resource
import signal
import subprocess
import time

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
MAX_FILES = 60_000
ALL_CPUS = sorted(os.sched_getaffinity(0))


class Placement:
    """Where a process runs: on one CPU as a batch job, or wherever the kernel likes."""

    def __init__(self, mode):
        self.mode = mode
        self.notes = []
        self.nice = None
        if mode == "one":
            self.nice = self._best_nice()

    def _best_nice(self):
        """-10 where that is allowed (root), else the present one."""
        probe = os.fork()
        if probe == 0:
            try:
                os.setpriority(os.PRIO_PROCESS, 0, -10)
                os._exit(0)
            except OSError:
                os._exit(1)
        _, status = os.waitpid(probe, 0)
        if status == 0:
            return -10
        self.notes.append("nice -10 is not permitted here: figures are noisier")
        return None

    def apply(self):
        """Called in the child between fork and exec."""
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _raise_file_limit()
        if self.mode != "one":
            os.sched_setaffinity(0, ALL_CPUS)
            return
        os.sched_setaffinity(0, {ALL_CPUS[-1]})
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        if self.nice is not None:
            os.setpriority(os.PRIO_PROCESS, 0, self.nice)

    def keep_off(self):
        """Move the harness itself away from the measured CPU."""
        if self.mode == "one" and len(ALL_CPUS) > 1:
            os.sched_setaffinity(0, set(ALL_CPUS[:-1]))


def _raise_file_limit():
    """As many descriptors as 10,000 connections need, or as many as are allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in ((MAX_FILES, max(hard, MAX_FILES)), (hard, hard)):
        if soft >= limit[0]:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            return
        except (ValueError, OSError):
            continue


class Process:
    """A started server or client with everything that descends from it."""

    def __init__(self, argv, placement, cwd=None, env=None, log=None, stdin=None, stdout=None):
        self.argv = argv
        self.log = log
        self.started = time.monotonic()
        with open(log or os.devnull, "ab") as sink:
            self.popen = subprocess.Popen(
                argv, cwd=cwd, env=env, stdin=stdin or subprocess.DEVNULL, stdout=stdout or sink,
                stderr=sink, start_new_session=True, preexec_fn=placement.apply)
        self.pid = self.popen.pid

    def alive(self):
        """Whether the root process still runs."""
        return self.popen.poll() is None

    def tree(self):
        """Pids of the root, of its descendants and of what else is in its session."""
        parents, sessions = {}, {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                fields = stat_fields(int(entry))
                if fields and fields[0] != "Z":
                    parents[int(entry)] = int(fields[1])
                    sessions[int(entry)] = int(fields[3])
        members = {pid for pid, session in sessions.items() if session == self.pid}
        if self.pid in parents:
            members.add(self.pid)
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in members} - members
            members |= more
            grown = bool(more)
        return sorted(members)

    def cpu_ns(self):
        """CPU time of the tree so far, children that have been waited for included."""
        total = 0
        for pid in self.tree():
            fields = stat_fields(pid)
            try:
                total += time.clock_gettime_ns(((~pid) << 3) | 2)
            except OSError:
                continue  # it ended in between: its parent's cutime has it at the next reading
            if fields:
                total += (int(fields[13]) + int(fields[14])) * TICK_NS
        return total

    def pss_kb(self):
        """Proportional set size of the tree in KiB."""
        return sum(memory_kb(pid)["Pss"] for pid in self.tree())

    def stop(self, patience=5.0):
        """SIGTERM to the root, then SIGKILL by pid to whatever is left of the tree."""
        members = self._identities()
        if self.alive():
            _signal(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            members |= self._identities()
            if not self.alive() and not any(_is_running(*member) for member in members):
                return
            time.sleep(0.02)
        for member in members | self._identities():
            if _is_running(*member):
                _signal(member[0], signal.SIGKILL)
        try:
            self.popen.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            pass

    def _identities(self):
        """(pid, start time) of the tree: a pid alone may be another's by the time it is used."""
        found = set()
        for pid in self.tree():
            fields = stat_fields(pid)
            if fields:
                found.add((pid, fields[19]))
        return found

    def last_words(self):
        """The end of what it wrote, for an error message."""
        if not self.log:
            return ""
        try:
            with open(self.log, "rb") as stream:
                stream.seek(max(0, os.path.getsize(self.log) - 4096))
                text = stream.read().decode(errors="replace")
        except OSError:
            return ""
        return " / ".join(line.strip() for line in text.splitlines() if line.strip())[-300:]


def stat_fields(pid):
    """Fields of /proc/PID/stat from the state on, or None; [1] ppid, [3] session, [13] cutime."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].decode().split()
    except OSError:
        return None


def memory_kb(pid):
    """Pss, and what is private to the process (Uss), in KiB."""
    found = {"Pss": 0, "Uss": 0}
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
            for line in stream:
                name, _, value = line.partition(":")
                if name == "Pss":
                    found["Pss"] = int(value.split()[0])
                elif name in ("Private_Clean", "Private_Dirty"):
                    found["Uss"] += int(value.split()[0])
    except (OSError, ValueError, IndexError):
        pass
    return found


def _is_running(pid, start_time):
    fields = stat_fields(pid)
    return bool(fields) and fields[0] not in "ZX" and fields[19] == start_time


def _signal(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
