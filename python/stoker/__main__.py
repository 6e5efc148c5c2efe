"""The console script: hands the command line to the engine."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Serves until it is stopped; returns the exit code."""
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

    return _core.main(sys.argv[1:] if argv is None else argv, _toml.read)


if __name__ == "__main__":
    sys.exit(main())
