#!/usr/bin/env python3
"""Builds the module of this folder for the interpreter that runs it: build_fake.py [CFLAGS...].

Prints the path of the shared object: stoker._core with the request services of fake_request.c in the
place of a server. It has pyhost/ and the few files of the core that it needs, compiled as meson
compiles them, but by the compiler alone: so the tests run with any interpreter that has
headers. Only what has changed is compiled again.
"""
import fcntl
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FLAGS = (
    "-std=gnu11 -O2 -g -fPIC -pthread -D_GNU_SOURCE -fno-common -fvisibility=hidden -Wall -Wextra "
    "-Wno-unused-parameter -Wno-missing-field-initializers "
    "-fstack-protector-strong -fstack-clash-protection -fcf-protection"
).split()


def version():
    for line in (ROOT / "meson.build").read_text().splitlines():
        if line.strip().startswith("version:"):
            return line.split("'")[1]
    raise SystemExit("meson.build: no version")


def sources():
    for folder in ("base", "wire", "pyhost"):
        yield from sorted((ROOT / "src" / folder).glob("*.c"))
    for folder in ("ipc", "services"):  # what the functions of caches are about
        yield from sorted((ROOT / "src" / folder).glob("cache*.c"))
    yield from sorted(HERE.glob("*.c"))


def newest_header():
    folders = [ROOT / "src" / name for name in ("base", "wire", "app", "pyhost", "config", "ipc", "services")] + [HERE]
    return max(path.stat().st_mtime for folder in folders for path in folder.glob("*.h"))


def build(extra=()):
    """Compiles and links, one process at a time; returns the path of the shared object."""
    folder = ROOT / "build-fake"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return compile_and_link(extra)


def compile_and_link(extra):
    paths = sysconfig.get_paths()
    include = [flag for key in ("include", "platinclude") for flag in ("-isystem", paths[key])]
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = compiler + FLAGS + list(extra) + ['-DSTK_VERSION="%s"' % version(), "-I", str(ROOT / "src")]
    tag = "-".join([sys.implementation.cache_tag] + [flag.strip("-").replace("=", "") for flag in extra])
    # Debian's interpreter and another of the same version are not built alike.
    out = ROOT / "build-fake" / (tag + "-" + str(sum(map(ord, sys.prefix)) % 1000))
    out.mkdir(parents=True, exist_ok=True)
    target = out / ("_core" + sysconfig.get_config_var("EXT_SUFFIX"))
    header = max(newest_header(), (ROOT / "meson.build").stat().st_mtime)
    objects = []
    for source in sources():
        folder = source.parent.name
        obj = out / ("%s_%s.o" % (folder, source.stem))
        objects.append(obj)
        if not obj.exists() or obj.stat().st_mtime <= max(header, source.stat().st_mtime):
            subprocess.run(command + include + ["-c", str(source), "-o", str(obj)], check=True)
    if not target.exists() or target.stat().st_mtime <= max(obj.stat().st_mtime for obj in objects):
        link = compiler + list(extra) + ["-shared", "-pthread", "-Wl,-z,relro", "-Wl,-z,now"]
        subprocess.run(link + list(map(str, objects)) + ["-o", str(target)], check=True)
    return target


if __name__ == "__main__":
    print(build(sys.argv[1:]))
