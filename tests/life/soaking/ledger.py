"""What became of each request: the accounts of a soak.

A request is answered right, or it failed. A failure is excused only when the client's end of its
connection was among the sockets that a worker held at the moment it was killed: that is read from
/proc while the worker is stopped, so nothing is guessed. All other failures are defects.
"""

import collections
import threading
import time


class Failure:
    """One failed request, with the history of its connection."""

    def __init__(self, kind, link, error):
        self.kind = kind
        self.error = error
        self.at = time.monotonic()
        self.port = link.port
        self.opened = link.opened
        self.last_pid = link.last_pid
        self.history = list(link.history)
        self.excuse = None


class Kill:
    """A worker that was killed, and the client ports of the connections it held."""

    def __init__(self, pid, name, ports):
        self.pid = pid
        self.name = name
        self.ports = ports
        self.at = time.monotonic()

    def excuses(self, failure):
        return failure.port in self.ports and failure.opened <= self.at <= failure.at


class Ledger:
    """Counts, failures and events of one run; used by all threads."""

    def __init__(self):
        self.begin = time.monotonic()
        self.lock = threading.Lock()
        self.answered = collections.Counter()
        self.notes = collections.Counter()
        self.failures = []
        self.closed = []
        self.slow = []
        self.slow_from = 1e9
        self.stuck = False  # with requests that never return
        self.kills = []
        self.events = []
        self.slowest = collections.Counter()
        self.number = 0

    def next_number(self):
        """A number for a request that nobody else has."""
        with self.lock:
            self.number += 1
            return self.number

    def add_answer(self, kind, link, seconds):
        with self.lock:
            if seconds >= self.slow_from and not kind.startswith("slow"):
                self.slow.append(Failure(kind, link, "answered after %.3f s" % seconds))
            self.answered[kind] += 1
            self.slowest[kind] = max(self.slowest[kind], seconds)

    def note(self, what, count=1):
        """Counts something that is no failure, as an idle connection that was closed."""
        with self.lock:
            self.notes[what] += count

    def fail(self, kind, link, error):
        with self.lock:
            self.failures.append(Failure(kind, link, error))

    def closed_idle(self, kind, link):
        """A connection that the server closed while nothing was asked, without notice."""
        with self.lock:
            self.closed.append(Failure(kind, link, "closed"))

    def kill(self, kill):
        with self.lock:
            self.kills.append(kill)
        self.event("killed %s (%d), which held %d connections" % (kill.name, kill.pid, len(kill.ports)))

    def event(self, text):
        """Something that was done to the server."""
        with self.lock:
            self.events.append((time.monotonic(), text))

    def settle(self):
        """Finds the excuse of each failure; yields (excused, defects)."""
        for failure in self.failures + self.closed:
            for kill in self.kills:
                if kill.excuses(failure):
                    failure.excuse = kill
        excused = [failure for failure in self.failures if failure.excuse]
        return excused, [failure for failure in self.failures if not failure.excuse]

    def clock(self, at):
        return "%7.3f" % (at - self.begin)

    def describe(self, failure, around=1.5):
        """A failure as text: the history of its connection and what happened to the server then."""
        lines = [
            "%s %s: %s" % (self.clock(failure.at), failure.kind, failure.error),
            "        client port %d, open since %s, last answer by %s"
            % (failure.port, self.clock(failure.opened), failure.last_pid or "nobody"),
        ]
        lines += ["        %s %s" % (self.clock(at), text) for at, text in failure.history]
        begin = (failure.history[-1][0] if failure.history else failure.at) - around
        lines += [
            "        %s server: %s" % (self.clock(at), text)
            for at, text in self.events
            if begin <= at <= failure.at + around
        ]
        return "\n".join(lines)
