"""Tables of a run: Markdown for people, and for docs/performance.md between its markers."""

import os
import re
import statistics

from . import servers, stats
from .scenarios import SCENARIOS, TARGETS

COLUMNS = {  # metric: (heading, decimals)
    "cpu_us": ("CPU µs/req", 2), "front_us": ("front end µs", 2), "total_us": ("both µs", 2),
    "rps": ("req/s", 0), "p50_ms": ("p50 ms", 3),
    "p99_ms": ("p99 ms", 3), "pss_mb": ("PSS MB", 1), "percent": ("CPU %", 4),
    "first_ms": ("ms to the first block", 3),
    "bytes": ("bytes a connection", 0), "total_bytes": ("with the application's own", 0),
    "own_bytes": ("the application's own", 0), "p99_alone_ms": ("p99 ms without", 3),
    "p99_ratio": ("p99 with ÷ without", 2), "max_ms": ("longest ms", 1),
    "closed": ("connections closed", 0), "ms": ("ms beyond the import", 1),
    "total_ms": ("ms in all", 1), "uss_mb": ("private MB", 1), "tree_mb": ("tree PSS MB", 1),
    "bare_mb": ("bare PSS MB", 1), "beyond_ms": ("ms late at most", 2),
    "idle_ms": ("ms late without load", 2), "ready_ms": ("1,000 connections ready", 2),
    "piece_ms": ("1,000 requests in one piece", 2), "spin_ms": ("of 0.1 ms each", 2),
}
FIRST = ("cpu_us", "percent", "first_ms", "bytes", "p99_ratio", "beyond_ms", "ms", "pss_mb")
MANY_ERRORS = 0.001
SHORT = "**SHORT**"
TARGET_COLUMNS = 5


def _number(value, decimals):
    return "–" if value is None else f"{value:.{decimals}f}"


def _spread(triple, decimals=2):
    """"0.79 (0.77–0.81)"."""
    if triple is None:
        return "–"
    return "{:.{d}f} ({:.{d}f}–{:.{d}f})".format(*triple, d=decimals)


def _metrics(rounds_by_server):
    """The metrics that occur, the leading one of the scenario first."""
    present = {metric for rounds in rounds_by_server.values() for one in rounds for metric in one}
    lead = next((metric for metric in FIRST if metric in present), None)
    rest = [metric for metric in COLUMNS if metric in present and metric != lead]
    return lead, rest


def scenario_table(name, outcome):
    """The Markdown of one scenario: a row a server, ours against each."""
    rounds_by_server = outcome["rounds"]
    scenario = SCENARIOS[name]
    lines = [f"### {name}: {scenario.title}", ""]
    lead, rest = _metrics(rounds_by_server)
    if lead:
        most = max(len(rounds) for rounds in rounds_by_server.values())
        lines += [f"{most} interleaved round{'s' * (most > 1)}; {outcome.get('how', '')}.", ""]
        ours = [spec for spec in rounds_by_server if spec.split("+")[0] == servers.OURS]
        lines += _rows(name, rounds_by_server, ours[:2], lead, rest)
    for spec, reason in outcome["problems"].items():
        lines.append(f"- {spec}: not measured: {reason}")
    return "\n".join(lines).rstrip() + "\n"


def _rows(name, rounds_by_server, ours, lead, rest):
    heads = ["server", f"**{COLUMNS[lead][0]}** (min–max)"] + [f"{spec} ÷ it" for spec in ours]
    heads += [COLUMNS[metric][0] for metric in rest]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    order = sorted(rounds_by_server, key=lambda spec: stats.middle(rounds_by_server[spec], lead))
    for spec in order:
        rounds = rounds_by_server[spec]
        values = stats.column(rounds, lead)
        decimals = COLUMNS[lead][1]
        cells = [_label(name, spec, rounds),
                 "**{:.{d}f}** ({:.{d}f}–{:.{d}f})".format(stats.median(values), min(values),
                                                          max(values), d=decimals)]
        for one in ours:
            cells.append("1" if one == spec else
                         _spread(stats.ratios(rounds_by_server[one], rounds, lead)))
        cells += [_number(stats.middle(rounds, metric), COLUMNS[metric][1]) for metric in rest]
        lines.append("| " + " | ".join(cells) + " |")
    return lines + [""]


