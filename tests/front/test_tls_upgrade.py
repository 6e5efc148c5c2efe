"""TLS across a hot upgrade: connections, sessions and certificates go on."""

import os
import re
import shutil
import signal
import ssl
import tempfile
import time
from pathlib import Path

import pytest

from tests.front.test_tls import APP, Load, ask, certs, client, connect, https, pair, response  # noqa: F401
from tests.lib.users import why_not

TAKEN = r"this server has taken over from process (\d+)"


def upgrade(server, log=TAKEN):
    server.send_signal(signal.SIGUSR2)
    return server.wait_log(log)


def new_pid(server, old):
    """The worker that answers new connections, which is not one of `old`."""
    deadline = time.monotonic() + 20
    while True:
        with connect(server) as conn:
            pid = ask(conn, "/pid")
        if pid not in old:
            return pid
        assert time.monotonic() < deadline


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_connections_and_sessions_go_on(https, certs, version):  # noqa: F811
    want = getattr(ssl.TLSVersion, version)
    server = https(*pair(certs, "main"))
    context = client(certs, low=want, high=want)
    load = Load(server)
    load.start()
    with connect(server, context) as kept, connect(server, context) as busy:
        pid = ask(kept, "/pid")
        session = kept.session
        busy.sendall(b"GET /sleep?1 HTTP/1.1\r\nHost: x\r\n\r\n")
        upgrade(server)
        # One more request for what was idle, and what ran is answered.
        kept.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
        status, head, body, _ = response(kept)
        assert (status, body) == (200, pid) and b"Connection: close" in head
        assert kept.recv(1) == b""
        status, head, body, _ = response(busy)
        assert (status, body) == (200, b"slept") and b"Connection: close" in head
    second = new_pid(server, (pid,))
    with connect(server, context, session=session) as conn:
        assert conn.session_reused and ask(conn, "/pid") == second
    load.finish()


def test_other_rules_for_clients_resume_nothing(https, certs, tmp_path):  # noqa: F811
    """A session without a certificate is worth nothing where one is required from now on."""
    options = "".join('%s = "%s"\n' % (name[2:], value) for name, value in zip(*[iter(pair(certs, "main"))] * 2))
    (tmp_path / "stoker.toml").write_text(options)
    server = https("--config", "stoker.toml")
    context = client(certs, high=ssl.TLSVersion.TLSv1_2)
    with connect(server, context) as conn:
        ask(conn)
        session = conn.session
    (tmp_path / "stoker.toml").write_text(
        options + 'tls-client-ca = "%s"\ntls-verify-client = "required"\n' % (certs / "ca.pem"))
    upgrade(server)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        while True:  # until the old server accepts no more
            with connect(server, context, session=session) as conn:
                ask(conn)
    with connect(server, client(certs, high=ssl.TLSVersion.TLSv1_2, cert="client"), session=None) as conn:
        assert ask(conn) == b"hello"


@pytest.fixture
def public():
    """A directory that every user may enter; those of the tests may be closed by the next run of pytest."""
    where = Path(tempfile.mkdtemp(prefix="stoker-tls-"))
    where.chmod(0o755)
    yield where
    shutil.rmtree(where, ignore_errors=True)


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
@pytest.mark.parametrize("folder", [False, True], ids=["files", "directory"])
def test_keys_that_only_root_can_read_stay(https, certs, public, folder):  # noqa: F811
    (public / "app.py").write_text(APP)
    (public / "live").mkdir()
    for end in (".pem", ".key"):
        shutil.copy(certs / ("main" + end), public / "live" / ("c" + end))
    os.chmod(public / "live" / "c.pem", 0o644)
    os.chmod(public / "live" / "c.key", 0o600)
    options = ["--tls-cert", "live"] if folder else ["--tls-cert", "live/c.pem", "--tls-key", "live/c.key"]
    server = https(*options, "--user", "nobody", app="app:app", cwd=public)
    with connect(server, client(certs)) as conn:
        pid = ask(conn, "/pid")
    upgrade(server)
    server.wait_log("c.key cannot be read by user .*: the certificates of the old server stay")
    new_pid(server, (pid,))
    with connect(server, client(certs)) as conn:
        assert ask(conn) == b"hello"


def test_new_certificates_come_with_the_upgrade(https, certs, tmp_path):  # noqa: F811
    for end in (".pem", ".key"):
        shutil.copy(certs / ("main" + end), tmp_path / ("c" + end))
    server = https("--tls-cert", "c.pem", "--tls-key", "c.key")
    with connect(server, client(certs)) as conn:
        pid = ask(conn, "/pid")
    shutil.copy(certs / "new.pem", tmp_path / "c.pem")  # and not its key: the old server goes on
    upgrade(server, "the upgrade failed, because .*")
    with connect(server, client(certs)) as conn:
        assert ask(conn, "/pid") == pid
    shutil.copy(certs / "new.key", tmp_path / "c.key")
    upgrade(server)
    new_pid(server, (pid,))
    with connect(server, client(certs, ca="new")) as conn:
        assert ask(conn) == b"hello"


def test_nothing_secret_is_left_open(https, certs):  # noqa: F811
    server = https(*pair(certs, "main"))
    with connect(server) as conn:
        old = ask(conn, "/pid")
    match = upgrade(server)
    assert int(match.group(1)) == server.pid
    new = int(new_pid(server, (old,)))
    with open("/proc/%d/stat" % new) as file:
        master = int(file.read().rpartition(")")[2].split()[1])
    for pid in (new, master):
        links = [os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)]
        assert not [link for link in links if re.search("memfd:(tls|tickets)", link)], links
