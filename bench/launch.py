"""Starts the servers that have no command line of their own: `launch.py SERVER APP PORT`."""

import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True


def load(name):
    """The application of "module:callable"."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def main():
    """Runs one server until it is stopped by a signal."""
    server, port = sys.argv[1], int(sys.argv[3])
    if server == "pywsgi":
        from gevent import monkey
        monkey.patch_all()
    app = load(sys.argv[2])
    if server == "pywsgi":
        from gevent import pywsgi
        pywsgi.WSGIServer(("127.0.0.1", port), app, backlog=4096, log=None).serve_forever()
    elif server == "bjoern":
        import bjoern
        bjoern.run(app, "127.0.0.1", port, listen_backlog=4096)
    elif server == "fastpysgi":
        import fastpysgi
        fastpysgi.server.backlog = 4096
        fastpysgi.run(app, host="127.0.0.1", port=port)
    else:
        raise SystemExit(f"launch.py: no server {server!r}")


if __name__ == "__main__":
    main()
