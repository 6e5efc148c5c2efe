"""`stoker convert uwsgi.ini`: the stoker.toml that does the same."""

from __future__ import annotations

import os
import re
import sys

from . import run, spool_rules, translate
from .result import ConfigError, where


def main(argv: list[str], core) -> int:
    """Prints the file to standard output; 1 if the configuration cannot be used."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: stoker convert uwsgi.ini\n\nPrints the stoker.toml that does the same. Takes all that uWSGI takes.")
        return 0 if argv else 2
    try:
        result = run.read(argv)
        translation = translate.translate(result, core.options())
    except ConfigError as error:
        sys.stderr.write("%s\n" % error)
        return 1
    sys.stdout.write(text(translation, result.files, os.environ))
    for warning in dict.fromkeys(str(one) for one in result.warnings):
        sys.stderr.write("warning: %s\n" % warning)
    return 0


def text(translation: translate.Translation, files: list[str], environ) -> str:
    """The file: a setting a line, with where it is from, and above it what was left out."""
    lines = ["# From %s." % (", ".join(files) or "uWSGI's options")]
    for notice in translation.notices:
        lines.append("# " + notice.replace("\n", " "))
    plan = translation.plan
    if plan.home:
        lines.append("# Run it with the stoker of %s." % os.path.join(plan.home, "bin"))
    for name, value in plan.limits.items():
        lines.append("# The limit %s was set to %d: the service manager can do that." % (name, value))
    if plan.argv:
        lines.append("# sys.argv was set to: %s" % " ".join(plan.argv))
    for setting in plan.hosted:
        lines.append("# %s = %s: do that in the module of the application." % (setting.name, setting.value))
    for hook in plan.hooks:
        lines.append("# %s = %s: do that in what starts the server." % (hook.setting.name, hook.setting.value))
    if plan.spool is not None:
        lines.append("# The tasks of the spooler are done with uWSGI's configuration only: keep that, or use a queue such as Celery's.")
    lines.append("")
    for name, value, file, line in translation.settings:
        if name == "program" and isinstance(value, list):
            value = [row for row in value if spool_rules.TASK not in row]
            if not value:
                continue
        comment = "  # %s" % where(file, line) if file else ""
        lines.append("%s = %s%s" % (name, _toml(value), comment))
    return "\n".join(lines) + "\n"


def _toml(value) -> str:
    if isinstance(value, list):
        if len(value) == 1:
            return "[%s]" % _toml_text(value[0])
        return "[\n%s]" % "".join("    %s,\n" % _toml_text(one) for one in value)
    if value in ("true", "false") or re.fullmatch(r"0|[1-9][0-9]{0,17}", value):
        return value
    return _toml_text(value)


def _toml_text(value: str) -> str:
    data = os.fsencode(value).decode("utf-8", "replace")
    out = []
    for char in data:
        if char in '"\\':
            out.append("\\" + char)
        elif ord(char) < 32 or ord(char) == 127:
            out.append("\\u%04x" % ord(char))
        else:
            out.append(char)
    return '"%s"' % "".join(out)



