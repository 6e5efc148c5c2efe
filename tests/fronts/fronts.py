"""nginx, Apache and HAProxy for tests, with the configurations that the documents show.

``block()`` takes a code block out of a page, ``substitute()`` puts the addresses and paths of the test
into it and insists on finding each of them, so that a page and its test cannot drift apart. ``Front``
runs the program in the foreground, in a directory of its own and as an unprivileged user, and ends
it by its pid. ``Road`` is a way to the application: an address at which a front end (or stoker itself)
listens.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import pytest

from tests.lib.server import Connection, Response, free_port

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CLIENT = "127.0.0.2"  # the client's own address: another than that of every front end
HOST = "example.org"
NOBODY = "nobody"
BLOCK = bytes(range(256)) * 256  # that of frontsite.py
START_SECONDS = 20.0
STOP_SECONDS = 20.0


# Documents


def blocks(page: str) -> List[Tuple[List[str], str, str]]:
    """All code blocks of a page: (headings above it, language, text)."""
    found, headings, language, lines = [], [], None, []
    for line in (DOCS / page).read_text("utf-8").splitlines(True):
        fence = re.match(r"```(\w*)$", line.rstrip())
        title = re.match(r"(#+) (.*)", line)
        if language is None and fence:
            language, lines = fence.group(1), []
        elif language is not None and fence:
            found.append(([text for _, text in headings], language, "".join(lines)))
            language = None
        elif language is not None:
            lines.append(line)
        elif title:
            level = len(title.group(1))
            headings = [pair for pair in headings if pair[0] < level] + [(level, title.group(2))]
    return found


def block(page: str, heading: str, language: str, number: int = 0) -> str:
    """The code block number `number` of a language below the heading of that text."""
    found = [text for titles, kind, text in blocks(page) if heading in titles and kind == language]
    assert len(found) > number, "%s, %r: %d blocks of %s" % (page, heading, len(found), language)
    return found[number]


def substitute(text: str, changes: Mapping[str, str]) -> str:
    """`text` with each of the strings replaced; one that is not there is a fault of the page."""
    missing = [old for old in changes if old not in text]
    assert not missing, "the block has no %s:\n%s" % (missing, text)
    pattern = re.compile("|".join(re.escape(old) for old in sorted(changes, key=len, reverse=True)))
    return pattern.sub(lambda match: changes[match.group(0)], text)


# Programs


def program(name: str) -> str:
    """The path of a front end; a test without it is skipped."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip("%s is not installed" % name)
    return path


def user() -> Tuple[str, str]:
    """The user and group that front ends run as."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    entry = pwd.getpwnam(NOBODY)
    return entry.pw_name, grp.getgrgid(entry.pw_gid).gr_name


def _drop() -> None:
    """In the child: no front end of a test runs as root."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam(NOBODY)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)


class Front:
    """A front end as a child process. Ports in `ports` must accept before start() returns."""

    def __init__(self, name: str, argv: Sequence[str], where: Path, ports: Sequence[int]):
        self.name = name
        self.argv = [str(part) for part in argv]
        self.where = where
        self.ports = list(ports)
        self.output = where / (name + ".out")
        self.process: Optional[subprocess.Popen] = None

    def start(self) -> "Front":
        with open(self.output, "wb") as out:
            self.process = subprocess.Popen(
                self.argv,
                cwd=str(self.where),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_drop,
            )
        deadline = time.monotonic() + START_SECONDS
        for port in self.ports:
            while True:
                assert self.process.poll() is None, self.report("ended at its start")
                try:
                    socket.create_connection(("127.0.0.1", port), 5).close()
                    break
                except OSError:
                    pass
                if time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(self.report("did not listen on %d in time" % port))
                time.sleep(0.02)
        return self

    def stop(self) -> None:
        """SIGTERM to the process itself; what is left of its session afterwards is killed."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.process.wait(STOP_SECONDS)

    def report(self, what: str) -> str:
        text = self.output.read_text("utf-8", "replace") if self.output.exists() else ""
        for log in sorted(self.where.glob(self.name + "*.log")):
            text += "--- %s\n%s" % (log.name, log.read_text("utf-8", "replace")[-4000:])
        return "%s %s\n%s" % (" ".join(self.argv), what, text[-8000:])


def writable(where: Path) -> Path:
    """Makes a directory that the front end's user may write, in a temporary one of the test."""
    where.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        entry = pwd.getpwnam(NOBODY)
        os.chown(where, entry.pw_uid, entry.pw_gid)
    return where


NGINX = """\
daemon off;
pid %(where)s/nginx.pid;
worker_processes 1;
error_log %(where)s/nginx-error.log notice;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path %(where)s/body;
    proxy_temp_path %(where)s/proxy;
    fastcgi_temp_path %(where)s/fastcgi;
    uwsgi_temp_path %(where)s/uwsgi;
    scgi_temp_path %(where)s/scgi;
    server_names_hash_bucket_size 128;
%(sites)s
}
"""


def nginx(where: Path, sites: Sequence[str], ports: Sequence[int]) -> Front:
    """nginx with these blocks where Debian includes /etc/nginx/sites-enabled."""
    path = program("nginx")
    writable(where)
    conf = where / "nginx.conf"
    conf.write_text(NGINX % {"where": where, "sites": "\n".join(sites)})
    argv = [path, "-p", where, "-c", conf, "-e", where / "nginx-error.log"]
    return Front("nginx", argv, where, ports).start()


