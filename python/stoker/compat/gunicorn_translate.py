"""From Gunicorn's settings to stoker's options. The table says for each setting what becomes of it; here is what
cannot be said in a row.
"""

from __future__ import annotations

import os
import re
from typing import Callable

from . import gunicorn_format
from .gunicorn_config import Config, Value
from .result import fail

# Name, value or values, file, line: what the engine reads.
Own = tuple

HOSTED = "stoker.compat.gunicorn_server:application()"
DEFAULT_PORT = 8000

THREADED = {
    "sync",
    "gthread",
    "gunicorn.workers.sync.SyncWorker",
    "gunicorn.workers.gthread.ThreadWorker",
}
GREEN = {
    "gevent",
    "gevent_wsgi",
    "gevent_pywsgi",
    "egg:gunicorn#gevent",
    "gunicorn.workers.ggevent.GeventWorker",
    "gunicorn.workers.ggevent.GeventPyWSGIWorker",
}
ASYNC = {
    "asgi",
    "gunicorn.workers.gasgi.ASGIWorker",
    "uvicorn.workers.UvicornWorker",
    "uvicorn.workers.UvicornH11Worker",
    "uvicorn_worker.UvicornWorker",
    "uvicorn_worker.UvicornH11Worker",
}
GONE = {
    "eventlet": "Eventlet is not maintained any more: use `--worker-class gevent`, or `--threads N`",
    "tornado": "use `--worker-class gthread --threads N`, or an ASGI application",
}


def translate(config: Config, hosted: bool, options: dict[str, bool]) -> list[Own]:
    """The settings of stoker. `hosted`: the application is loaded by gunicorn_server, for its hooks. `options`: what
    the engine has.
    """
    own: list[Own] = []
    done: set[str] = set()
    for name, row in config.rows.items():
        value = config.values.get(name, Value(row.default))
        if row.target.startswith("@"):
            if row.target in done:
                continue
            done.add(row.target)
            own.extend(_placed(_FUNCTIONS[row.target[1:]](config, value), value))
        elif row.target and row.target != "hook" and config.is_said(name):
            own.extend(_placed({row.target: _text(value.value)}, value))
    if config["wsgi_app"] is None and config["paste"] is None:
        raise fail("command line", 0, "no application: give it as module:callable")
    own.extend(_application(config, hosted))
    own.extend(_classes(config, options))
    return own


def _placed(items: dict, value: Value) -> list[Own]:
    return [(name, text, value.file or "Gunicorn's default", value.line) for name, text in items.items()]


