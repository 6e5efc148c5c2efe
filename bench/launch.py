"""Starts the servers that have no command line of their own: `launch.py SERVER APP PORT [MODULE]`."""

import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True


def load(name):
    """The application of "module:callable"."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


async def receive():
    """A request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


def run_eager(app, port, module):
    """bench/eager_limit.c in asyncio's own event loop; `module` is its compiled form."""
    import asyncio
    import importlib.util
    spec = importlib.util.spec_from_file_location("eager_limit", module)
    limit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(limit)
    loop = asyncio.new_event_loop()
    descriptor, turn = limit.start(app, loop, asyncio.Task, receive, port)
    loop.add_reader(descriptor, turn)
    loop.run_forever()


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
    elif server == "eager-limit":
        run_eager(app, port, sys.argv[4])
    else:
        raise SystemExit(f"launch.py: no server {server!r}")


if __name__ == "__main__":
    main()
