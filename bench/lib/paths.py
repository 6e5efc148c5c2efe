"""Where the benchmark keeps what, and which interpreter it measures.

One virtual environment per interpreter holds the peers and stoker: `.venv-bench` for the default
(Debian's /usr/bin/python3), `.venv-bench-3.13` and the like for others.  Binaries of our own (the
bare epoll loop, the load client) lie in `build-bench`.
"""

import os
import shutil
import subprocess
import sys

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(BENCH)
RESULTS = os.path.join(BENCH, "results")
BUILD = os.path.join(ROOT, "build-bench")
DOCS = os.path.join(ROOT, "docs", "performance.md")
README = os.path.join(ROOT, "README.md")
WRK_SCRIPT = os.path.join(BENCH, "wrk.lua")
DEFAULT_PYTHON = "/usr/bin/python3"

CFLAGS = [
    "-std=gnu11", "-O2", "-g", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wshadow", "-Wconversion",
    "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wwrite-strings", "-Wvla", "-Wformat=2",
]


def find_python(name):
    """The absolute path of an interpreter given as a path, a command or a version ("3.13")."""
    if name is None:
        name = DEFAULT_PYTHON if os.path.exists(DEFAULT_PYTHON) else sys.executable
    candidates = [name]
    if name.replace(".", "").isdigit():
        candidates = ["python" + name]
        home = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
        versions = os.path.join(home, "versions")
        if os.path.isdir(versions):
            for entry in sorted(os.listdir(versions), key=_version_key, reverse=True):
                if entry == name or entry.startswith(name + "."):
                    candidates.append(os.path.join(versions, entry, "bin", "python3"))
    for candidate in candidates:
        path = shutil.which(candidate)
        if path and python_version(path):
            return os.path.abspath(path)
    raise SystemExit(f"bench: no interpreter {name!r} found; give its path with --python")


def _version_key(text):
    return [int(part) for part in text.split(".") if part.isdigit()]


def python_version(path):
    """"3.11.2" of an interpreter, or "" if it does not run."""
    code = "import platform; print(platform.python_version())"
    try:
        done = subprocess.run([path, "-c", code], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode().strip()


def venv_of(python):
    """The virtual environment that belongs to an interpreter."""
    if os.path.realpath(python) == os.path.realpath(DEFAULT_PYTHON):
        return os.path.join(ROOT, ".venv-bench")
    short = ".".join(python_version(python).split(".")[:2])
    return os.path.join(ROOT, ".venv-bench-" + short)


def newest_source():
    """When this repository's sources changed last, in seconds: an older build is stale."""
    newest = 0.0
    for top in ("src", "python"):
        for folder, _, files in os.walk(os.path.join(ROOT, top)):
            for name in files:
                if not name.endswith((".pyc", ".so")):
                    newest = max(newest, os.path.getmtime(os.path.join(folder, name)))
    for name in ("meson.build", "meson_options.txt", "pyproject.toml"):
        path = os.path.join(ROOT, name)
        if os.path.exists(path):
            newest = max(newest, os.path.getmtime(path))
    return newest


def relative(path):
    """A path as it is shown: relative to the repository."""
    return os.path.relpath(path, ROOT)


def module(name, python):
    """The path of a module for this interpreter, compiled from bench/NAME.c when that is newer."""
    code = ("import sysconfig as s; "
            "print(s.get_path('include'), s.get_config_var('EXT_SUFFIX'), sep='\\n')")
    done = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, timeout=30, check=True)
    include, suffix = done.stdout.decode().splitlines()
    return _compiled(name, name + suffix, ["-isystem", include, "-shared", "-fPIC"])


def compiled(name):
    """The path of build-bench/NAME, compiled from bench/NAME.c when that is newer."""
    return _compiled(name, name, [])


def _compiled(name, output, flags):
    source = os.path.join(BENCH, name + ".c")
    binary = os.path.join(BUILD, output)
    if os.path.exists(binary) and os.path.getmtime(binary) >= os.path.getmtime(source):
        return binary
    os.makedirs(BUILD, exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    command = [compiler, *CFLAGS, *flags, "-o", binary, source, "-lm"]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=120, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {source} does not compile:\n{done.stderr.decode()}")
    return binary
