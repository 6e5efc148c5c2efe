"""`stoker explain OPTION`: what becomes of an option of uWSGI's or a setting of Gunicorn's."""

from __future__ import annotations

import sys

from . import gunicorn_settings, names

FATES = {
    "same": "does what it does in uWSGI",
    "better": "accepted; stoker does that always, or in another way",
    "later": "not there yet: left out with a warning, and refused under strict",
    "never": "without effect, and will stay so",
}


def main(argv: list[str]) -> int:
    """Prints what is known of each name; 1 if one is not."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: stoker explain OPTION...\n\nSays what becomes of options of uWSGI and settings of Gunicorn.")
        return 0 if argv else 2
    code = 0
    for word in argv:
        lines = _uwsgi(word.lstrip("-")) + _gunicorn(word.lstrip("-"))
        if not lines:
            near = names.table().nearest(word.lstrip("-"))
            sys.stderr.write("%s: no option of uWSGI or Gunicorn%s\n" % (word, "; %s was probably meant" % near if near else ""))
            code = 1
        for line in lines:
            print(line)
    return code


def _uwsgi(word: str) -> list[str]:
    option = names.table().find(word)
    if option is None:
        return []
    lines = ["uWSGI %s: %s (%s)" % (", ".join(option.names), option.fate, FATES[option.fate])]
    own = own_name(option.target)
    if own:
        lines.append("  in stoker: %s" % own)
    if option.note:
        lines.append("  %s" % option.note)
    return lines


def _gunicorn(word: str) -> list[str]:
    rows = gunicorn_settings.table()
    found = rows.get(word.replace("-", "_")) or next(
        (row for row in rows.values() if "--" + word in row.flags or "-" + word in row.flags), None
    )
    if found is None:
        return []
    lines = ["Gunicorn %s: %s (%s)" % (found.name, found.fate, gunicorn_settings.FATES[found.fate])]
    if found.note:
        lines.append("  %s" % found.note)
    return lines


# Where a rule leads, as far as the rule's word does not say it.
RULES = {
    "@add_header": "header",
    "@cache": "cache",
    "@env": "env",
    "@chdir": "chdir",
    "@mount": "mount",
    "@pidfile": "pidfile",
    "@stats": "stats",
    "@threads": "threads",
    "@socket": "bind",
    "@shared_socket": "bind",
    "@https": "bind, tls-cert, tls-key, tls-client-ca",
    "@http_to_https": "bind, redirect-https",
    "@sni": "tls-cert, tls-key",
    "@chmod_socket": "socket-mode",
    "@proxy_protocol": "proxy-protocol",
    "@buffer_size": "limit-request-head",
    "@post_buffering": "body-buffer",
    "@spooler": "tasks, with uWSGI's configuration",
    "@static_map": "static-map",
    "@check_static": "static-check",
    "@socket_timeout": "body-timeout, send-timeout",
    "@http_keepalive": "keepalive-timeout",
    "@websocket_size": "websocket-max-message",
    "@processes": "workers",
    "@prio": "the priority of the processes",
    "@lazy": "preload",
    "@procname": "name",
    "@touch_chain": "touch-reload",
    "@command": "a command or an option of stoker's own",
    "@loop": "loop",
    "@gevent": "gevent",
    "@gevent_patch": "gevent-monkey-patch",
    "@app": "app",
    "@home": "the interpreter",
    "@pythonpath": "pythonpath",
    "@autoreload": "autoreload",
    "@pyargv": "sys.argv",
    "@envdir": "env",
    "@unenv": "the environment",
    "@static_map2": "static-map",
    "@static_expires": "static-expires",
    "@static_expires_type": "static-expires",
    "@del_header": "header",
    "@logto": "access-log, error-log",
    "@log_format": "access-log-format",
    "@log_date": "log-date",
    "@route": "uwsgi-route",
}


def own_name(target: str) -> str:
    """The option of stoker's, or several, as a text; "" where there is none."""
    if target in ("", "none", "language", "hosted", "module", "@plugin", "@hook"):
        return ""
    if target in RULES:
        return RULES[target]
    if target.startswith("@limit:"):
        return "the limit %s of the processes" % target.partition(":")[2]
    return target.partition(":")[2] if target.startswith("@") else target
