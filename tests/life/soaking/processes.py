"""The processes of a server, seen from outside by /proc: who is there, and what they hold."""

import os
import re
import time

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def _read(path):
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


class Process:
    """One process at one moment. `role` is master, template or worker."""

    def __init__(self, pid, fields, name):
        self.pid = pid
        self.name = name
        self.state = fields[0]
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.threads = int(fields[17])
        self.started = int(fields[19]) / TICKS
        self.role = "master"
        if re.match(r"stoker w\d", name):
            self.role = "worker"
        elif name.startswith("stoker templ"):
            self.role = "template"

    @property
    def age(self):
        with open("/proc/uptime") as stream:
            return float(stream.read().split()[0]) - self.started

    def descriptors(self):
        """What its descriptors are, as /proc names them."""
        found = []
        try:
            for name in os.listdir("/proc/%d/fd" % self.pid):
                try:
                    found.append(os.readlink("/proc/%d/fd/%s" % (self.pid, name)))
                except OSError:
                    pass
        except OSError:
            pass
        return found

    def private_kb(self):
        """Anonymous memory in the working set, in KiB."""
        found = re.search(rb"RssAnon:\s+(\d+)", _read("/proc/%d/status" % self.pid))
        return int(found.group(1)) if found else 0


def look(pid):
    """A process, or None."""
    data = _read("/proc/%d/stat" % pid)
    if not data:
        return None
    name = data[data.index(b"(") + 1 : data.rindex(b")")].decode("utf-8", "replace")
    return Process(pid, data.rpartition(b")")[2].decode().split(), name)


def of_session(session):
    """All processes of a session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            process = look(int(entry))
            if process is not None and process.session == session:
                found.append(process)
    return found


def tcp_peers(port):
    """Inode of the server's socket: port of the client, of all connections to a local port."""
    peers = {}
    for line in _read("/proc/net/tcp").decode().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[3] != "0A":
            peers[fields[9]] = int(fields[2].rpartition(":")[2], 16)
    return peers


def held_ports(process, port):
    """The client ports of the connections that a (stopped) process has open."""
    sockets = {link[8:-1] for link in process.descriptors() if link.startswith("socket:[")}
    return {peer for inode, peer in tcp_peers(port).items() if inode in sockets}


def await_state(pid, states, seconds=2.0):
    """Waits until all threads of a process are in one of the states, as "T". False: they are not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = set()
        try:
            for task in os.listdir("/proc/%d/task" % pid):
                data = _read("/proc/%d/task/%s/stat" % (pid, task))
                if data:
                    found.add(data.rpartition(b")")[2].split()[0].decode())
        except OSError:
            return False
        if found and found <= set(states):
            return True
        time.sleep(0.0005)
    return False


def blocks_signal(pid, number):
    """Whether a process has blocked a signal, as one does that reads it from a descriptor."""
    found = re.search(rb"SigBlk:\s+([0-9a-f]+)", _read("/proc/%d/status" % pid))
    return bool(found) and bool(int(found.group(1), 16) >> (number - 1) & 1)
