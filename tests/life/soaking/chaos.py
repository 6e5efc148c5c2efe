"""What is done to the server during a soak: reloads, kills, upgrades; and watching its growth."""

import collections
import os
import random
import signal
import threading
import time

from tests.life.soaking import processes
from tests.life.soaking.ledger import Kill

UPGRADE_SECONDS = 60.0


class Chaos(threading.Thread):
    """Does one thing every `period` seconds."""

    def __init__(self, ledger, target, period):
        super().__init__(daemon=True)
        self.ledger = ledger
        self.target = target
        self.period = period
        self.count = 0
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(self.period):
            self.act()
            self.count += 1

    def act(self):
        raise NotImplementedError


class Reload(Chaos):
    def act(self):
        master = self.target.master()
        if master is not None:
            self.ledger.event("SIGHUP to %d" % master)
            send(master, signal.SIGHUP)


class Killer(Chaos):
    """SIGKILL for a random worker or template, whatever it is doing."""

    def __init__(self, ledger, target, period, seed):
        super().__init__(ledger, target, period)
        self.random = random.Random(seed)

    def act(self):
        found = [process for process in self.target.processes() if process.role != "master"]
        if not found:
            return
        victim = self.random.choice(found)
        # It is stopped first, so that what it holds can be read; a stopped process is killed as any.
        if not send(victim.pid, signal.SIGSTOP):
            return
        if processes.await_state(victim.pid, "T"):
            now = processes.look(victim.pid)
            if now is not None and now.started == victim.started:
                ports = processes.held_ports(victim, self.target.port)
                self.ledger.kill(Kill(victim.pid, victim.name, ports))
        else:
            self.ledger.event("%s (%d) was gone before it could be killed" % (victim.name, victim.pid))
        send(victim.pid, signal.SIGKILL)


class Upgrade(Chaos):
    """SIGUSR2, and waiting for another master."""

    def __init__(self, ledger, target, period):
        super().__init__(ledger, target, period)
        self.failed = 0

    def act(self):
        old = self.target.master()
        if old is None:
            return
        self.ledger.event("SIGUSR2 to %d" % old)
        send(old, signal.SIGUSR2)
        begin = time.monotonic()
        while time.monotonic() < begin + UPGRADE_SECONDS and not self.ended.wait(0.1):
            new = self.target.master()
            if new not in (None, old):
                self.ledger.event(
                    "the new master is %d, after %.1f s" % (new, time.monotonic() - begin)
                )
                return
        if not self.ended.is_set():
            self.failed += 1
            self.ledger.event("no new master within %.0f s" % UPGRADE_SECONDS)


def send(pid, number):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


class Watch(Chaos):
    """Samples of descriptors and memory of all processes.

    A master is looked at only while it is the only one and has all its children, no more and no
    less: it has a descriptor for each, and one that is finishing has closed what it does not need.
    """

    def __init__(self, ledger, target, period=0.5):
        super().__init__(ledger, target, period)
        self.samples = []  # (time, role, pid, age, descriptors, private KiB)
        self.zombies = {}
        self.most_processes = 0
        self.survivors = []

    def act(self):
        now = time.monotonic() - self.ledger.begin
        found = self.target.processes()
        self.most_processes = max(self.most_processes, len(found))
        zombies = {process.pid for process in found if process.state == "Z"}
        self.zombies = {pid: self.zombies.get(pid, now) for pid in zombies}
        for pid, since in self.zombies.items():
            if now - since > 5.0 and pid not in self.survivors:
                self.survivors.append(pid)
        roles = collections.Counter(p.role for p in found if p.state not in "ZX")
        calm = dict(roles) == self.target.roles
        for process in found:
            loads = process.role == "worker" and process.threads == 1  # it serves with two at least
            if process.state not in "ZX" and not loads and (calm or process.role != "master"):
                links = process.descriptors()
                connections = sum(link.startswith("socket:[") for link in links)
                own = len(links) if process.role != "worker" else len(links) - connections
                self.samples.append(
                    (now, process.role, process.pid, process.age, own, process.private_kb())
                )

    def growth(self, role, least_age, most_age, column):
        """(first, last): low values of the first and the last third of the run, or None. Not the least
        ones: those are of a worker that is ending, and has given back what it had."""
        values = [
            (sample[0], sample[column])
            for sample in self.samples
            if sample[1] == role and least_age <= sample[3] <= most_age and sample[5] > 0
        ]
        if len(values) < 6:
            return None
        begin, end = values[0][0], values[-1][0]
        third = (end - begin) / 3
        first = [value for at, value in values if at <= begin + third]
        last = [value for at, value in values if at >= end - third]
        return (sorted(first)[len(first) // 4], sorted(last)[len(last) // 4]) if first and last else None
