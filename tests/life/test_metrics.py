"""Metrics in the text format of Prometheus, read by the parser of its client library."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.lib.server import Connection, free_port
from tests.life.test_health import APP as HEALTH_APP

parser = pytest.importorskip("prometheus_client.parser")

APP = """
import os
import time


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/boom":
        raise RuntimeError("boom")
    if path == "/die":
        os._exit(3)
    if path == "/sleep":
        time.sleep(float(environ["QUERY_STRING"]))
    status = {"/missing": "404 Not Found", "/moved": "302 Found"}.get(path, "200 OK")
    start_response(status, [("Content-Type", "text/plain")])
    return [b"x" * len(environ["wsgi.input"].read()) or b"hello"]
"""


class Metrics:
    """What one scrape said: ``value(name, **labels)``."""

    def __init__(self, response):
        assert response.status == 200
        assert response.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
        self.text = response.text
        self.families = {f.name: f for f in parser.text_string_to_metric_families(self.text)}

    def value(self, name, **labels):
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == "stoker_" + name and sample.labels == labels
        ]
        assert len(found) == 1, (name, labels, found)
        return found[0]


def scrape(server, path="/metrics", **kwargs):
    return Metrics(server.get(path, **kwargs))


def scrape_until(server, accept, seconds=20, **kwargs):
    """Counts of other workers come a moment after their answers."""
    deadline = time.monotonic() + seconds
    while True:
        metrics = scrape(server, **kwargs)
        if accept(metrics):
            return metrics
        assert time.monotonic() < deadline, metrics.text
        time.sleep(0.02)


def test_counts_of_all_workers(serve):
    server = serve(APP, "--metrics", "/metrics", "--workers", "2")
    server.wait_log("ready after")
    for _ in range(20):
        server.get("/")
    server.get("/missing")
    server.get("/moved")
    server.get("/boom")
    server.post("/", b"y" * 100000)
    m = scrape_until(server, lambda m: m.value("requests_total") == 24)
    assert m.value("responses_total", **{"class": "2xx"}) == 21
    assert m.value("responses_total", **{"class": "3xx"}) == 1
    assert m.value("responses_total", **{"class": "4xx"}) == 1
    assert m.value("responses_total", **{"class": "5xx"}) == 1
    assert m.value("exceptions_total") == 1
    assert m.value("received_bytes_total") > 100000 + 24 * 50
    assert m.value("sent_bytes_total") > 100000 + 23 * 100
    assert m.value("connections_accepted_total") >= 24
    assert m.value("workers", state="ready") == 2
    assert m.value("workers_configured") == 2
    assert m.value("threads") == 2
    assert m.value("start_time_seconds") == pytest.approx(time.time(), abs=60)
    assert m.value("worker_restarts_total", cause="crash") == 0
    for worker in "12":
        assert m.value("worker_resident_memory_bytes", worker=worker) > 1 << 20
    build = m.families["stoker_build_info"].samples[0]
    assert build.value == 1 and build.labels["version"] and build.labels["python"]


def test_families_are_described_and_unique(serve):
    server = serve(APP, "--metrics", "/metrics")
    m = scrape(server)
    names = [line.split()[2] for line in m.text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    assert all(f.type in ("counter", "gauge", "histogram") for f in m.families.values())
    assert all(f.documentation for f in m.families.values())
    samples = [line.rpartition(" ")[0] for line in m.text.splitlines() if line[0] != "#"]
    assert len(samples) == len(set(samples))
    assert m.text.endswith("\n")


def test_families_are_those_of_the_document(serve):
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    rows = "".join(line for line in text.splitlines() if line.startswith("| `stoker_"))
    documented = set(re.findall(r"`(stoker_\w+)", rows))
    m = scrape(serve(APP, "--metrics", "/metrics", "--cache", "name=a,items=10"))
    assert documented == {line.split()[2] for line in m.text.splitlines() if line.startswith("# TYPE")}


def test_scrapes_do_not_count(serve):
    server = serve(APP, "--metrics", "/metrics")
    for _ in range(5):
        scrape(server)
    m = scrape_until(server, lambda m: m.value("internal_requests_total") >= 5)
    assert m.value("requests_total") == 0
    assert m.value("request_duration_seconds_count") == 0


@pytest.mark.parametrize("log", ["-", "off"])
def test_latency_histogram(serve, log):
    server = serve(APP, "--metrics", "/metrics", "--access-log", log)
    for _ in range(9):
        server.get("/")
    server.get("/sleep?0.3")
    m = scrape_until(server, lambda m: m.value("request_duration_seconds_count") == 10)
    samples = m.families["stoker_request_duration_seconds"].samples
    buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1] == (float("inf"), 10)
    assert dict(buckets)[0.196608] <= 9
    assert m.value("request_duration_seconds_sum") >= 0.3


def test_address_of_its_own(serve):
    port = free_port()
    server = serve(
        APP, "--metrics", "127.0.0.1:%d" % port, "--health-path", "/health", "--workers", "2"
    )
    assert server.get("/metrics").body == b"hello"  # the application's own
    assert server.get("/health").body == b"ready\n"
    with Connection(("127.0.0.1", port)) as conn:
        for path, status in (("/metrics", 200), ("/health", 200), ("/", 404), ("/x/metrics", 404)):
            response = server.get(path, conn=conn)
            assert response.status == status
            if path == "/metrics":
                Metrics(response)
        assert server.request("POST", "/metrics", b"x", conn=conn).status == 405
    with Connection(("127.0.0.1", port)) as conn:  # nothing of this was the application's
        m = scrape_until(server, lambda m: m.value("requests_total") == 1, conn=conn)
        assert m.value("responses_total", **{"class": "4xx"}) == 0
    assert server.url.rpartition(":")[2] in server.log()
    assert "serving app:app at http://127.0.0.1:%d\n" % server.port in server.log()


def test_unix_address(serve, tmp_path):
    path = str(tmp_path / "metrics.sock")
    server = serve(APP, "--metrics", "unix:" + path, ready="/")
    with Connection(path) as conn:
        conn.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        Metrics(conn.read_response())
    server.stop()
    assert not os.path.exists(path)


@pytest.mark.parametrize("how", ["/sleep", "/hold"])
def test_while_every_worker_is_busy(serve, how):
    server = serve(HEALTH_APP, "--metrics", "/metrics", "--workers", "2")
    server.wait_log("ready after")
    busy = [server.connect() for _ in range(8)]
    for conn in busy:
        conn.send("GET %s?0.5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % how)
    scrape_until(
        server,
        lambda m: m.value("threads_busy") == 2 and m.value("connections", state="active") >= 2,
    )
    # (requests that came first may have ended: what counts is that nobody waited for the last)
    for conn in busy:
        assert conn.read_response().status == 200
        conn.close()
    m = scrape_until(
        server,
        lambda m: m.value("threads_busy") == 0
        and m.value("requests_total") == 8
        and m.value("requests_queued") == 0
        and m.value("connections", state="active") == 0,
    )
    assert 1 <= m.value("request_queue_seconds_count") <= 8
    assert m.value("request_queue_seconds_sum") > 0
    assert m.value("request_duration_seconds_sum") > m.value("request_queue_seconds_sum")
    assert m.value("takeovers_total") >= 1


def test_counts_survive_a_killed_worker(serve):
    server = serve(APP, "--metrics", "/metrics", "--workers", "1")
    for _ in range(5):
        server.get("/")
    scrape_until(server, lambda m: m.value("requests_total") == 5)
    for round in (1, 2):
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        m = scrape_until(
            server, lambda m: m.value("worker_restarts_total", cause="crash") == round
        )
        assert m.value("requests_total") == 5
        assert m.value("request_duration_seconds_count") == 5


def test_connections_by_state(serve):
    server = serve(APP, "--metrics", "/metrics")
    idle = [server.connect() for _ in range(3)]
    for conn in idle:
        assert server.get("/", conn=conn).status == 200
    reading = [server.connect() for _ in range(2)]
    reading[0].send(b"GET / HT")
    reading[1].send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
    scrape_until(
        server,
        lambda m: m.value("connections", state="reading") == 2
        and m.value("connections", state="idle") == 4,  # with the one of the scrape
    )
    reading[0].send(b"TP/1.1\r\nHost: x\r\n\r\n")
    reading[1].send(b"-whole")
    for conn in reading:
        assert conn.read_response().status == 200
    scrape_until(server, lambda m: m.value("connections", state="reading") == 0)
    for conn in idle + reading:
        conn.close()
    m = scrape_until(server, lambda m: m.value("connections", state="idle") == 1)
    assert m.value("connections_closed_total", reason="client") >= 5


def test_memory_shares_come_with_a_later_scrape(serve):
    server = serve(APP, "--metrics", "/metrics")
    m = scrape_until(server, lambda m: "proportional_memory_bytes{" in m.text)
    share = m.value("worker_proportional_memory_bytes", worker="1")
    assert 0 < share <= m.value("worker_resident_memory_bytes", worker="1") * 2


def test_requests_that_are_cancelled(serve):
    server = serve(
        APP,
        "--metrics",
        "/metrics",
        "--workers",
        "1",
        "--request-timeout",
        "0.2",
        "--cancel-on-disconnect",
    )
    assert server.get("/sleep?20").status == 504
    with server.connect() as conn:
        conn.send(b"GET /sleep?0.1 HTTP/1.1\r\nHost: x\r\n\r\n")
        conn.reset()
    m = scrape_until(
        server,
        lambda m: m.value("responses_total", **{"class": "5xx"}) == 1
        and m.value("request_timeouts_total") == 1,
    )
    assert m.value("requests_left_total") <= 1


def test_requests_that_move(serve):
    """Requests of one worker that another takes count there, and where they were."""
    server = serve(APP, "--metrics", "/metrics", "--workers", "2")
    server.wait_log("ready after")
    conns = [server.connect() for _ in range(12)]
    for conn in conns:
        conn.send("GET /sleep?0.05 HTTP/1.1\r\nHost: x\r\n\r\n")
    for conn in conns:
        assert conn.read_response().status == 200
        conn.close()
    scrape_until(
        server,
        lambda m: m.value("requests_total") == 12
        and m.value("requests_moved_in_total") == m.value("requests_moved_out_total"),
    )


def test_reloads_count(serve):
    server = serve(APP, "--metrics", "/metrics", "--workers", "2")
    server.wait_log("ready after")
    server.send_signal(signal.SIGHUP)
    scrape_until(
        server,
        lambda m: m.value("reloads_total") == 1
        and m.value("worker_restarts_total", cause="reload") == 2
        and m.value("workers", state="ready") == 2,
    )


@pytest.mark.parametrize("value", ["/metrics?x", "nonsense:99999"])
def test_bad_value(serve, value):
    server = serve(APP, "--metrics", value, start=False, check=False).spawn()
    assert server.wait() == 1
    assert "metrics" in server.log()


def test_address_in_use(serve):
    server = serve(APP, start=False, check=False)
    server.command += ["--metrics", "127.0.0.1:%d" % server.port]
    server.spawn()
    assert server.wait() == 1
    assert "is the application's address" in server.log()
