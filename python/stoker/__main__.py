"""The console script: hands the command line to the engine, or to the commands of control.py."""

from __future__ import annotations

import os
import sys

# Of uWSGI's configuration files.
ENDINGS = (".ini", ".yaml", ".yml", ".json", ".js", ".xml")

# As control.COMMANDS; written here so that serving imports nothing for them.
COMMANDS = frozenset(
    "status top ping reload upgrade stop scale recycle stack logs config curl".split()
)


def main(argv: list[str] | None = None) -> int:
    """Serves until it is stopped, or speaks to a server; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in COMMANDS:
        from stoker import control

        return control.main(arguments)
    if arguments and arguments[0] == "explain":
        from stoker.compat import explain

        return explain.main(arguments[1:])
    try:
        from stoker import _core
    except ImportError:
        if sys.platform.startswith("linux"):
            raise
        sys.stderr.write(
            "stoker runs on Linux (it needs epoll, timerfd and SO_REUSEPORT); this is %s. "
            "Use a Linux machine or a container.\n" % sys.platform
        )
        return 1
    if arguments and arguments[0] == "convert":
        from stoker.compat import convert

        return convert.main(arguments[1:], _core)
    if arguments and arguments[0] == "gunicorn":
        from stoker.compat import gunicorn

        return gunicorn.main(arguments[1:], _core)
    if _perhaps_uwsgi(arguments, _core.options()):
        from stoker.compat import detect

        split = detect.command_line(arguments, sys.argv[0], os.environ, _core.options())
        if split is not None:
            from stoker.compat import run

            return run.main(split, _core)
    from stoker import _toml

    return _core.main(arguments, _toml.read)


def _perhaps_uwsgi(arguments: list[str], own: dict[str, bool]) -> bool:
    """False where the command line is stoker's beyond doubt; else stoker.compat.detect decides."""
    if os.path.basename(sys.argv[0]).startswith("uwsgi"):
        return True
    for word in arguments:
        if word.startswith("--"):
            name = word[2:].partition("=")[0].replace("_", "-")
            if name not in own and name[3:] not in own:
                return True
        elif word.startswith("-"):
            if word[1:2] not in own:
                return True
        elif ".ini" in word or word.endswith(ENDINGS):
            return True
    nothing = all(word == "--check" for word in arguments)
    return nothing and any(name.startswith("UWSGI_") for name in os.environ)


if __name__ == "__main__":
    sys.exit(main())
