"""Caches and the life of processes: whoever ends, is replaced or follows, entries stay."""

import json
import os
import signal
import subprocess
import time

import pytest

from tests.life.test_upgrade import alive, wait_until
from tests.lib.server import test_command as command_of_tests

APP = """
    import os
    from stoker import cache

    cache.inc("loaded")

    def answer(code):
        return repr(eval(code, {"cache": cache, "os": os})).encode()

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [answer(environ["wsgi.input"].read() or b"os.getpid()")]
"""

CACHES = ["--cache", "name=kept,items=100,blocksize=64", "--cache", "name=stored,items=50,blocksize=64,store=stored.cache"]


@pytest.fixture
def cached(serve, tmp_path):
    """cached(more options) -> ask(python), and the server."""
    masters = []

    def start(*args, caches=CACHES):
        server = serve(APP, "-w2", "--pidfile", "pid", "--control", "control", *caches, *args, ready="/")
        server.wait_log("ready after")
        masters.append(server)

        def ask(code):
            return eval(server.request("POST", "/", code.encode()).text)

        return ask, server

    yield start
    # `serve` ends those that it has started; this is for the one behind an upgrade.
    pid = master(tmp_path)
    if pid is not None and pid not in [server.process.pid for server in masters] and alive(pid):
        os.kill(pid, signal.SIGKILL)


def master(tmp_path):
    try:
        return int((tmp_path / "pid").read_text())
    except (OSError, ValueError):
        return None


