"""The scenarios that are not a closed loop of wrk."""

import contextlib
import dataclasses
import os
import socket
import subprocess
import time

from . import paths, timer
from .procs import memory_kb
from .rounds import Outcome
from .session import START_TIMEOUT, StartError, first_answer
from .stats import median, middle
from .wrk import ClientError, run_load, run_wrk, start_load

RATE = 100
IDLE_SECONDS = 10
GOOD_RATE = 500
SLOW_CLIENTS = 1000
SLOW_INTERVAL_MS = 1000
SLOW_SECONDS = 10
FAIR_SECONDS = 8


def _started(session, scenario, specs, outcome, say):
    """Starts all; those that do not start are noted."""
    running = []
    for spec in specs:
        try:
            running.append(session.start_ready(spec, scenario))
        except StartError as problem:
            outcome.fail(spec, problem)
            say(f"  {spec}: {problem}")
    return running


@contextlib.contextmanager
def _guard(server, running, session, outcome, say):
    """A server that fails is noted and left out of further rounds; the others go on."""
    try:
        yield
    except ClientError as problem:
        outcome.fail(server.spec, problem)
        say(f"  {server.spec}: {problem}")
        running.remove(server)
        session.stop(server.process)


def _stop_all(session, running):
    for server in running:
        session.stop(server.process)


def _in_rounds(session, running, rounds, outcome, say, measure, shown):
    """Measures one server after the other, round by round; `shown` is a round's figures as text."""
    for number in range(rounds):
        for server in list(running):
            with _guard(server, running, session, outcome, say):
                figures = measure(server)
                outcome.add(server.spec, figures)
                say(f"  round {number + 1}/{rounds} {str(server.spec):<24}{shown(figures)}")


@contextlib.contextmanager
def _beside(kind, port, placement, **load):
    """A client that runs meanwhile; it has a second to begin."""
    client = start_load(kind, port, placement, **load)
    try:
        time.sleep(1.0)
        yield
    finally:
        _end_client(client, 3.0)


def _end_client(client, seconds):
    client.stop(seconds)
    client.popen.stdin.close()
    client.popen.stdout.close()


def _against_alone(alone, beside):
    if not alone["requests"] or not beside["requests"]:
        raise ClientError("no request was answered")
    return {
        "p99_alone_ms": alone["p99"] / 1000, "p99_ms": beside["p99"] / 1000,
        "p50_ms": beside["p50"] / 1000, "p99_ratio": beside["p99"] / max(alone["p99"], 0.1),
        "requests": beside["requests"], "errors": beside["errors"],
        "rps": beside["requests"] * 1e6 / beside["us"]}


def rate(session, scenario, specs, rounds, say):
    """A paced client at 100 requests/s: CPU per request when every request wakes the server."""
    outcome = Outcome()
    seconds = 2 if session.options.quick else 5
    running = _started(session, scenario, specs, outcome, say)
    _in_rounds(session, running, rounds, outcome, say,
               lambda server: _paced(server, session.placement(scenario), seconds),
               lambda figures: f"{figures['cpu_us']:9.2f} µs/req")
    _stop_all(session, running)
    return outcome


def _paced(server, placement, seconds):
    connections = min(8, server.connections)
    before = server.process.cpu_ns()
    figures = run_load("rate", server.port, placement, rate=RATE, connections=connections,
                       seconds=seconds)
    used = server.process.cpu_ns() - before
    if not figures["requests"]:
        raise ClientError("no request was answered")
    return {
        "cpu_us": used / 1000 / figures["requests"],
        "rps": figures["requests"] * 1e6 / figures["us"],
        "p50_ms": figures["p50"] / 1000, "p99_ms": figures["p99"] / 1000,
        "pss_mb": server.process.pss_kb() / 1024, "requests": figures["requests"],
        "errors": figures["errors"]}


def idle(session, scenario, specs, rounds, say):
    """CPU of servers that nobody talks to: all of them in the same seconds."""
    outcome = Outcome()
    seconds = 2 if session.options.quick else IDLE_SECONDS
    running = _started(session, scenario, specs, outcome, say)
    time.sleep(2.0)  # what starting left to do
    for _ in range(1 if session.options.quick else min(rounds, 3)):
        before = [server.process.cpu_ns() for server in running]
        began = time.monotonic()
        time.sleep(seconds)
        for server, start in zip(running, before):
            used = server.process.cpu_ns() - start
            percent = used / 1e9 / (time.monotonic() - began) * 100
            outcome.add(server.spec, {"percent": percent,
                                      "pss_mb": server.process.pss_kb() / 1024})
            say(f"  {str(server.spec):<24}{percent:9.4f} % CPU")
    _stop_all(session, running)
    return outcome


