"""What cannot be said in a row of options.tsv: one method an entry "@name" of its column `target`.

A rule gets the option and the setting as it comes, in uWSGI's order; what depends on several settings waits for
`finish`. `@name:word` is a rule with a word of its own, mostly the option of stoker.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field

from . import cache_rules, log_rules, names, program_rules, route_rules, spool_rules, spooler
from .hooks import Hook
from .result import Result, Setting, display, fail, where

Own = tuple

# Where a setting is from that nobody has made.
DEFAULT = "uWSGI's default"

# As kind of options.tsv; what uWSGI reads as a number.
NUMBERS = ("int", "rawint", "int64", "int16")

# The schemes of uWSGI's sockets.
SCHEMES = {
    "socket": "uwsgi://",
    "uwsgi-socket": "uwsgi://",
    "puwsgi-socket": "puwsgi://",
    "fastcgi-socket": "fastcgi://",
    "scgi-socket": "scgi://",
    "http": "http://",
    "http-socket": "http://",
    "http11-socket": "http://",
}
SHARED = ("shared-socket", "undeferred-shared-socket")
PROTOCOLS = {"uwsgi": "uwsgi://", "http": "http://", "http11": "http://", "fastcgi": "fastcgi://", "scgi": "scgi://"}

# Plugins whose work is done by stoker itself.
BUILT_IN = re.compile(
    r"(python|pyuwsgi|asyncio|gevent|greenlet|http|corerouter|fastrouter|uwsgi|logfile|logsocket|rsyslog|syslog|stdio|"
    r"router_|transformation_|cheaper_|rpc|signal|spooler|cache|ping|nagios|carbon|stats_pusher|cgroup|zergpool|"
    r"sslrouter|rawrouter|symcall|dummy|echo|notfound|tornado|ugreen|xslt|pty|logzmq|logpipe|logcrypto|zabbix|sentry|"
    r"systemd_logger|graylog2|msgpack|emperor_|alarm_|dumbloop|mongodblog|redislog|webdav|rados|glusterfs|gridfs|geoip|"
    r"curl_cron|expires|airbrake|objc_gc|tuntap|sqlite3|ldap|pam)"
)
LANGUAGES = re.compile(r"(psgi|rack|php|lua|jvm|jwsgi|mono|v8|cgi|gccgo|pypy|ruby|fiber|rbthreads|coroae|forkpty)")


VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# What loads what the engine does not.
HOST = "stoker.compat.uwsgi_host"

# Fields that say where a message ends, or belong to the connection.
FRAMING = frozenset(
    "status content-length transfer-encoding connection keep-alive te trailer trailers upgrade proxy-authenticate "
    "proxy-authorization".split()
)


@dataclass
class Plan:
    """What is done to this process before the engine takes over."""

    home: str | None = None
    home_setting: Setting | None = None
    argv: list[str] | None = None
    limits: dict[str, int] = field(default_factory=dict)
    priority: int | None = None
    unset: list[str] = field(default_factory=list)
    hosted: list[Setting] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)
    mounted: list[str] = field(default_factory=list)
    callable: str = "application"
    environ: dict[str, str] = field(default_factory=dict)
    pidfile2: Setting | None = None
    spool: spooler.Config | None = None
    need_app: bool = False
    notices: list[str] = field(default_factory=list)


class Work:
    """One translation."""

    def __init__(self, result: Result, options: dict[str, bool], plan: Plan, table: names.Table) -> None:
        self.result = result
        self.options = options
        self.plan = plan
        self.table = table
        self.own: list[Own] = []
        self.seen: dict[str, Setting] = {}
        self.logs = log_rules.Logs(plan)
        self.caches = cache_rules.Caches()
        self.programs = program_rules.Programs()
        self.spoolers = spool_rules.Spoolers()
        self.paths: list[Own] = []
        self.added: set[str] = set()
        self.mounts: list[tuple[str, Setting]] = []
        self.pidfiles: dict[str, Setting] = {}
        self.shared_told: list[Setting] = []
        self.shared_taken: set[int] = set()

    def note(self, option: names.Option, setting: Setting) -> None:
        """Takes one setting up."""
        self.seen[option.name] = setting
        if option.target in ("", "none", "language", "module"):
            return
        if option.target == "hosted":
            self.plan.hosted.append(setting)
        elif option.target.startswith("@"):
            rule, _, word = option.target[1:].partition(":")
            getattr(self, "do_" + rule)(option, setting, *([word] if word else []))
        else:
            self.plain(option, setting)

    def add(self, name: str, value: str | list[str], setting: Setting) -> None:
        """One setting of stoker's."""
        self.own.append((name, value, setting.file, setting.line))

    def say(self, setting: Setting, text: str) -> None:
        """Tells the user, with the place."""
        self.plan.notices.append("%s: %s: %s" % (where(setting.file, setting.line), setting.name, text))

    def plain(self, option: names.Option, setting: Setting) -> None:
        """An option that has another name here, or the same."""
        value: str | list[str] = setting.value or ""
        if option.kind == "flag":
            value = "true" if names.is_on(setting.value) else "false"
        elif option.kind in NUMBERS:
            value = str(names.number(setting.value))
        if option.kind == "list":
            value = [setting.value or ""]
        self.add(option.target, value, setting)

    def finish(self) -> list[Own]:
        """All settings, with those that follow from several."""
        if "processes" not in self.seen:
            self.add("workers", "1", Setting("processes", "1", DEFAULT, 0))
        if "gevent" in self.seen and not {"gevent-monkey-patch", "gevent-early-monkey-patch"} & set(self.seen):
            self.add("gevent-monkey-patch", "false", Setting("gevent", None, DEFAULT, 0))
        self.add("uwsgi-module", "true", Setting("uwsgi-module", None, DEFAULT, 0))
        managed = self.seen.get("manage-script-name")
        if managed is not None and names.is_on(managed.value) and any(one[0] == "uwsgi-route" for one in self.own):
            self.add("uwsgi-route-mounted", "true", managed)
        self._finish_preload()
        self._finish_log_format()
        self._finish_pidfiles()
        self._finish_app()
        needed = self.seen.get("need-app")
        self.plan.need_app = needed is not None and names.is_on(needed.value)
        for index, setting in enumerate(self.shared_told):
            if index not in self.shared_taken:
                self.say(setting, "nothing takes it: http-socket = =%d would" % index)
        self.own.extend(self.logs.settings(self.early))
        self.own.extend(self.caches.settings(self.say))
        self.own.extend(self.programs.settings())
        self._finish_spoolers()
        self.own.extend(self.paths)
        return self.own

    def early(self, name: str) -> str:
        """A file that uWSGI opens before it goes to `chdir`."""
        if not (self.result.value("chdir") or self.result.value("force-cwd")):
            return name
        return os.path.join(os.path.abspath(self.result.value("force-cwd") or "."), name)

    def _finish_preload(self) -> None:
        """uWSGI loads the application before it forks, unless lazy-apps says otherwise."""
        lazy = self.seen.get("lazy-apps") or self.seen.get("lazy")
        many = self.seen.get("processes")
        if (lazy is None or not names.is_on(lazy.value)) and many is not None and names.number(many.value) > 1:
            self.add("preload", "true", Setting("lazy-apps", None, DEFAULT, 0))

    # sockets

    def do_socket(self, option: names.Option, setting: Setting) -> None:
        """An address to listen on."""
        if option.name == "protocol":
            if (setting.value or "").lower() not in PROTOCOLS:
                raise fail(setting.file, setting.line, "protocol: %s is not spoken here", setting.value)
            return
        scheme = SCHEMES[option.name if option.name in SCHEMES else setting.name]
        if option.name == "socket":
            protocol = self.result.value("protocol") or self.result.value("socket-protocol") or "uwsgi"
            scheme = PROTOCOLS.get(protocol.lower(), scheme)
        address = self.address(setting, setting.value or "")
        if address is None:
            return
        if scheme not in ("http://",) and not address.startswith(("unix:", "127.", "[::1]", "localhost:", "fd://")):
            self.say(setting, "anybody who reaches this address can speak for any client: better bind 127.0.0.1")
            self.add("allow-public-gateway", "true", setting)
        self.add("bind", [scheme + address], setting)

    def address(self, setting: Setting, text: str) -> str | None:
        """An address as `bind` has it; None if it cannot be."""
        text = text.strip()
        if text.startswith("="):
            return self.shared(setting, text)
        if text.startswith("fd://"):
            return text
        if not text or re.fullmatch(r"[0-9]", text):
            raise fail(setting.file, setting.line, "%s: %r is no address of its own", setting.name, text)
        if text.startswith("@"):
            raise fail(setting.file, setting.line, "%s: abstract unix sockets are not there yet", setting.name)
        if ":" in text and "/" not in text:
            host, _, port = text.rpartition(":")
            if not port.isdigit():
                raise fail(setting.file, setting.line, "%s: %r is not a port", setting.name, port)
            return "%s:%s" % ("0.0.0.0" if host == "*" else host, port)
        return "unix:" + text

    def shared(self, setting: Setting, text: str) -> str | None:
        """The address of the shared socket that =N stands for; both kinds are counted together, from 0."""
        sockets = [one for one in self.result.settings if one.name in SHARED]
        if not text[1:].isdigit() or int(text[1:]) >= len(sockets):
            known = "there is no shared-socket" if not sockets else "the last shared-socket is =%d" % (len(sockets) - 1)
            raise fail(setting.file, setting.line, "%s: %s: %s", setting.name, display(text), known)
        found = sockets[int(text[1:])]
        self.shared_taken.add(int(text[1:]))
        return self.address(found, (found.value or "").lstrip("= "))

    def do_shared_socket(self, option: names.Option, setting: Setting) -> None:
        """What says =N takes it."""
        self.shared_told.append(setting)

    def do_https(self, option: names.Option, setting: Setting) -> None:
        """ADDRESS,CERTIFICATE,KEY[,CIPHERS[,CLIENT CA]]"""
        parts = (setting.value or "").split(",")
        if len(parts) < 3:
            raise fail(setting.file, setting.line, "%s: expected ADDRESS,CERTIFICATE,KEY", setting.name)
        address = self.address(setting, parts[0])
        if address is None:
            return
        self.add("bind", ["https://" + address], setting)
        self.add("tls-cert", [parts[1]], setting)
        self.add("tls-key", [parts[2]], setting)
        if len(parts) > 3 and parts[3]:
            self.say(setting, "ciphers are OpenSSL's defaults, which are safer than most lists; see tls-ciphers")
        if len(parts) > 4 and parts[4]:
            self.add("tls-client-ca", parts[4].lstrip("!"), setting)
            self.add("tls-verify-client", "required" if parts[4].startswith("!") else "optional", setting)

    def do_http_to_https(self, option: names.Option, setting: Setting) -> None:
        """An address that only redirects."""
        address = self.address(setting, (setting.value or "").split(",")[0])
        if address is not None:
            self.add("bind", ["http://" + address], setting)
            self.add("redirect-https", "true", setting)

    def do_sni(self, option: names.Option, setting: Setting) -> None:
        """NAME CERTIFICATE,KEY[,...]"""
        name, _, rest = (setting.value or "").partition(" ")
        parts = rest.strip().split(",")
        if not name or len(parts) < 2:
            raise fail(setting.file, setting.line, "sni: expected NAME CERTIFICATE,KEY")
        self.add("tls-cert", [parts[0]], setting)
        self.add("tls-key", [parts[1]], setting)

    def do_chmod_socket(self, option: names.Option, setting: Setting) -> None:
        """Three octal digits, or 666 where a command line gives no mode; a file has to."""
        value = "1" if setting.value is None else setting.value
        if value != "1" and not re.fullmatch("[0-7]{3,4}", value):
            raise fail(setting.file, setting.line, "%s: %s is no mode, as 660 is", setting.name, display(value))
        self.add("socket-mode", "666" if value == "1" else value, setting)

    def do_proxy_protocol(self, option: names.Option, setting: Setting) -> None:
        """The PROXY protocol, where it comes."""
        if names.is_on(setting.value):
            self.add("proxy-protocol", "optional", setting)

    def do_buffer_size(self, option: names.Option, setting: Setting) -> None:
        """Never less than the default: uWSGI's own is too small for cookies of today."""
        size = names.number(setting.value)
        if size > 32 << 10:
            self.add("limit-request-head", str(min(size, 1 << 20)), setting)

    def do_post_buffering(self, option: names.Option, setting: Setting) -> None:
        """Sizes below the default would only write more files."""
        size = names.number(setting.value)
        if size > 1 << 20:
            self.add("body-buffer", str(min(size, 1 << 30)), setting)

    def do_socket_timeout(self, option: names.Option, setting: Setting) -> None:
        """Both directions."""
        seconds = names.number(setting.value)
        if seconds > 0:
            self.add("body-timeout", "%ds" % seconds, setting)
            self.add("send-timeout", "%ds" % seconds, setting)

    def do_http_keepalive(self, option: names.Option, setting: Setting) -> None:
        """1 means: as long as usual."""
        seconds = names.number(setting.value) if setting.value else 1
        if seconds > 1:
            self.add("keepalive-timeout", "%ds" % seconds, setting)

    # numbers

    def do_threads(self, option: names.Option, setting: Setting) -> None:
        """0 is one."""
        self.add("threads", str(max(names.number(setting.value), 1)), setting)

    def do_number(self, option: names.Option, setting: Setting, target: str) -> None:
        """0 is none."""
        number = names.number(setting.value)
        if number > 0:
            self.add(target, str(number), setting)

    def do_seconds(self, option: names.Option, setting: Setting, target: str) -> None:
        """0 is none."""
        number = names.number(setting.value)
        if number > 0:
            self.add(target, "%ds" % number, setting)

    def do_megabytes(self, option: names.Option, setting: Setting, target: str) -> None:
        """0 is none."""
        number = names.number(setting.value)
        if number > 0:
            self.add(target, "%dm" % number, setting)

    def do_websocket_size(self, option: names.Option, setting: Setting) -> None:
        """Kilobytes."""
        self.add("websocket-max-message", "%dk" % max(names.number(setting.value), 1), setting)

    def do_processes(self, option: names.Option, setting: Setting) -> None:
        """No number, or 0, is one."""
        self.add("workers", str(max(names.number(setting.value), 1)), setting)

    def do_limit(self, option: names.Option, setting: Setting, which: str) -> None:
        """A limit of the kernel's; AS is in megabytes."""
        number = names.number(setting.value)
        if number > 0:
            self.plan.limits[which] = number << 20 if which == "AS" else number

    def do_prio(self, option: names.Option, setting: Setting) -> None:
        """As nice."""
        self.plan.priority = names.number(setting.value)

    # processes

    def do_hook(self, option: names.Option, setting: Setting) -> None:
        """Something to do at a point of the server's life."""
        self.plan.hooks.append(Hook(setting))

    def do_hook_touch(self, option: names.Option, setting: Setting, own: str) -> None:
        """FILE exec:COMMAND"""
        path, _, action = (setting.value or "").partition(" ")
        kind, _, command = action.strip().partition(":")
        if kind != "exec" or not path or not command:
            raise fail(setting.file, setting.line, "%s: expected FILE exec:COMMAND", setting.name)
        self.add(own, ["%s %s" % (path, command)], setting)

    def do_lazy(self, option: names.Option, setting: Setting) -> None:
        """finish."""

    def do_chdir(self, option: names.Option, setting: Setting) -> None:
        """uWSGI goes to force-cwd first, then to chdir."""
        base = self.result.value("force-cwd")
        last = self.result.value("chdir")
        place = setting.value or ""
        if base is not None and last is not None:
            place = os.path.join(base, last)
        self.add("chdir", place, setting)

    def do_pidfile(self, option: names.Option, setting: Setting) -> None:
        """The first as `early` says; the other one as well, if both are asked for."""
        self.pidfiles[option.name] = setting

    def _finish_pidfiles(self) -> None:
        first, second = self.pidfiles.get("pidfile"), self.pidfiles.get("pidfile2")
        if first is not None:
            self.add("pidfile", self.early(first.value or ""), first)
            self.plan.pidfile2 = second
        elif second is not None:
            self.add("pidfile", second.value or "", second)

    def do_stats(self, option: names.Option, setting: Setting) -> None:
        """What has no colon is the path of a unix socket."""
        text = setting.value or ""
        plain = ":" not in text and not text.startswith(("/", ".", "@")) and not text.isdigit()
        self.add("stats", "./" + text if plain and text else text, setting)

    def do_procname(self, option: names.Option, setting: Setting) -> None:
        """The name stands in front of what the process does."""
        self.add("name", (setting.value or "").strip(), setting)

    def do_touch_chain(self, option: names.Option, setting: Setting) -> None:
        """One by one, as always."""
        self.add("touch-reload", [setting.value or ""], setting)

    def do_command(self, option: names.Option, setting: Setting) -> None:
        """What is a command here."""
        raise fail(setting.file, setting.line, "%s: use `stoker %s`", setting.name, {"reload": "reload", "stop": "stop"}.get(setting.name, "--" + setting.name))

    def do_loop(self, option: names.Option, setting: Setting) -> None:
        """asyncio is chosen by the application itself."""
        word = setting.value or ""
        if word in ("asyncio", "uvloop"):
            self.add("loop", word, setting)
        elif word != "gevent":
            self.say(setting, "%s is not there: asyncio, uvloop and gevent are" % word)

    def do_gevent(self, option: names.Option, setting: Setting) -> None:
        """Greenlets, if the engine has them."""
        if "gevent" not in self.options:
            raise fail(setting.file, setting.line, "gevent: this stoker is built without it")
        self.add("gevent", str(max(names.number(setting.value), 1)), setting)

    def do_gevent_patch(self, option: names.Option, setting: Setting) -> None:
        """Before the application is loaded, both of them."""
        if "gevent-monkey-patch" in self.options:
            self.add("gevent-monkey-patch", "true" if names.is_on(setting.value) else "false", setting)

    # Python

    def do_app(self, option: names.Option, setting: Setting) -> None:
        """Module or file; a file may be called anything, as in app.wsgi, and gets a module of uWSGI's name."""
        text = setting.value or ""
        if option.name == "wsgi-file":
            self.plan.hosted.append(setting)
            if "module" in self.seen:
                return  # that one is loaded first
            text = text if text.endswith(".py") else os.path.join(".", text)
        self.add("app", text, setting)

    def do_mount(self, option: names.Option, setting: Setting) -> None:
        """/PREFIX=module:callable, a file of Python, or a configuration of Paste's."""
        prefix, equals, what = (setting.value or "").partition("=")
        if not equals:
            raise fail(setting.file, setting.line, "mount: expected /PREFIX=APPLICATION, not %s", display(setting.value or ""))
        if what.endswith((".py", ".wsgi", ".ini")):
            self.plan.mounted.append(what)
            what = "%s:mounted_%d()" % (HOST, len(self.plan.mounted) - 1)
        self.add("mount", ["%s=%s" % (prefix, what)], setting)
        self.mounts.append((what, setting))

    def _finish_app(self) -> None:
        """The first application is the default one; `finish` of uWSGI's options."""
        loaders = {"module", "wsgi-file", "eval"} | {name for name in self.seen if "paste" in name}
        keeps_out = self.seen.get("no-default-app")
        if self.mounts and not loaders & set(self.seen) and (keeps_out is None or not names.is_on(keeps_out.value)):
            what, setting = self.mounts[0]
            self.add("app", what, setting)
        called = self.seen.get("callable")
        self.plan.callable = (called.value if called is not None else None) or "application"

    def do_home(self, option: names.Option, setting: Setting) -> None:
        """Another interpreter: run.py goes there."""
        self.plan.home, self.plan.home_setting = setting.value, setting

    def do_pythonpath(self, option: names.Option, setting: Setting) -> None:
        """A directory or a pattern: uWSGI puts each in front of the one before."""
        text = setting.value or ""
        for place in sorted(glob.glob(text)) or [text]:
            self.paths.insert(0, ("pythonpath", [place], setting.file, setting.line))

    def do_autoreload(self, option: names.Option, setting: Setting) -> None:
        """The number is the interval, 0 is off; changes are told by the kernel."""
        if names.number(setting.value) > 0:
            self.add("autoreload", "true", setting)

    def do_pyargv(self, option: names.Option, setting: Setting) -> None:
        """sys.argv behind the program."""
        self.plan.argv = (setting.value or "").split()

    def do_plugin(self, option: names.Option, setting: Setting) -> None:
        """Another language's plugin is a mistake."""
        for word in (setting.value or "").replace(" ", "").split(","):
            name = re.sub(r"_plugin(\.so)?$", "", os.path.basename(word.partition(":")[2] or word))
            if LANGUAGES.match(name) and not BUILT_IN.match(name):
                raise fail(setting.file, setting.line, "plugin %s: only Python applications are served", name)
            if name and not BUILT_IN.match(name):
                self.say(setting, "%s is not known; nothing is loaded" % name)

    # environment

    def do_envdir(self, option: names.Option, setting: Setting) -> None:
        """A file a variable, as daemontools have it."""
        try:
            entries = sorted(os.scandir(setting.value or ""), key=lambda entry: entry.name)
        except OSError as error:
            raise fail(setting.file, setting.line, "envdir: %s: %s", setting.value, error.strerror) from None
        for entry in entries:
            if not entry.is_file() or "=" in entry.name or entry.name.startswith("."):
                continue
            with open(entry.path, "rb") as file:
                data = file.read(1 << 16)
            if data:
                line = data.split(b"\n", 1)[0].rstrip(b" \t").replace(b"\0", b"\n")
                self.add("env", ["%s=%s" % (entry.name, os.fsdecode(line))], setting)
            else:
                self.plan.unset.append(entry.name)

    def do_env(self, option: names.Option, setting: Setting) -> None:
        """NAME=VALUE; a name alone takes the variable away, as putenv() does."""
        name, equals, value = (setting.value or "").partition("=")
        if not equals:
            self.say(setting, "without = the variable %s is taken away" % display(name))
            self.do_unenv(option, setting)
        elif not name:
            self.say(setting, "left out: %s has no name" % display(setting.value or ""))
        elif VARIABLE.fullmatch(name):
            self.plan.unset = [one for one in self.plan.unset if one != name]
            self.add("env", [setting.value or ""], setting)
        else:
            spaces = "; put no spaces around =" if name.strip() != name else ""
            self.say(setting, "%s is an unusual name of a variable%s" % (display(name), spaces))
            self.plan.environ[name] = value

    def do_unenv(self, option: names.Option, setting: Setting) -> None:
        """A variable less."""
        name = setting.value or ""
        self.plan.unset.append(name)
        self.plan.environ.pop(name, None)
        self.own = [one for one in self.own if one[0] != "env" or one[1][0].partition("=")[0] != name]

    # files, headers

    def do_static_map(self, option: names.Option, setting: Setting) -> None:
        """What is not there is left to the application, as uWSGI does."""
        prefix, equals, place = (setting.value or "").partition("=")
        if not equals:
            raise fail(setting.file, setting.line, "%s: expected /PREFIX=DIRECTORY", setting.name)
        if self.exists(setting, place):
            self.add("static-map", [setting.value or ""], setting)

    def do_check_static(self, option: names.Option, setting: Setting) -> None:
        """As static-map."""
        if self.exists(setting, setting.value or ""):
            self.add("static-check", [setting.value or ""], setting)

    def exists(self, setting: Setting, place: str) -> bool:
        """Is it there, seen from where the server will be?"""
        base = self.result.value("chdir") or self.result.value("force-cwd") or "."
        if os.path.exists(os.path.join(base, place)):
            return True
        self.say(setting, "%s is not there: nothing is served from it until the next start" % place)
        return False

    def do_static_map2(self, option: names.Option, setting: Setting) -> None:
        """The whole path below the directory."""
        prefix, equals, directory = (setting.value or "").partition("=")
        if not equals:
            raise fail(setting.file, setting.line, "static-map2: expected /PREFIX=DIRECTORY")
        place = directory.rstrip("/") + prefix
        if self.exists(setting, place):
            self.add("static-map", ["%s=%s" % (prefix, place)], setting)

    def do_static_expires(self, option: names.Option, setting: Setting) -> None:
        """REGEXP SECONDS"""
        text, _, seconds = (setting.value or "").rpartition(" ")
        patterns = log_rules.globs(text)
        if not patterns or not seconds.isdigit():
            self.say(setting, "this regular expression cannot be written as patterns: see static-expires")
            return
        for pattern in patterns:
            self.add("static-expires", ["%s=%ss" % (pattern, seconds)], setting)

    def do_static_expires_type(self, option: names.Option, setting: Setting) -> None:
        """TYPE=SECONDS"""
        kind, _, seconds = re.sub(r"[= ]+", " ", setting.value or "").rpartition(" ")
        if not seconds.isdigit() or "/" not in kind:
            raise fail(setting.file, setting.line, "%s: expected TYPE=SECONDS", setting.name)
        self.add("static-expires", ["%s=%ss" % (kind, seconds)], setting)

    def do_route(self, option: names.Option, setting: Setting) -> None:
        value = setting.value or ""
        left_out = route_rules.is_left_out(option.name, setting)
        self.add("uwsgi-route", [route_rules.rule(option.name, value, left_out)], setting)

    def do_add_header(self, option: names.Option, setting: Setting) -> None:
        """Name: value; those that frame messages are the server's here."""
        field, _, value = (setting.value or "").partition(":")
        name = field.strip().lower()
        if name in FRAMING:
            self.say(setting, "left out: %s is the server's own field, and connections are always kept" % name)
        elif name in ("server", "date") and name not in self.added:
            self.add("header", [setting.value or ""], setting)  # in the place of the server's own
        else:
            text = "%s: %s" % (field.strip(), value.strip())
            self.add("header", ['add="%s"' % text.replace("\\", "\\\\").replace('"', '\\"')], setting)
        self.added.add(name)

    def do_del_header(self, option: names.Option, setting: Setting) -> None:
        """A field that leaves."""
        self.add("header", ["remove=%s" % setting.value], setting)

    # programs beside the workers

    def do_program(self, option: names.Option, setting: Setting, own: str) -> None:
        """Daemons, crons and alarms; finish."""
        self.programs.note(option.name, setting, self.say)

    # caches

    def do_cache(self, option: names.Option, setting: Setting) -> None:
        """finish."""
        self.caches.note(option.name, setting)

    def do_spooler(self, option: names.Option, setting: Setting) -> None:
        """finish."""
        self.spoolers.note(option.name, setting)

    def _finish_spoolers(self) -> None:
        become = {own[0]: str(own[1]) for own in self.own if own[0] in ("user", "group")}
        self.own.extend(self.spoolers.settings(become.get("user", ""), become.get("group", "")))
        if self.spoolers.first is not None:
            self.plan.spool = self.spoolers.config

    # logs

    def do_logto(self, option: names.Option, setting: Setting, word: str = "") -> None:
        """All that says where lines go."""
        self.logs.note(option.name, setting)

    def do_log_format(self, option: names.Option, setting: Setting) -> None:
        """uWSGI's fields in stoker's words; `finish` has the last."""

    def do_log_date(self, option: names.Option, setting: Setting) -> None:
        """With a format it is that of all lines."""
        if setting.value and setting.value != "true":
            self.add("log-date", setting.value, setting)

    def _finish_log_format(self) -> None:
        """%(ftime) is what log-date says, with log-format-strftime."""
        setting = self.seen.get("log-format")
        if setting is None:
            return
        switch = self.seen.get("logformat-strftime")
        date = self.seen.get("log-date") or self.seen.get("log-prefix")
        ftime = date.value if switch is not None and names.is_on(switch.value) and date is not None else None
        text, unknown = log_rules.template(setting.value or "", ftime or "")
        if unknown:
            self.say(setting, "written as -: %s" % ", ".join("%%(%s)" % name for name in unknown))
        self.add("access-log-format", text, setting)
