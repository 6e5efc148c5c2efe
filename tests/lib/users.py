"""Whether a test can make a server change its user."""

import os
import subprocess
import sys

from tests.lib.server import Server, test_command

# A user that every system has, with a group of the same kind.
USER = "nobody"


def why_not():
    """Why the user cannot be changed here, or None."""
    if os.geteuid() != 0:
        return "changing the user needs root"
    # An interpreter below root's home directory is nothing that another user can run.
    tried = subprocess.run(
        [sys.executable, "-c", CHANGE_USER, USER] + test_command() + ["--version"],
        cwd="/",
        env=Server._environment({}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return "the interpreter cannot be run by another user" if tried.returncode else None


CHANGE_USER = (
    "import os, pwd, sys\n"
    "entry = pwd.getpwnam(sys.argv[1])\n"
    "os.setgroups([]); os.setgid(entry.pw_gid); os.setuid(entry.pw_uid)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)
