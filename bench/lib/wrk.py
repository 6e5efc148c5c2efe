"""Runs wrk and the load client, and reads their figures."""

import json
import math
import os
import signal
import subprocess
import time

from . import paths
from .procs import Process


class ClientError(Exception):
    """A client that failed or said nothing sensible."""


def _figures(process, timeout):
    """The JSON of a client's last line; ends the client when it overstays."""
    try:
        output, _ = process.popen.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.stop(1.0)
        raise ClientError(f"{os.path.basename(process.argv[0])} did not end") from None
    except BaseException:
        process.stop(1.0)
        raise
    for line in reversed(output.decode(errors="replace").splitlines()):
        if line.startswith("{"):
            return json.loads(line.replace("-nan", "0").replace("nan", "0"))
    raise ClientError(f"{os.path.basename(process.argv[0])} ended with {process.popen.returncode}"
                      " and printed no figures")


def run_wrk(port, connections, seconds, arguments, placement, path="/", tls=False):
    """One run of wrk: requests, us, p50, p90, p99 (µs) and errors by kind."""
    whole = max(1, math.ceil(seconds))
    argv = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{whole}s", "--timeout", "10s",
            "-s", paths.WRK_SCRIPT, f"{'https' if tls else 'http'}://127.0.0.1:{port}{path}", "--", *arguments]
    client = Process(argv, placement, stdout=subprocess.PIPE)
    if seconds < whole:  # wrk knows whole seconds only, but ends in order on SIGINT
        try:
            time.sleep(seconds)
        except BaseException:
            client.stop(1.0)
            raise
        client.popen.send_signal(signal.SIGINT)
    figures = _figures(client, whole + 20)
    counted = ["connect", "write", "timeout", "status"]
    if "close=1" not in arguments:
        counted.append("read")  # else: the end of a connection that announced no end
    figures["errors"] = sum(figures[name] for name in counted)
    if any(argument.startswith("pipeline=") for argument in arguments):
        # wrk corrects latencies by the interval of single requests, which batches do not have
        figures["p50"] = figures["p90"] = figures["p99"] = None
    return figures


def run_load(mode, port, placement, program="load", **options):
    """One run of a load client in a bounded mode."""
    return _figures(start_load(mode, port, placement, program, **options),
                    options["seconds"] + 20)


def start_load(mode, port, placement, program="load", **options):
    """Starts a load client (load or ws_load); its figures come when it ends."""
    argv = [paths.compiled(program), mode, "--port", str(port)]
    for name, value in options.items():
        argv += ["--" + name, str(value)]
    return Process(argv, placement, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
