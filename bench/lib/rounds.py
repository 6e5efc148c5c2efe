"""Interleaved rounds of wrk: A B C A B C ..., with restarts spread over them."""

from . import servers
from .session import StartError, answer_size
from .wrk import ClientError, run_wrk

WARM_UP = 0.3


class Outcome:
    """What a scenario gave: rounds by server, and why others are missing."""

    def __init__(self):
        self.rounds = {}
        self.problems = {}

    def fail(self, spec, reason):
        """Notes why a server has no figures (or no further ones)."""
        self.problems[str(spec)] = str(reason)

    def add(self, spec, figures):
        """Adds one round of a server."""
        self.rounds.setdefault(str(spec), []).append(figures)

    def as_dict(self):
        """For the JSON file."""
        return {"rounds": self.rounds, "problems": self.problems}


def run_interleaved(session, scenario, specs, rounds, starts, say):
    """Measures `specs` in turn, `rounds` times, each server started `starts` times."""
    outcome = Outcome()
    running = {}
    starts = max(1, min(starts, rounds))
    try:
        for number in range(rounds):
            fresh = number == 0 or (number * starts) // rounds != ((number - 1) * starts) // rounds
            for spec in specs:
                if str(spec) in outcome.problems:
                    continue
                try:
                    if fresh:
                        _renew(session, scenario, spec, running)
                    figures = session.measure(running[spec], scenario, session.options.seconds)
                except (StartError, ClientError) as problem:
                    outcome.fail(spec, problem)
                    say(f"  {spec}: {problem}")
                    if spec in running:
                        session.stop(running.pop(spec).process)
                    continue
                outcome.add(spec, figures)
                say(f"  round {number + 1}/{rounds} {str(spec):<24}"
                    f"{figures['cpu_us']:9.2f} µs/req {figures['rps']:9.0f} req/s")
    finally:
        for one in running.values():
            session.stop(one.process)
    return outcome


def _renew(session, scenario, spec, running):
    """(Re)starts one server and warms it up."""
    if spec in running:
        session.stop(running.pop(spec).process)
    server = session.start_ready(spec, scenario)
    running[spec] = server
    if spec.family == servers.OURS and not session.answer_size and \
            "epoll-same-size" in scenario.servers:
        session.answer_size = answer_size(server.port)
    run_wrk(server.port, server.connections, min(WARM_UP, session.options.seconds), scenario.wrk,
            session.placement(scenario), scenario.path, scenario.tls)