def _label(name, spec, rounds):
    """The server, and what the reader has to know about its figures."""
    notes = []
    connections = rounds[0].get("connections")
    if connections and connections < SCENARIOS[name].connections:
        notes.append(f"serves {connections} at a time, so measured with {connections}")
    errors = sum(one.get("errors", 0) for one in rounds)
    requests = sum(one.get("requests", 0) for one in rounds)
    if errors and errors > MANY_ERRORS * requests:
        notes.append(f"**{errors} errors**")
    return spec + (f" ({', '.join(notes)})" if notes else "")


def _find(outcome, spec, threads):
    """The rounds of a Spec, or of the same with the run's thread count where that is measured."""
    rounds = outcome["rounds"]
    if spec in rounds:
        return rounds[spec]
    family, *rest = spec.split("+")
    if family in servers.OWN and threads > 1:
        return rounds.get("+".join([family, f"t{threads}", *rest]))
    return None


def _best_peer(outcome, metric):
    """The name of the best measured peer that runs an application."""
    found = {spec: stats.middle(rounds, metric) for spec, rounds in outcome["rounds"].items()
             if spec.split("+")[0] in servers.PYTHON_PEERS}
    return min(found, key=found.get) if found else None


def judge(target, results, meta):
    """(what was measured with the default options, with the access log alike, verdict)."""
    here = results.get(target.scenario)
    there = results.get(target.base or target.scenario)
    if not here or not there:
        return None
    threads = meta.get("threads", 1)
    default = _find(here, target.ours, threads)
    if not default:
        return None
    if not target.peer:
        values = stats.column(default, target.metric)
        if not values:
            return None
        triple = (stats.median(values), min(values), max(values))
        return triple, None, _holds(target, triple[0]), ""
    peer = _best_peer(there, target.metric) if target.peer == "best" else target.peer
    theirs = _find(there, peer, threads) if peer else None
    if not theirs:
        return None
    compare = stats.differences if target.minus else stats.ratios
    strict = compare(default, theirs, target.metric)
    alike = None
    family = servers.FAMILIES[peer.split("+")[0]]
    quiet = _find(here, target.ours + "+nolog", threads)
    has_log = family.has_log and meta.get("peer_log") == "on" and "nolog" not in peer.split("+")
    if quiet and peer.split("+")[0] not in servers.OWN and not has_log:
        alike = compare(quiet, theirs, target.metric)
    verdict = alike or strict
    if not verdict:
        return None
    return strict, alike, _holds(target, verdict[0]), peer if target.peer == "best" else ""


def _holds(target, value):
    return value >= target.limit if target.at_least else value <= target.limit


def _target_row(target, results, meta):
    """A target's line of the table; '' where it could not be judged."""
    found = judge(target, results, meta)
    if not found:
        return ""
    strict, alike, holds, peer = found
    text = target.name() + (f" ({peer})" if peer else "")
    return (f"| {target.scenario} | {text} | {_spread(alike or strict, 3)} | "
            f"{_spread(strict, 3)} | {'OK' if holds else SHORT} |")


def _known_rows(table):
    """The lines of an earlier table by (scenario, target)."""
    rows = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == TARGET_COLUMNS and line.startswith("| "):
            rows[cells[0], re.sub(r" \([^()]*\)$", "", cells[1])] = line
    return rows


def target_table(results, meta, table=""):
    """Every target that could be judged: promised, measured, OK or SHORT.

    Targets of scenarios that are not in `results` have the lines that they have in `table`.
    """
    known = _known_rows(table)
    rows = []
    for target in TARGETS:
        if target.scenario in results and (target.base or target.scenario) in results:
            rows.append(_target_row(target, results, meta))
        else:
            rows.append(known.get((target.scenario, target.name()), ""))
    rows = [row for row in rows if row]
    if not rows:
        return ""
    short = sum(SHORT in row for row in rows)
    lines = ["### Targets" + (f" ({meta['label']})" if meta.get("label") else ""), "",
             "| scenario | target | access log alike | default options | verdict |",
             "|---" * TARGET_COLUMNS + "|", *rows,
             "", f"{len(rows) - short} of {len(rows)} hold."]
    return "\n".join(lines) + "\n"