def idle10k(session, scenario, specs, rounds, say):
    """PSS with 10,000 open keep-alive connections, each of which was answered once, less before."""
    outcome = Outcome()
    placement = session.placement(scenario)
    count = 1000 if session.options.quick else scenario.connections
    for _ in range(1 if session.options.quick else min(rounds, 3)):
        for spec in specs:
            if str(spec) in outcome.problems:
                continue
            server = None
            try:
                server = session.start_ready(spec, scenario)
                run_wrk(server.port, 64, 0.5, (), placement)
                time.sleep(0.3)
                before = server.process.pss_kb()
                bytes_each = _hold(server, placement, count, before)
            except (StartError, ClientError) as problem:
                outcome.fail(spec, problem)
                say(f"  {spec}: {problem}")
                continue
            finally:
                if server:
                    session.stop(server.process)
            outcome.add(spec, {"bytes": bytes_each, "pss_mb": before / 1024})
            say(f"  {str(spec):<24}{bytes_each:9.0f} bytes a connection")
    return outcome


def _hold(server, placement, count, before_kb):
    """Bytes that each of `count` held connections costs the server."""
    client = start_load("hold", server.port, placement, connections=count, seconds=60)
    try:
        line = client.popen.stdout.readline().decode()  # printed when all are open
        if f'"open":{count}}}' not in line:
            raise ClientError(f"holds not all of {count} connections: {line.strip()}")
        return (server.process.pss_kb() - before_kb) * 1024 / count
    finally:
        _end_client(client, 1.0)


def ws_echo(session, scenario, specs, rounds, say):
    """CPU per message that each of many WebSockets sends when its last one has come back."""
    outcome = Outcome()
    seconds = max(1, round(session.options.seconds))
    placement = session.placement(scenario)
    running = _started(session, scenario, specs, outcome, say)
    for server in list(running):
        with _guard(server, running, session, outcome, say):
            _echo(session, server, scenario, placement, 1)  # warms it up
    _in_rounds(session, running, rounds, outcome, say,
               lambda server: _echo(session, server, scenario, placement, seconds),
               lambda figures: f"{figures['cpu_us']:9.2f} µs/message "
                               f"{figures['rps']:9.0f} messages/s")
    _stop_all(session, running)
    return outcome


def _echo(session, server, scenario, placement, seconds):
    session.empty_logs(server.port)
    before = server.process.cpu_ns()
    figures = run_load("echo", server.port, placement, program="ws_load", size=scenario.body,
                       connections=scenario.connections, seconds=seconds)
    used = server.process.cpu_ns() - before
    if not server.process.alive():
        raise ClientError("ended during the round: " + server.process.last_words())
    if figures["open"] < scenario.connections or not figures["requests"]:
        raise ClientError(f"echoes on {figures['open']} of {scenario.connections} WebSockets")
    return {
        "cpu_us": used / 1000 / figures["requests"],
        "rps": figures["requests"] * 1e6 / figures["us"],
        "p50_ms": figures["p50"] / 1000, "p99_ms": figures["p99"] / 1000,
        "pss_mb": server.process.pss_kb() / 1024, "requests": figures["requests"],
        "errors": figures["errors"]}


def ws_idle(session, scenario, specs, rounds, say):
    """PSS with many idle WebSockets, each of which was used once, less before, and less what the
    application's side of them costs in a process that has them without a server."""
    outcome = Outcome()
    placement = session.placement(scenario)
    count = 500 if session.options.quick else scenario.connections
    for _ in range(1 if session.options.quick else min(rounds, 3)):
        own = _bare_websockets(session, placement, count)
        for spec in specs:
            if str(spec) in outcome.problems:
                continue
            server = None
            try:
                server = session.start_ready(spec, scenario)
                run_load("echo", server.port, placement, program="ws_load", connections=8, seconds=1)
                time.sleep(0.3)
                before = server.process.pss_kb()
                total = _hold_websockets(server, placement, count, before)
            except (StartError, ClientError) as problem:
                outcome.fail(spec, problem)
                say(f"  {spec}: {problem}")
                continue
            finally:
                if server:
                    session.stop(server.process)
            outcome.add(spec, {"bytes": total - own, "total_bytes": total, "own_bytes": own,
                               "pss_mb": before / 1024})
            say(f"  {str(spec):<24}{total - own:9.0f} bytes a connection, beside {own:.0f} of the "
                f"application")
    return outcome


