"""Fixtures for tests against a real server.

``serve`` starts servers and ends them, with all checks of ``tests.lib.server``, behind the test::

    def test_hello(serve):
        server = serve('''
            def app(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"hello"]
        ''', "--threads", "2")
        assert server.get("/").body == b"hello"
"""

import os
import platform
import re
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.lib.server import Server  # noqa: E402


# The distribution that the tests of a file test_<word>*.py serve.
APPLICATIONS = {
    "guestbook": "Flask",
    "flask": "Flask",
    "django": "Django",
    "bottle": "bottle",
    "pyramid": "pyramid",
    "falcon": "falcon",
    "zope": "Zope",
    "quixote": "Quixote",
    "webware": "Webware-for-Python",
    "validate": "wsgiref.validate",
    "starlette": "starlette",
    "fastapi": "fastapi",
    "quart": "Quart",
    "litestar": "litestar",
    "blacksheep": "blacksheep",
    "channels": "channels",
    "socketio": "python-socketio",
}


# What a reason for skipping names, and the Debian package that has it.
PACKAGES = {
    "nginx's stream module": "libnginx-mod-stream",
    "nginx": "nginx-light",
    "Apache": "apache2-bin",
    "apache": "apache2-bin",
    "haproxy": "haproxy",
    "openssl": "openssl",
    "curl": "curl",
    "pmccabe": "pmccabe",
    "uwsgi is not installed": "uwsgi-core",
    "compiler": "gcc",
    "git": "git",
    "chromium": "chromium",
}


def write_wanted(terminalreporter):
    """Says how to get what tests were skipped for want of."""
    wanted = {}
    for report in terminalreporter.stats.get("skipped", ()):
        # Three parts, as a tuple or from another process as a list.
        reason = report.longrepr if isinstance(report.longrepr, str) else str(report.longrepr[2])
        module = re.search(r"could not import '([\w.]+)'", reason)
        package = next(
            (PACKAGES[word] for word in PACKAGES if re.search(r"\b" + word, reason)), None
        )
        if module:
            package = "the Python module " + module[1]
        if package:
            wanted[package] = wanted.get(package, 0) + 1
    if not wanted:
        return
    counts = ", ".join("%s (%d)" % item for item in sorted(wanted.items()))
    terminalreporter.write_line("skipped for want of: " + counts)
    debian = sorted(name for name in wanted if " " not in name)
    if debian:
        terminalreporter.write_line("to run them: apt-get install " + " ".join(debian))


def write_failed(path, terminalreporter):
    """Adds the ids of what failed to a file, one a line, for tools/rerun_failed."""
    with open(path, "a") as file:
        for kind in ("failed", "error"):
            for report in terminalreporter.stats.get(kind, ()):
                where, colons, name = str(report.nodeid).partition("::")
                where = os.path.relpath(terminalreporter.config.rootpath / where)
                file.write(where + colons + name + "\n")


def pytest_terminal_summary(terminalreporter):
    """Says which applications were served, with their versions and the number of tests."""
    worker = hasattr(terminalreporter.config, "workerinput")  # one of xdist's: it tells the controller
    if os.environ.get("STOKER_TEST_FAILED") and not worker:
        write_failed(os.environ["STOKER_TEST_FAILED"], terminalreporter)
    write_wanted(terminalreporter)
    counts = {}
    for report in terminalreporter.stats.get("passed", ()):
        name = report.nodeid.partition("::")[0].rpartition("/")[2]
        for word, distribution in APPLICATIONS.items():
            if name.startswith("test_" + word) or "test_asgi_frameworks" in name and word in report.nodeid:
                counts[distribution] = counts.get(distribution, 0) + 1
    found = []
    for distribution, count in counts.items():
        try:
            version = " " + metadata.version(distribution)
        except metadata.PackageNotFoundError:
            version = ""
        found.append("%s%s (%d)" % (distribution, version, count))
    terminalreporter.write_line(
        "exercised on Python %s: %s"
        % (platform.python_version(), ", ".join(found) or "no application of others")
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    setattr(item, "report_" + report.when, report)
    if report.failed:
        for server in getattr(item, "stoker_servers", ()):
            report.sections.append(("stoker: " + " ".join(server.command), server.report("output")))


@pytest.fixture
def serve(request, tmp_path):
    """Starts a server: serve(source_or_name, *options, **arguments of Server).

    The first argument is a name such as "app:app", or the text of a module, which is written to
    app.py in the test's directory and served as "app:app". ``cwd`` is where it runs (the test's
    directory when not given), ``ready`` a path that must answer before the call returns, ``start``
    False leaves the start to the test.
    """
    servers = request.node.stoker_servers = []

    def start_server(app="app:app", *args, cwd=None, ready=None, start=True, **kwargs):
        if app is not None and "\n" in app:
            (tmp_path / "app.py").write_text(textwrap.dedent(app))
            app = "app:app"
        server = Server(app, args, cwd=cwd or tmp_path, logdir=tmp_path, **kwargs)
        servers.append(server)
        return server.start(ready) if start else server

    yield start_server

    report = getattr(request.node, "report_call", None)
    failed = report is None or report.failed
    errors = []
    for server in reversed(servers):
        if failed:
            server.kill()
            continue
        try:
            server.stop()
        except AssertionError as error:
            server.kill()
            errors.append(str(error))
    if errors:
        pytest.fail("\n\n".join(errors), pytrace=False)


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory):
    """As ``serve``, for servers that the tests of a module share. Give it the module's text or a
    name; its directory is a new one unless ``cwd`` says otherwise."""
    servers = []

    def start_server(app="app:app", *args, cwd=None, ready=None, **kwargs):
        where = tmp_path_factory.mktemp("server")
        if app is not None and "\n" in app:
            (where / "app.py").write_text(textwrap.dedent(app))
            app = "app:app"
        server = Server(app, args, cwd=cwd or where, logdir=where, **kwargs)
        servers.append(server)
        return server.start(ready)

    yield start_server

    errors = []
    for server in reversed(servers):
        try:
            server.stop()
        except AssertionError as error:
            server.kill()
            errors.append(str(error))
    if errors:
        pytest.fail("\n\n".join(errors), pytrace=False)
