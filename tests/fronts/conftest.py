"""Servers and front ends that all tests of this folder share: one start each.

A road is named front-protocol-address: ``nginx-uwsgi-unix``. On unix sockets the configuration is
the document's; over TCP the same with the buffering turned round, so that both ways are used by every
protocol.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest

try:
    import django  # noqa: F401
except ImportError:  # the short run for every interpreter does not install it
    collect_ignore_glob = ["test_*.py"]

from tests.fronts import fronts
from tests.lib.server import Server

APPS = Path(__file__).parent
PROTOCOLS = {"http": "proxy", "uwsgi": "uwsgi", "fastcgi": "fastcgi", "scgi": "scgi"}
HEADINGS = {"http": "HTTP with keep-alive", "uwsgi": "uwsgi", "fastcgi": "FastCGI", "scgi": "SCGI"}


@pytest.fixture(scope="session")
def where():
    """A directory that front ends, which are another user, may look into."""
    path = Path(tempfile.mkdtemp(prefix="stoker-fronts-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def certificate(where):
    return fronts.certificate(where)


class Backend:
    """The server behind all fronts: `tcp` maps a protocol to its port, `unix` is the socket, and
    `proxied` one on which the PROXY protocol is spoken first."""

    def __init__(self, where):
        (where / "mysite").mkdir()
        self.unix = where / "mysite" / "stoker.sock"
        self.proxied = where / "mysite" / "proxied.sock"
        numbers = fronts.ports(len(tuple(PROTOCOLS)))
        self.tcp = dict(zip(tuple(PROTOCOLS), numbers))
        text = fronts.block("behind-nginx.md", "stoker", "toml")
        binds = ['"unix:%s?mode=666"' % self.unix, '"unix:%s?mode=666&proxy-protocol=required"' % self.proxied]
        for name, port in self.tcp.items():
            binds.append('"127.0.0.1:%d"' % port if name == "http" else '"%s://127.0.0.1:%d"' % (name, port))
        changes = {
            '"unix:/run/mysite/stoker.sock?mode=660"': "[%s]" % ", ".join(binds),
            "mysite.wsgi": "frontsite",
            '"unix"': '["unix", "127.0.0.1"]',  # the TCP roads' front ends; the client is 127.0.0.2
        }
        (where / "stoker.toml").write_text(fronts.substitute(text, changes))
        self.server = Server(
            None,
            ["--config", where / "stoker.toml", "--workers", "1", "--metrics", "/metrics"]
            + ["--limit-request-body", "200m", "--limit-request-fields", "40"],
            cwd=APPS,
            bind=None,
            logdir=where,
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.server.host, self.server.port = "127.0.0.1", self.tcp["http"]
        self.server.address = ("127.0.0.1", self.server.port)
        self.server.start("/")

    def metric(self, name):
        """The value of a metric, with its labels in the name."""
        for line in self.server.get("/metrics").text.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise AssertionError("no metric " + name)

    def wait(self, what, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, self.server.report(what)
            time.sleep(0.02)

    def wait_connections(self):
        """Until no connection is in the middle of a request or of a response."""

        def settled():
            states = ("reading", "sending", "closing")
            return not any(self.metric('stoker_connections{state="%s"}' % state) for state in states)

        self.wait("connections are left over", settled)

    def wait_closed(self, name):
        """Until the stream of that name was closed in the application."""
        self.wait(name + " is not closed", lambda: name in self.server.get("/remembered").json()["closed"])


@pytest.fixture(scope="session")
def backend(where):
    found = Backend(where)
    yield found
    found.server.stop()


def nginx_site(protocol, over, backend, certificate, plain, tls):
    """The document's block for a protocol, at two ports of its own."""
    name = "%s-%s" % (protocol, over)
    upstream = "unix:%s" % backend.unix if over == "unix" else "127.0.0.1:%d" % backend.tcp[protocol]
    text = fronts.block("behind-nginx.md", HEADINGS[protocol], "nginx")
    # The plain port serves as well, for whoever looks at the scheme; its redirect has its own test.
    first, second, third = text.partition("server {\n    listen 443 ssl;")
    assert second, "the block of %s has no server at 443" % protocol
    redirect = first[first.index("server {\n") :]
    word = PROTOCOLS[protocol]
    changes = {
        "unix:/run/mysite/stoker.sock": upstream,
        "upstream mysite": "upstream " + name,
        "/etc/ssl/example.org/fullchain.pem": str(certificate[0]),
        "/etc/ssl/example.org/privkey.pem": str(certificate[1]),
        "listen 443 ssl": "listen 127.0.0.1:%d; listen 127.0.0.1:%d ssl" % (plain, tls),
    }
    if protocol == "http":
        changes["http://mysite"] = "http://" + name
        changes["/srv/mysite/static/"] = "%s/static/" % certificate[0].parent
    else:
        changes["uwsgi_pass mysite".replace("uwsgi", word)] = "%s_pass %s" % (word, name)
        changes["include %s_params" % word] = "include /etc/nginx/%s_params" % word
    if over == "tcp" and protocol == "scgi":
        changes["scgi_buffer_size"] = "scgi_buffering off; scgi_buffer_size"
    elif over == "tcp":
        changes["%s_request_buffering off" % word] = "%s_request_buffering on; %s_buffering off" % (word, word)
    text = fronts.substitute(text.replace(redirect, ""), changes)
    if protocol in ("uwsgi", "fastcgi"):  # the block for a prefix goes into the same server
        prefix = fronts.block("behind-nginx.md", HEADINGS[protocol], "nginx", 1)
        changes = {old: changes[old] for old in ("include %s_params" % word, "%s_pass mysite" % word)}
        text = text.rstrip()[:-1] + fronts.substitute(prefix, changes) + "}\n"
    return text


