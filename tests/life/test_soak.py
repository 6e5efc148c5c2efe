"""The soak, in short: see tests/life/soak for what it does and what it calls a defect."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).with_name("soak")


@pytest.mark.alone  # what it calls a defect is a request that waited: it needs the machine for itself
@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [
        ("--seconds", "22", "--threads", "1", "--upgrade-every", "9", "--stuck"),
        ("--seconds", "14", "--threads", "4", "--upgrade-every", "6", "--option=--preload"),
        ("--seconds", "11", "--app", "asgi", "--upgrade-every", "5"),
    ],
    ids=["1-thread", "4-threads-preload", "asgi"],
)
def test_nothing_is_dropped(args):
    result = subprocess.run(
        [sys.executable, str(SOAK), "--rate", "150", "--reload-every", "4", "--kill-every", "5", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
        check=False,
    )
    output = result.stdout.decode()
    print(output)
    assert result.returncode == 0, output[-6000:]