def _text(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return value
    return str(value)


def _application(config: Config, hosted: bool) -> list[Own]:
    source = config.values.get("paste" if config["paste"] else "wsgi_app", Value(None))
    if hosted:
        return _placed({"app": HOSTED}, source)
    name = str(config["wsgi_app"])
    return _placed({"app": name if ":" in name else name + ":application"}, source)


def needs_hosting(config: Config) -> bool:
    """Must the application be loaded by gunicorn_server? Not where a module and a name say it all."""
    if config["paste"] is not None or config["capture_output"]:
        return True
    if any(row.target == "hook" and config.is_said(name) for name, row in config.rows.items()):
        return True
    return "(" in str(config["wsgi_app"]) and not str(config["wsgi_app"]).endswith("()")


def _classes(config: Config, options: dict[str, bool]) -> list[Own]:
    value = config.values.get("worker_class", Value("sync"))
    kind = kind_of(config)
    if kind == "green":
        if "gevent" not in options:
            raise fail(value.file, value.line, "worker_class: this stoker is built without gevent")
        return _placed({"gevent": str(config["worker_connections"])}, value)
    return _placed({"interface": "asgi"}, value) if kind == "async" else []


def kind_of(config: Config) -> str:
    """threads, green or async; ConfigError for a class that is somebody's own."""
    value = config.values.get("worker_class", Value("sync"))
    name = str(value.value)
    for kind, names in (("threads", THREADED), ("green", GREEN), ("async", ASYNC)):
        if name in names:
            return kind
    for word, instead in GONE.items():
        if word in name.lower():
            raise fail(value.file, value.line, "worker_class: %s is not there; %s", name, instead)
    raise fail(
        value.file,
        value.line,
        "worker_class: %r is a class of Gunicorn's, which stoker cannot run; sync, gthread, gevent, asgi and "
        "uvicorn's are known",
        name,
    )


def _bind(config: Config, value: Value) -> dict:
    scheme = {"http": "", "uwsgi": "uwsgi://"}.get(str(config["protocol"]), "")
    if config["certfile"] is not None:
        scheme = "https://"
    words = [word for word in value.value if isinstance(word, str)]  # type: ignore[union-attr]
    return {"bind": [_address(word, scheme, value) for word in words]}


def _address(text: str, scheme: str, value: Value) -> str:
    """Gunicorn's address in the words of `bind`."""
    word = re.sub(r"^tcp://", "", text)
    if word.startswith(("unix://", "unix:")):
        return scheme + "unix:" + re.sub(r"^unix:(//)?", "", word)
    if word.startswith("fd://"):
        return scheme + word
    host, colon, port = word.rpartition(":")
    if word.startswith("[") and word.endswith("]") or not colon:
        host, port = word, str(DEFAULT_PORT)
    if not port.isdigit():
        raise fail(value.file, value.line, "bind: %r is not a port", port)
    return "%s%s:%s" % (scheme, host or "0.0.0.0", port)


def _workers(config: Config, value: Value) -> dict:
    return {"workers": str(value.value or 1)}


def _app(config: Config, value: Value) -> dict:
    return {}  # _application


def _worker_class(config: Config, value: Value) -> dict:
    kind_of(config)
    return {}  # _classes


def _worker_connections(config: Config, value: Value) -> dict:
    return {"max-connections": str(value.value)} if value.file and kind_of(config) == "async" else {}


def _max_requests(config: Config, value: Value) -> dict:
    return {"max-requests": str(value.value)} if value.value else {}


def _max_requests_jitter(config: Config, value: Value) -> dict:
    most = config["max_requests"]
    if not most:
        return {}
    share = 100 * int(str(value.value)) // int(str(most))
    return {"recycle-jitter": str(min(share, 100))}


def _timeout(config: Config, value: Value) -> dict:
    limited = value.value and kind_of(config) == "threads" and int(str(config["threads"])) <= 1
    return {"request-timeout": "%ss" % value.value} if limited else {}


def _keepalive(config: Config, value: Value) -> dict:
    if not value.file:
        return {}
    return {"keepalive-timeout": "%ss" % value.value if value.value else "off"}


def _limit_request_line(config: Config, value: Value) -> dict:
    number = int(str(value.value))
    return {"limit-request-line": str(min(number, 1 << 20) if number else "1m")} if value.file else {}


def _limit_request_fields(config: Config, value: Value) -> dict:
    return {"limit-request-fields": str(min(max(int(str(value.value)), 1), 1024))} if value.file else {}


def _limit_request_field_size(config: Config, value: Value) -> dict:
    number = int(str(value.value)) or 1 << 20
    if not value.file or number <= 32 << 10:
        return {}
    return {"limit-request-head": str(min(number, 1 << 20))}


def _socket_mode(config: Config, value: Value) -> dict:
    # Gunicorn has it for the files of unix sockets, and not for what the application writes.
    return {"socket-mode": "%03o" % (0o777 & ~int(str(value.value)))} if value.file else {}


def _pythonpath(config: Config, value: Value) -> dict:
    if not value.value:
        return {}
    base = os.path.abspath(str(config["chdir"] or "."))
    # Gunicorn puts each in front of the one before.
    return {"pythonpath": [os.path.join(base, one) for one in str(value.value).split(",")[::-1]]}


def _forwarded_allow_ips(config: Config, value: Value) -> dict:
    return {"forwarded-allow": [*str(value.value).split(","), "unix"]} if value.file else {}


def _proxy_protocol(config: Config, value: Value) -> dict:
    word = str(value.value).lower()
    if word in ("off", "false", "none", ""):
        return {}
    return {"proxy-protocol": "required"}


def _proxy_allow_ips(config: Config, value: Value) -> dict:
    if not value.file or config["proxy_protocol"] in ("off", "false"):
        return {}
    listed = str(config["forwarded_allow_ips"]).split(",")
    return {"forwarded-allow": [*dict.fromkeys([*str(value.value).split(","), *listed, "unix"])]}


def _protocol(config: Config, value: Value) -> dict:
    if value.value not in ("http", "uwsgi"):
        raise fail(value.file, value.line, "protocol: http or uwsgi, not %r", value.value)
    return {}  # _bind


def _http_protocols(config: Config, value: Value) -> dict:
    if "h1" not in str(value.value).replace(" ", "").split(","):
        raise fail(value.file, value.line, "http_protocols: only h1 is there yet")
    return {}


def _accesslog(config: Config, value: Value) -> dict:
    if config["syslog"] and not config["disable_redirect_access_to_syslog"]:
        return {"access-log": "syslog"}
    place = config["accesslog"]
    return {"access-log": "off" if place is None else str(place)}


def _access_log_format(config: Config, value: Value) -> dict:
    text, unknown = gunicorn_format.translate(str(value.value))
    if unknown and (config["accesslog"] is not None or config["syslog"]):
        where = "%s:%d" % (value.file, value.line) if value.line else value.file
        config.warnings.append("%s: access_log_format: written as -: %s" % (where, ", ".join(unknown)))
    return {"access-log-format": text}


def _loglevel(config: Config, value: Value) -> dict:
    word = str(value.value).lower()
    return {"log-level": {"warn": "warning", "fatal": "critical"}.get(word, word)}


def _syslog(config: Config, value: Value) -> dict:
    return {"error-log": "syslog"} if value.value else {}


def _control_socket_disable(config: Config, value: Value) -> dict:
    return {"control": "off"} if value.value else {}


def _cert_reqs(config: Config, value: Value) -> dict:
    words = {0: "off", 1: "optional", 2: "required"}
    number = int(str(value.value))
    if number not in words:
        raise fail(value.file, value.line, "cert_reqs: 0, 1 or 2, not %d", number)
    return {"tls-verify-client": words[number]} if number else {}


_FUNCTIONS: dict[str, Callable[[Config, Value], dict]] = {
    name[1:]: function for name, function in list(globals().items()) if name.startswith("_") and callable(function)
}


def notices(config: Config) -> list[str]:
    """One line for each setting that has been said and is not there, or not the same."""
    lines = list(config.warnings)
    for name, row in config.rows.items():
        if row.fate not in ("later", "never") or not config.is_said(name):
            continue
        value = config.values[name]
        where = "%s:%d" % (value.file, value.line) if value.line else value.file
        what = "is not there yet" if row.fate == "later" else "has no effect"
        lines.append("%s: %s %s. %s" % (where, name, what, row.note))
    return lines


__all__ = ["kind_of", "needs_hosting", "notices", "translate"]