class Roads:
    """Starts a front end when the first road through it is asked for."""

    def __init__(self, where, backend, certificate):
        self.where = where
        self.backend = backend
        self.certificate = certificate
        self.started = {}
        self.found = {"direct": fronts.Road("direct", backend.tcp["http"])}

    def __call__(self, name):
        front = name.partition("-")[0]
        if front not in self.started and front != "direct":
            try:
                self.started[front] = getattr(self, "start_" + front)()
            except AssertionError as error:
                self.started[front] = error  # all of its roads say why, and nobody tries again
        if isinstance(self.started.get(front), AssertionError):
            raise self.started[front]
        return self.found[name]

    def start_nginx(self):
        (self.where / "static").mkdir(exist_ok=True)
        (self.where / "static" / "site.css").write_text("body {}\n")
        sites, listening = [], []
        for protocol in tuple(PROTOCOLS):
            for over in ("unix", "tcp"):
                plain, tls = fronts.ports(2)
                sites.append(nginx_site(protocol, over, self.backend, self.certificate, plain, tls))
                name = "nginx-%s-%s" % (protocol, over)
                self.found[name] = fronts.Road(name, plain, tls, over == "tcp" or protocol == "scgi", keeps=protocol in ("http", "fastcgi"))
                listening += [plain, tls]
        return fronts.nginx(self.where / "nginx", sites, listening)


    def start_apache(self):
        sites, listening = [], []
        for name in APACHE:
            plain, tls = fronts.ports(2)
            changes = {
                "*:443": "127.0.0.1:%d" % tls,
                "/etc/ssl/example.org/fullchain.pem": str(self.certificate[0]),
                "/etc/ssl/example.org/privkey.pem": str(self.certificate[1]),
            }
            if name == "scgi":
                changes["127.0.0.1:4000"] = "127.0.0.1:%d" % self.backend.tcp["scgi"]
            else:
                changes["/run/mysite/stoker.sock"] = str(self.backend.unix)
                # Apache keeps one pool for each name, whatever the socket.
                changes["%s://mysite/" % name] = "%s://%s.mysite/" % (name, name)
            text = fronts.block("apache-haproxy.md", "mod_proxy_" + name, "apache")
            sites.append(fronts.substitute(text, changes))
            plain_host = {"*:443": "127.0.0.1:%d" % plain, "SSLEngine on": "SSLEngine off"}
            sites.append(fronts.substitute(text, {**changes, **plain_host}))
            road = "apache-" + name
            self.found[road] = fronts.Road(
                road,
                plain,
                tls,
                buffers=True,
                keeps=name in ("http", "fcgi"),
                large=12000 if name == "http" else 7000,
                chunked=name in ("http", "fcgi"),
            )
            listening += [plain, tls]
        modules = ["proxy_" + name for name in APACHE]
        return fronts.apache(self.where / "apache", sites, listening, modules)

    def start_haproxy(self):
        both = self.where / "example.org.pem"
        both.write_bytes(self.certificate[0].read_bytes() + self.certificate[1].read_bytes())
        sites, listening = [], []
        for name, title in (("http", "HAProxy"), ("proxy", "The PROXY protocol")):
            plain, tls = fronts.ports(2)
            changes = {
                "frontend www": "frontend " + name,
                "backend mysite": "backend mysite-" + name,  # default_backend as well
                "bind :443 ssl crt /etc/haproxy/example.org.pem": "bind 127.0.0.1:%d\n    bind 127.0.0.1:%d ssl crt %s"
                % (plain, tls, both),
                "/run/mysite/stoker.sock": str(self.backend.unix if name == "http" else self.backend.proxied),
            }
            if name == "proxy":
                changes["/etc/haproxy/clients.pem"] = str(self.certificate[0])
            sites.append(fronts.substitute(fronts.block("apache-haproxy.md", title, "haproxy"), changes))
            road = "haproxy-" + name
            # Bytes are passed on as they come: a connection of the client is one to stoker.
            self.found[road] = fronts.Road(road, plain, tls, keeps=name == "http")
            listening += [plain, tls]
        return fronts.haproxy(self.where / "haproxy", sites, listening)


APACHE = ("http", "uwsgi", "fcgi", "scgi")
NAMES = ["direct"] + ["nginx-%s-%s" % (protocol, over) for protocol in tuple(PROTOCOLS) for over in ("unix", "tcp")]
NAMES += ["apache-" + name for name in APACHE] + ["haproxy-http", "haproxy-proxy"]


@pytest.fixture(scope="session")
def roads(where, backend, certificate):
    found = Roads(where, backend, certificate)
    yield found
    for front in found.started.values():
        if isinstance(front, fronts.Front):
            front.stop()


@pytest.fixture(scope="session", params=NAMES)
def road(request, roads):
    return roads(request.param)


@pytest.fixture(scope="session", params=NAMES[1:])
def front(request, roads):
    """As ``road``, without the direct one."""
    return roads(request.param)


sys.dont_write_bytecode = True
