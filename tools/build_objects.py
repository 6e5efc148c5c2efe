"""What check_names and check_globals share: the objects of a build and their symbols."""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def objects(build):
    """Pairs (source path such as src/wire/http1.c, object file) of the core and the extension."""
    build = Path(build)
    found = []
    for folder in sorted(build.glob("libstoker-core.a.p")) + sorted(build.glob("_core*.so.p")):
        for path in sorted(folder.glob("*.o")):
            source = re.sub(r"^(?:\.\._)?src_([a-z]+)_(.+)\.c\.o$", r"src/\1/\2.c", path.name)
            found.append((source, path))
    if not found:
        sys.exit("%s has no objects: build it first (ninja -C %s)" % (build, build))
    return found


def symbols(path, *options):
    """Rows (name, type letter, section) of an object by nm."""
    result = subprocess.run(
        ["nm", "--format=sysv", *options, str(path)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in result.stdout.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 7 and fields[0] != "Name":
            yield fields[0], fields[2], fields[6]
