"""The first process of a container: nobody else reaps its orphans, and the kernel gives it no default
for any signal."""

import os
import signal
import subprocess
import time

import pytest

from tests.lib.server import Server, test_command

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

APP = """
import os, subprocess

def app(environ, start_response):
    if environ["PATH_INFO"] == "/orphan":
        # A child whose parent ends at once, and that ends soon.
        subprocess.run(["sh", "-c", "sleep 0.2 & echo"], stdout=subprocess.DEVNULL)
    start_response("200 OK", [])
    zombies = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as file:
                    zombies += file.read().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                pass
    return [b"%d %d %d" % (os.getppid(), zombies, len(os.listdir("/proc/self/task")))]
"""


@pytest.fixture
def first(tmp_path):
    """A server that is process 1 of its namespace."""
    probe = subprocess.run(UNSHARE[:-1] + ["true"], stderr=subprocess.DEVNULL)
    if probe.returncode != 0:
        pytest.skip("namespaces of processes cannot be made here")
    (tmp_path / "app.py").write_text(APP)
    servers = []

    def start(*args):
        server = Server("app:app", args, cwd=tmp_path, command=UNSHARE + test_command())
        servers.append(server)
        server.start("/")
        with open("/proc/%d/task/%d/children" % (server.pid, server.pid)) as file:
            return server, int(file.read())

    yield start
    for server in servers:
        server.kill()


def test_it_is_process_1_and_stops(first):
    server, pid = first("--workers", "2")
    assert server.get("/").text.split()[0] == "1"
    os.kill(pid, signal.SIGTERM)
    assert server.wait() == 0
    server.check_output()
    assert "SIGTERM: stopping" in server.log()


def test_it_waits_for_orphans(first):
    server, pid = first()
    for _ in range(3):
        server.get("/orphan")
    deadline = time.monotonic() + 20
    while True:
        time.sleep(0.3)
        if server.get("/").text.split()[1] == "0":
            break
        assert time.monotonic() < deadline, server.report("zombies stay")
    os.kill(pid, signal.SIGINT)
    assert server.wait() == 0


def test_an_application_that_cannot_be_loaded_ends_it(first, tmp_path):
    first  # makes the application's directory, or skips
    (tmp_path / "app.py").write_text("import nothing_of_this_name\n")
    server = Server("app:app", cwd=tmp_path, command=UNSHARE + test_command(), check=False).spawn()
    assert server.wait() == 3
