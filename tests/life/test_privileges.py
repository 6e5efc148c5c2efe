"""--user and --group: what root opens, what the user can do, and that there is no way back."""

import grp
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from tests.lib.server import FATAL_OUTPUT, Server, test_command
from tests.lib.users import CHANGE_USER, USER, why_not

REASON = why_not()
root_only = pytest.mark.skipif(REASON is not None, reason=REASON or "")

APP = """
    import json, os

    def attempt(call, *args):
        try:
            call(*args)
        except OSError as error:
            return error.errno
        return 0

    def app(environ, start_response):
        with open("/proc/self/status") as file:
            status = dict(line.split(":", 1) for line in file)
        body = {
            "uid": os.getresuid(),
            "gid": os.getresgid(),
            "groups": os.getgroups(),
            "setuid": attempt(os.setuid, 0),
            "no_new_privs": status["NoNewPrivs"].strip(),
            "caps": status["CapEff"].strip().lstrip("0"),
            "home": os.environ.get("HOME"),
            "user": os.environ.get("USER"),
        }
        start_response("200 OK", [])
        return [json.dumps(body).encode()]
"""


@pytest.fixture
def place():
    """A directory that others can reach, which those of pytest are not for another user."""
    path = Path(tempfile.mkdtemp(prefix="stoker-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def serve_as(serve, place):
    def start(*args, app=APP, **kwargs):
        (place / "app.py").write_text(textwrap.dedent(app))
        return serve("app:app", *args, cwd=place, **kwargs)

    return start


@root_only
def test_all_of_root_is_gone(serve_as):
    entry = pwd.getpwnam(USER)
    server = serve_as("--user", USER, ready="/")
    body = server.get("/").json()
    assert body["uid"] == [entry.pw_uid] * 3
    assert body["gid"] == [entry.pw_gid] * 3
    assert set(body["groups"]) == set(os.getgrouplist(USER, entry.pw_gid))
    assert body["setuid"] == 1  # EPERM
    assert body["no_new_privs"] == "1"
    assert body["caps"] == ""
    assert (body["home"], body["user"]) == (entry.pw_dir, USER)
    # The master has changed too.
    assert os.stat("/proc/%d" % server.pid).st_uid == entry.pw_uid


@root_only
def test_another_group(serve_as):
    group = grp.getgrnam("daemon")
    server = serve_as("--uid", USER, "--gid", "daemon", ready="/")
    body = server.get("/").json()
    assert body["gid"] == [group.gr_gid] * 3
    assert pwd.getpwnam(USER).pw_uid == body["uid"][0]


@root_only
def test_a_number_without_an_entry(serve_as):
    server = serve_as("--user", "54321", "--group", "54322", ready="/")
    body = server.get("/").json()
    assert body["uid"] == [54321] * 3 and body["gid"] == [54322] * 3
    assert body["groups"] == [54322]


@root_only
def test_a_number_without_an_entry_needs_a_group(serve_as):
    server = serve_as("--user", "54321", start=False, check=False).spawn()
    assert server.wait() == 1
    assert "--group has to be given" in server.log()


@pytest.mark.parametrize("option, what", [("user", "user"), ("group", "group")])
def test_names_that_nobody_has(serve_as, option, what):
    server = serve_as("--" + option, "no-such-one", start=False, check=False).spawn()
    assert server.wait() == 1
    assert 'there is no %s "no-such-one"' % what in server.log()


@root_only
def test_what_root_opens_is_the_users(serve_as, place):
    """Sockets and logs that root has made belong to the user, so that it can open them again."""
    entry = pwd.getpwnam(USER)
    logs = place / "logs"
    logs.mkdir()
    os.chown(logs, entry.pw_uid, entry.pw_gid)
    server = serve_as(
        "--user", USER, "--error-log", "logs/error", "--access-log", "logs/access",
        "--pidfile", "pid", bind="unix:%s" % (place / "socket"), ready="/",
    )  # fmt: skip
    for path in (place / "socket", logs / "error", logs / "access"):
        assert path.stat().st_uid == entry.pw_uid, path
    assert (place / "pid").read_text() == "%d\n" % server.pid
    # Rotated: the server makes new files, as the user that it is now.
    for name in ("error", "access"):
        (logs / name).rename(logs / (name + ".1"))
    server.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + 20
    while not ((logs / "error").exists() and (logs / "access").exists()):
        assert time.monotonic() < deadline, (logs / "error.1").read_text()
        time.sleep(0.02)
    assert server.get("/").status == 200
    server.stop()
    assert not FATAL_OUTPUT.search((logs / "error").read_text())


@root_only
def test_a_log_that_the_user_cannot_write(serve_as, place):
    (place / "access").write_text("")
    os.chown(place / "access", 54321, 54321)
    (place / "access").chmod(0o600)
    server = serve_as(
        "--user", USER, "--access-log", "access", start=False, check=False
    ).spawn()
    assert server.wait() == 1
    assert "access-log: the server's user cannot write access" in server.log()


@root_only
def test_a_directory_that_the_user_cannot_read(serve_as, place):
    place.chmod(0o700)
    os.chown(place, 0, 0)
    server = serve_as("--user", USER, start=False).spawn()
    assert server.wait() == 3
    assert "%s is closed to this user" % place in server.log()


@root_only
def test_an_owner_that_is_given_stays(serve_as, place):
    server = serve_as("--user", USER, bind="unix:%s?owner=54321&mode=666" % (place / "socket"),
                      ready="/")  # fmt: skip
    info = (place / "socket").stat()
    assert info.st_uid == 54321 and stat.S_IMODE(info.st_mode) == 0o666
    assert server.get("/").status == 200


@root_only
def test_an_upgrade_after_the_change(serve_as, place):
    """The sockets are inherited, so a port that only root may bind is kept."""
    entry = pwd.getpwnam(USER)
    server = serve_as("--user", USER, "--pidfile", "pid", "--workers", "2", ready="/")
    server.wait_log("ready after")
    old = server.pid
    os.kill(old, signal.SIGUSR2)
    server.wait_log("has taken over from process %d" % old)
    server.wait()
    new = int((place / "pid").read_text())
    try:
        assert new != old
        assert os.stat("/proc/%d" % new).st_uid == entry.pw_uid
        assert server.get("/").json()["uid"] == [entry.pw_uid] * 3
    finally:
        os.kill(new, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while os.path.exists("/proc/%d" % new) and time.monotonic() < deadline:
            if "Z" in Path("/proc/%d/stat" % new).read_text().rpartition(")")[2].split()[0]:
                break
            time.sleep(0.02)


@root_only
def test_more_workers_after_the_change(serve_as, place):
    """Sockets beside those of root cannot be opened by the user: the workers share them."""
    (place / "stoker.toml").write_text("workers = 1\n")
    server = serve_as("--user", USER, "--pidfile", "pid", ready="/")
    (place / "stoker.toml").write_text("workers = 3\n")
    old = server.pid
    os.kill(old, signal.SIGUSR2)
    server.wait_log("has taken over from process %d" % old)
    server.wait_log(r"has 1 sockets and cannot get more .*: workers share them")
    server.wait()
    for _ in range(30):
        assert server.get("/").status == 200
    os.kill(int((place / "pid").read_text()), signal.SIGTERM)
    server.wait_log(r"stopped after 3\d requests")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may change the user")
def test_only_root_can_change(serve_as):
    server = serve_as("--user", "root", start=False, check=False).spawn()
    assert server.wait() == 1
    assert "can only be changed by root" in server.log()


@root_only
def test_only_root_can_change_tried_by_another(serve_as, place):
    server = serve_as(
        "--user",
        "root",
        start=False,
        check=False,
        command=[sys.executable, "-c", CHANGE_USER, USER] + test_command(),
    ).spawn()
    assert server.wait() == 1
    assert "can only be changed by root" in server.log()
