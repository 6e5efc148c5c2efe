"""docs/moving-from-uvicorn.md has each option of the Uvicorn that is installed, and the command line knows each."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.server import test_command as command

uvicorn = pytest.importorskip("uvicorn")
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "moving-from-uvicorn.md").read_text()


def options():
    text = subprocess.run([sys.executable, "-m", "uvicorn", "--help"], capture_output=True, text=True, check=True).stdout
    # What stands in the first column.
    lines = [line for line in text.splitlines() if line.startswith("  -")]
    return sorted({name for line in lines for name in re.findall(r"--[a-z0-9-]+", re.split(r"\s{2,}", line.strip())[0])})


@pytest.mark.parametrize("name", options())
def test_option(name):
    assert re.search("`%s`" % re.escape(name), PAGE), "%s of Uvicorn %s is not in the page" % (name, uvicorn.__version__)


def test_names_are_answered():
    """One that stoker does not have is answered with what it has instead, but for what it always does."""
    names = [name for name in options() if name not in ("--help", "--version", "--reset-contextvars")]
    args = [part for name in names for part in (name, "1")]
    found = subprocess.run(command() + args + ["--check"], capture_output=True, text=True).stderr
    unknown = [line for line in found.splitlines() if "unknown option" in line]
    assert unknown and all("did you mean" in line for line in unknown), "\n".join(unknown)