APACHE = """\
ServerRoot "%(where)s"
PidFile "%(where)s/apache.pid"
DefaultRuntimeDir "%(where)s"
Mutex pthread
ServerName localhost
ErrorLog "%(where)s/apache-error.log"
LogLevel warn
StartServers 1
ThreadsPerChild 80
MinSpareThreads 1
MaxSpareThreads 80
MaxRequestWorkers 80
%(modules)s
%(listens)s
%(sites)s
"""
APACHE_MODULES = "mpm_event authz_core headers proxy socache_shmcb ssl rewrite alias setenvif"


def apache(where: Path, sites: Sequence[str], ports: Sequence[int], modules: Sequence[str]) -> Front:
    """Apache with these virtual hosts, and what `a2enmod` of the modules would load."""
    path = program("apache2")
    folder = Path("/usr/lib/apache2/modules")
    loads = []
    for name in [*APACHE_MODULES.split(), *modules]:
        file = folder / ("mod_%s.so" % name)
        if not file.exists():
            pytest.skip("Apache's mod_%s is not installed" % name)
        loads.append("LoadModule %s_module %s" % (name, file))
    writable(where)
    conf = where / "apache.conf"
    text = APACHE % {
        "where": where,
        "modules": "\n".join(loads),
        "listens": "\n".join("Listen 127.0.0.1:%d" % port for port in ports),
        "sites": "\n".join(sites),
    }
    conf.write_text(text)
    return Front("apache", [path, "-DFOREGROUND", "-f", conf], where, ports).start()


HAPROXY = """\
global
    maxconn 1000
defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 60s
%(sites)s
"""


def haproxy(where: Path, sites: Sequence[str], ports: Sequence[int]) -> Front:
    """HAProxy with these front and back ends."""
    path = program("haproxy")
    writable(where)
    conf = where / "haproxy.cfg"
    conf.write_text(HAPROXY % {"sites": "\n".join(sites)})
    return Front("haproxy", [path, "-db", "-f", conf], where, ports).start()


def certificate(where: Path) -> Tuple[Path, Path]:
    """(certificate, key) of example.org, signed by itself."""
    path = program("openssl")
    cert, key = where / "fullchain.pem", where / "privkey.pem"
    subprocess.run(
        [path, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-days", "30", "-subj", "/CN=" + HOST, "-addext", "subjectAltName=DNS:" + HOST]
        + ["-keyout", str(key), "-out", str(cert)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    key.chmod(0o644)
    return cert, key


# Clients


class Client(Connection):
    """A connection from the address CLIENT, with TLS where that is asked for."""

    def __init__(self, address, tls: bool = False, timeout: float = 20.0):
        super().__init__(address, timeout) if isinstance(address, str) else self._dial(address, timeout)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock, server_hostname=HOST)

    def _dial(self, address, timeout: float) -> None:
        self.sock = socket.create_connection(address, timeout, source_address=(CLIENT, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.eof = False


class Road:
    """A way to the application. `port` speaks HTTP, `tls` (0: none) the same over TLS."""

    def __init__(
        self,
        name: str,
        port: int,
        tls: int = 0,
        buffers: bool = False,
        keeps: bool = True,
        large: int = 12000,
        chunked: bool = True,
    ):
        self.name = name
        self.port = port
        self.tls = tls
        self.buffers = buffers  # the front end takes the whole request before it asks stoker
        self.keeps = keeps  # the front end uses its connections to stoker again
        self.large = large  # bytes of a response field that the front end passes on
        self.chunked = chunked  # the front end takes chunked requests; else it answers 411

    def __repr__(self) -> str:
        return self.name

    def connect(self, tls: bool = False, timeout: float = 20.0) -> Client:
        return Client(("127.0.0.1", self.tls if tls else self.port), tls, timeout)

    @staticmethod
    def head(method: str, target: str, fields: Sequence[Tuple[str, str]] = (), close: bool = True) -> bytes:
        lines = ["%s %s HTTP/1.1" % (method, target)]
        if not any(name.lower() == "host" for name, _ in fields):
            lines.append("Host: " + HOST)
        lines += ["%s: %s" % pair for pair in fields]
        if close:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def request(
        self,
        method: str,
        target: str,
        body: Optional[bytes] = None,
        fields: Union[Mapping[str, str], Sequence[Tuple[str, str]]] = (),
        tls: bool = False,
        conn: Optional[Client] = None,
    ) -> Response:
        pairs: List[Tuple[str, str]] = list(fields.items() if isinstance(fields, Mapping) else fields)
        names = {name.lower() for name, _ in pairs}
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            pairs.append(("Content-Length", str(len(body))))
        used = conn or self.connect(tls)
        try:
            used.send(self.head(method, target, pairs, close=conn is None) + (body or b""))
            return used.read_response(method)
        finally:
            if conn is None:
                used.close()

    def get(self, target: str, **kwargs) -> Response:
        return self.request("GET", target, **kwargs)

    def post(self, target: str, body: bytes = b"", **kwargs) -> Response:
        return self.request("POST", target, body, **kwargs)


def ports(count: int) -> List[int]:
    """So many different free ports."""
    found: Dict[int, None] = {}
    while len(found) < count:
        found[free_port()] = None
    return list(found)
