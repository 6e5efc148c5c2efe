"""What bench/setup installs into the environment of the peers."""

# name, distribution on PyPI, command or module that proves it is there, Debian packages needed
PEERS = [
    ("bjoern", "bjoern", "import bjoern", ["libev-dev"]),
    ("fastpysgi", "fastpysgi", "import fastpysgi", []),
    ("granian", "granian", "import granian", []),
    ("peregrine", "peregrine-server", None, []),
    ("uwsgi", "uwsgi", None, []),
    ("gunicorn", "gunicorn", "import gunicorn", []),
    ("gevent", "gevent", "import gevent", []),
    ("waitress", "waitress", "import waitress", []),
    ("flask", "flask", "import flask", []),
    ("uvloop", "uvloop", "import uvloop", []),
    ("httptools", "httptools", "import httptools", []),
    ("uvicorn", "uvicorn", "import uvicorn", []),
    ("hypercorn", "hypercorn", "import hypercorn", []),
    ("websockets", "websockets", "import websockets", []),
    ("wsproto", "wsproto", "import wsproto", []),
    ("fastapi", "fastapi", "import fastapi", []),
]