def _hold_websockets(server, placement, count, before_kb):
    """Bytes that each of `count` held WebSockets costs the server."""
    client = start_load("hold", server.port, placement, program="ws_load", connections=count,
                        seconds=60)
    try:
        line = client.popen.stdout.readline().decode()  # printed when all are open
        if f'"open":{count}}}' not in line:
            raise ClientError(f"holds not all of {count} WebSockets: {line.strip()}")
        return (server.process.pss_kb() - before_kb) * 1024 / count
    finally:
        _end_client(client, 1.0)


def _bare_websockets(session, placement, count):
    """Bytes that each of `count` WebSockets costs on the application's side (bench/bare_ws.py)."""
    python = os.path.join(session.venv, "bin", "python")
    process = session.spawn([python, os.path.join(paths.BENCH, "bare_ws.py"), str(count)],
                            placement, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.popen.stdout.readline()
        before = memory_kb(process.pid)["Pss"]
        process.popen.stdin.write(b"\n")
        process.popen.stdin.flush()
        process.popen.stdout.readline()
        return (memory_kb(process.pid)["Pss"] - before) * 1024 / count
    finally:
        session.stop(process)
        process.popen.stdin.close()
        process.popen.stdout.close()


def slowloris(session, scenario, specs, rounds, say):
    """p99 of good clients with 1,000 slow ones, against without, in alternation."""
    outcome = Outcome()
    placement = session.placement(scenario)
    seconds = 2 if session.options.quick else SLOW_SECONDS
    running = _started(session, scenario, specs, outcome, say)
    _in_rounds(session, running, rounds, outcome, say,
               lambda server: _beside_slow(server, placement, seconds),
               lambda figures: f"p99 {figures['p99_alone_ms']:.3f} ms alone, "
                               f"{figures['p99_ms']:.3f} ms beside")
    _stop_all(session, running)
    return outcome


def _beside_slow(server, placement, seconds):
    alone = _good(server, placement, seconds)
    with _beside("slow", server.port, placement, connections=SLOW_CLIENTS,
                 interval=SLOW_INTERVAL_MS, seconds=seconds + 2):
        beside = _good(server, placement, seconds)
    return _against_alone(alone, beside)


def _good(server, placement, seconds):
    return run_load("rate", server.port, placement, rate=GOOD_RATE,
                    connections=min(8, server.connections), seconds=seconds)


def fair(session, scenario, specs, rounds, say):
    """p99 of a fast endpoint on many connections while one worker of two is always in a slow request.

    Each round measures, one after the other, the same server with one worker and nothing else, and with
    its two workers beside the slow request.
    """
    outcome = Outcome()
    seconds = 3 if session.options.quick else FAIR_SECONDS
    alone = {}
    for server in _started(session, scenario, [dataclasses.replace(spec, workers=1)
                                               for spec in specs], outcome, say):
        alone[dataclasses.replace(server.spec, workers=2)] = server
    running = [server for server in _started(session, scenario, specs, outcome, say)
               if server.spec in alone]
    _in_rounds(session, running, rounds, outcome, say,
               lambda server: _beside_one_slow(session, scenario, alone[server.spec], server, seconds),
               lambda figures: f"p99 {figures['p99_alone_ms']:.1f} ms alone, "
                               f"{figures['p99_ms']:.1f} ms beside, {figures['closed']} closed")
    _stop_all(session, running + list(alone.values()))
    return outcome


def _beside_one_slow(session, scenario, one, two, seconds):
    placement = session.placement(scenario)
    load = {"connections": scenario.connections, "seconds": seconds}
    alone = run_load("closed", one.port, placement, **load)
    with _beside("closed", two.port, placement, connections=1, path="/slow", seconds=seconds + 3):
        beside = run_load("closed", two.port, placement, **load)
    return {**_against_alone(alone, beside),
            "max_ms": beside["max"] / 1000, "closed": beside["reconnects"]}


def first_block(session, scenario, specs, rounds, say):
    """Milliseconds until a lone block is at the client, while the application waits behind it."""
    outcome = Outcome()
    running = _started(session, scenario, specs, outcome, say)
    for _ in range(rounds):
        for server in list(running):
            with _guard(server, running, session, outcome, say):
                samples = [_first_block_ms(server.port) for _ in range(9)]
                outcome.add(server.spec, {"first_ms": median(samples)})
    for server in running:
        say(f"  {str(server.spec):<24}"
            f"{middle(outcome.rounds[str(server.spec)], 'first_ms'):9.3f} ms")
    _stop_all(session, running)
    return outcome


def _first_block_ms(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        began = time.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        data, first = b"", None
        while True:  # to the end: the server is to be idle when the next sample begins
            piece = client.recv(65536)
            if not piece and first is None:
                raise ClientError("the block did not come")
            if not piece:
                return first
            data += piece
            if first is None and b"b" * 1024 in data:
                first = (time.monotonic() - began) * 1000


def startup(session, scenario, specs, rounds, say):
    """Milliseconds from exec to the first answer, less those of `python -c 'import app'`."""
    outcome = Outcome()
    placement = session.placement(scenario)
    python = os.path.join(session.venv, "bin", "python")
    module = scenario.app.partition(":")[0]
    for _ in range(2 if session.options.quick else max(rounds, 10)):
        began = time.monotonic()
        bare = session.spawn([python, "-c", f"import {module}"], placement)
        bare.popen.wait(timeout=30)
        bare_ms = (time.monotonic() - began) * 1000
        session.stop(bare)
        for spec in specs:
            if str(spec) in outcome.problems:
                continue
            began = time.monotonic()
            server = session.start(spec, scenario)
            try:
                while not first_answer(server.port):
                    if not server.process.alive() or time.monotonic() > began + START_TIMEOUT:
                        raise StartError("does not start: " + server.process.last_words())
                    time.sleep(0.0003)
                total_ms = (time.monotonic() - began) * 1000
                outcome.add(spec, {"ms": total_ms - bare_ms, "total_ms": total_ms})
            except StartError as problem:
                outcome.fail(spec, problem)
            finally:
                session.stop(server.process)
    for spec, figures in outcome.rounds.items():
        say(f"  {spec:<24}{sorted(f['ms'] for f in figures)[len(figures) // 2]:9.1f} ms")
    return outcome


def memory(session, scenario, specs, rounds, say):
    """PSS of the worker after a burst of requests, less that of an interpreter with the app."""
    outcome = Outcome()
    placement = session.placement(scenario)
    python = os.path.join(session.venv, "bin", "python")
    module = scenario.app.partition(":")[0]
    for _ in range(1 if session.options.quick else min(rounds, 3)):
        for spec in specs:
            if str(spec) in outcome.problems:
                continue
            bare = session.spawn(
                [python, "-c", f"import sys, {module}; print('up', flush=True); sys.stdin.read()"],
                placement, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            bare.popen.stdout.readline()
            server = None
            try:
                server = session.start_ready(spec, scenario)
                run_wrk(server.port, server.connections, 0.5, scenario.wrk, placement)
                outcome.add(spec, _beyond(server, bare.pid))
            except (StartError, ClientError) as problem:
                outcome.fail(spec, problem)
            finally:
                if server:
                    session.stop(server.process)
                session.stop(bare)
                bare.popen.stdin.close()
                bare.popen.stdout.close()
    for spec, figures in outcome.rounds.items():
        say(f"  {spec:<24}{figures[0]['pss_mb']:9.2f} MB beyond the interpreter")
    return outcome


def _beyond(server, bare_pid):
    """The worker is everything below the root process, or the root where it works itself."""
    tree = server.process.tree()
    workers = [pid for pid in tree if pid != server.process.pid] or tree
    bare = memory_kb(bare_pid)
    found = [memory_kb(pid) for pid in workers]
    each = {name: sum(one[name] for one in found) / server.spec.workers for name in bare}
    return {"pss_mb": (each["Pss"] - bare["Pss"]) / 1024,
            "uss_mb": (each["Uss"] - bare["Uss"]) / 1024,
            "tree_mb": server.process.pss_kb() / 1024, "bare_mb": bare["Pss"] / 1024}


def timers(session, scenario, specs, rounds, say):
    """How late a timer of the application's event loop is while 1,000 requests are ready."""
    outcome = Outcome()
    running = _started(session, scenario, specs, outcome, say)
    _in_rounds(session, running, rounds, outcome, say,
               lambda server: timer.measure(server, scenario.connections),
               lambda figures: f"{figures['beyond_ms']:9.2f} ms late")
    _stop_all(session, running)
    return outcome


KINDS = {"ws_echo": ws_echo, "ws_idle": ws_idle, "rate": rate, "idle": idle, "idle10k": idle10k, "first_block": first_block,
         "slowloris": slowloris, "fair": fair, "startup": startup, "memory": memory, "timer": timers}