def header(meta):
    """What was measured where: the first lines of a report."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(meta["versions"].items()))
    return (f"Python {meta['python']}, {meta['cpus']} CPUs ({meta['cpu']}), Linux "
            f"{meta['kernel']}; {meta['date']}; access log of the peers that have one: "
            f"{meta['peer_log']}.\n\n{versions}.\n"
            + "".join(f"\nNote: {note}.\n" for note in meta.get("notes", [])))


def whole(data):
    """The report of one run or of several merged."""
    parts = [header(data["meta"])]
    parts += [scenario_table(name, outcome) for name, outcome in data["scenarios"].items()]
    targets = target_table(data["scenarios"], data["meta"])
    return "\n".join(parts + ([targets] if targets else []))


def merge(runs):
    """Several runs as one: a later run's scenario replaces an earlier one's."""
    data = {"meta": dict(runs[-1]["meta"]), "scenarios": {}}
    for run in runs:
        for name, outcome in run["scenarios"].items():
            data["scenarios"].pop(name, None)
            data["scenarios"][name] = outcome
    data["scenarios"] = {name: data["scenarios"][name] for name in SCENARIOS
                         if name in data["scenarios"]}
    return data


def update_docs(data, path):
    """Writes the tables between their markers in docs/performance.md; new ones go to the end.

    A block is named by the scenario and by what deviates from the default run (Python, threads), so
    that measuring one scenario again leaves the others' figures alone. In the table of targets the
    lines of the scenarios that were measured are replaced.
    """
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    label = data["meta"]["label"]
    blocks = {"machine": header(data["meta"])}
    for name, outcome in data["scenarios"].items():
        blocks[name] = scenario_table(name, outcome)
    blocks["targets"] = target_table(data["scenarios"], data["meta"],
                                     get_block(text, "targets" + label))
    measured = {scenario for scenario, _ in _known_rows(blocks["targets"])}
    missing = sorted({target.scenario for target in TARGETS} - measured)
    if blocks["targets"] and missing:
        blocks["targets"] += "\nWithout a figure here: %s.\n" % ", ".join(missing)
    for name, block in blocks.items():
        if block:
            text = put_block(text, name + label, block)
    temporary = path + ".new"
    with open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(temporary, path)


SUMMARY = [
    ("hello", "hello"), ("hello-browser", "13 browser headers"), ("flask", "Flask hello"),
    ("post1M", "1 MB upload"), ("body100k", "100 kB body"), ("stream", "64 × 1 kB stream"),
]
SUMMARY_SERVERS = ["stoker+nolog", "stoker", "nginx", "bjoern", "fastpysgi", "peregrine", "granian",
                   "uwsgi", "gunicorn-sync", "gunicorn-gthread+t4", "waitress+t4"]


def summary_table(data):
    """Server CPU per request of the scenarios that most ask for; None unless all were measured."""
    scenarios = [data["scenarios"].get(name) for name, _ in SUMMARY]
    if None in scenarios:
        return None
    lines = ["Server CPU µs per request, one worker, lower is better (median; uwsgi serves one kept-alive "
             "connection at a time and is measured with one):", "",
             "| server | " + " | ".join(title for _, title in SUMMARY) + " |",
             "|---" * (len(SUMMARY) + 1) + "|"]
    for spec in SUMMARY_SERVERS:
        cells = []
        for outcome in scenarios:
            values = [one["cpu_us"] for one in outcome["rounds"].get(spec, ()) if one.get("cpu_us")]
            middle = statistics.median(values) if values else None
            cells.append("–" if middle is None else f"{middle:.0f}" if middle >= 100 else f"{middle:.3g}")
        name = {"stoker+nolog": "**stoker**, access log off", "stoker": "**stoker**"}.get(spec, spec)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def update_readme(data, path):
    """Writes the summary between its markers in the README, if this run has all of it."""
    block = summary_table(data)
    if block is None or data["meta"]["label"]:
        return
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    with open(path + ".new", "w", encoding="utf-8") as stream:
        stream.write(put_block(text, "summary", block))
    os.replace(path + ".new", path)


def _block_pattern(name):
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    return begin, end, re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)


def get_block(text, name):
    """The block of this name with its markers, or ''."""
    found = _block_pattern(name)[2].search(text)
    return found.group() if found else ""


def put_block(text, name, block):
    """`text` with the block of this name replaced, or added before the marker for new ones."""
    begin, end, pattern = _block_pattern(name)
    whole_block = f"{begin}\n{block.rstrip()}\n{end}"
    if pattern.search(text):
        return pattern.sub(lambda _: whole_block, text, count=1)
    last = "<!-- bench:more-targets -->" if name.startswith("targets") else "<!-- bench:more -->"
    if last not in text:
        raise SystemExit(f"bench: docs/performance.md has no marker {last}")
    return text.replace(last, f"{whole_block}\n\n{last}", 1)
