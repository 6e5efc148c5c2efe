"""The console script: hands the command line to the engine, or to the commands of control.py."""

from __future__ import annotations

import sys

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
    from stoker import _toml

    return _core.main(arguments, _toml.read)


if __name__ == "__main__":
    sys.exit(main())