def test_entries_outlive_processes(cached, tmp_path):
    ask, server = cached("--preload")
    assert ask("cache.num('loaded')") == 1  # by the template, before anything was forked
    assert ask("cache.set('a', b'1'), cache.set('b', 'two', 0, 'stored')") == (True, True)
    killed = ask("os.getpid()")
    os.kill(killed, signal.SIGKILL)
    server.wait_log("was killed by SIGKILL")
    assert ask("cache.get('a')") == b"1"
    server.send_signal(signal.SIGHUP)
    wait_until(lambda: ask("cache.num('loaded')") == 2, "no reload", server)
    assert ask("cache.get('a'), cache.get('b', 'stored')") == (b"1", b"two")

    shown = subprocess.run(
        [*command_of_tests(), "status", "--control", "control"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "  cache kept: 2 of 100 items, " in shown.stdout and "  cache stored: 1 of 50 items, " in shown.stdout, shown

    # A hot upgrade: the new server has what the old one had, while both are there as well.
    old = server.pid
    server.send_signal(signal.SIGUSR2)
    wait_until(lambda: master(tmp_path) not in (None, old), "no upgrade", server)
    wait_until(lambda: not alive(old), "the old server stays", server)
    assert ask("cache.get('a'), cache.get('b', 'stored'), cache.num('loaded')") == (b"1", b"two", 3)
    assert ask("cache.update('b', 'new', 0, 'stored')")
    last = master(tmp_path)
    os.kill(last, signal.SIGTERM)
    wait_until(lambda: not alive(last), "the new server does not end", server, 45)

    # The next start has what was stored, and nothing else.
    ask, server = cached()
    assert ask("cache.get('a'), cache.get('b', 'stored')") == (None, b"new")
    assert "cache stored: room for 50 entries" in server.log() and "from its store, 1 there" in server.log()


def test_an_upgrade_to_other_sizes(cached, tmp_path):
    """The store is in use by the old server: the new one begins anew beside it, and takes its place when that goes."""
    (tmp_path / "stoker.toml").write_text('cache = ["name=x,items=10,store=x.cache", "name=same,items=10"]\n')
    ask, server = cached(caches=[])
    assert ask("cache.set('a', b'1'), cache.set('b', b'2', 0, 'same')") == (True, True)
    (tmp_path / "stoker.toml").write_text('cache = ["name=x,items=11,store=x.cache", "name=same,items=10"]\n')
    old = server.pid
    store = os.stat(tmp_path / "x.cache").st_ino
    code = (tmp_path / "app.py").read_text()
    (tmp_path / "app.py").write_text("raise ValueError('no')")
    server.send_signal(signal.SIGUSR2)
    server.wait_log("the upgrade failed, .* this server goes on")
    assert os.stat(tmp_path / "x.cache").st_ino == store
    (tmp_path / "app.py").write_text(code)
    server.send_signal(signal.SIGUSR2)
    wait_until(lambda: not alive(old), "the old server stays", server)
    assert ask("cache.get('a'), cache.get('b', 'same')") == (None, b"2")
    assert ask("cache.set('c', b'3')")
    last = master(tmp_path)
    os.kill(last, signal.SIGTERM)
    wait_until(lambda: not alive(last), "the new server does not end", server, 45)
    ask, server = cached(caches=[])
    assert ask("cache.get('a'), cache.get('c')") == (None, b"3")
    assert [path.name for path in tmp_path.glob("x.cache*")] == ["x.cache"]


def test_expiry_and_eviction(serve):
    server = serve(
        APP, "-w1", "--cache", "name=c,items=3,blocksize=8,math_initial=5", "--cache", "name=lru,items=2,purge_lru=1", "--stats",
        "unix:stats", ready="/",
    )  # fmt: skip

    def ask(code):
        return eval(server.request("POST", "/", code.encode()).text)

    assert ask("cache.num('loaded')") == 6
    assert ask("cache.set('x', b'1', 1), cache.get('x'), cache.set('x', b'2')") == (True, b"1", None)
    deadline = time.monotonic() + 20
    while ask("cache.get('x')") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ask("cache.get('x'), cache.exists('x'), cache.set('x', b'3'), cache.get('x')") == (None, None, True, b"3")
    assert ask("cache.set('y', b'1'), cache.set('z', b'1'), cache.set('long', b'123456789')") == (True, None, None)
    server.wait_log(r"warning: cache c is full: give it more items or blocks, or purge_lru=1")
    assert ask("[cache.set(k, k, 0, 'lru') for k in 'abc'], cache.get('a', 'lru'), cache.get('c', 'lru')") == (
        [True, True, True], None, b"c")  # fmt: skip
    caches = json.loads(stats(server))["caches"]
    assert [(one["name"], one["items"], one["max_items"]) for one in caches] == [("c", 3, 3), ("lru", 2, 2)]
    assert caches[0]["full"] == 1 and caches[1]["evicted"] == 1 and caches[1]["hits"] == 1 and caches[1]["miss"] == 1


def stats(server):
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(server.cwd / "stats"))
        return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize(
    "row, words",
    [
        ("name=a", "it needs a number of items"),
        ("name=a,items=5,blocksize=9999999g", "4 TiB"),
        ("name=a,items=5,sizes=3", "sizes is not known here"),
        ("name=a,items=5,nodes=1.2.3.4:5", "caches are not shared between machines"),
    ],
)
def test_mistakes(serve, tmp_path, row, words):
    (tmp_path / "app.py").write_text("def app(environ, start_response): pass\n")
    done = subprocess.run(
        [*command_of_tests(), "app:app", "--cache", row], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and words in done.stderr and "cache" in done.stderr, done


def test_a_check_touches_no_store(tmp_path):
    (tmp_path / "app.py").write_text("from stoker import cache\nassert cache.set('a', 'b')\ndef app(environ, start_response): pass\n")
    done = subprocess.run(
        [*command_of_tests(), "app:app", "--check", "--cache", "name=a,items=5,store=kept"], cwd=tmp_path, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and not (tmp_path / "kept").exists(), done


def test_a_store_that_is_something_else(tmp_path):
    (tmp_path / "app.py").write_text("def app(environ, start_response): pass\n")
    (tmp_path / "letter").write_text("Dear all")
    done = subprocess.run(
        [*command_of_tests(), "app:app", "--bind", "127.0.0.1:0", "--cache", "name=a,items=5,store=letter"], cwd=tmp_path,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and "letter is there and is no cache of stoker's" in done.stderr, done
    assert (tmp_path / "letter").read_text() == "Dear all"
