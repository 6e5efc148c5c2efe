"""What the roads cost: an upload of 100 MB in bounded memory, connections that are used again."""

import zlib

import pytest

from tests.fronts.fronts import BLOCK

UPLOAD = 1600  # blocks of 64 KiB: 100 MB
MEMORY_KB = 48 * 1024  # that a worker may grow by; its own buffers are a few megabytes


def resident_kb(pid, what):
    with open("/proc/%d/status" % pid) as file:
        for line in file:
            if line.startswith(what + ":"):
                return int(line.split()[1])
    raise AssertionError("no %s of %d" % (what, pid))


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upload_of_100_mb(road, backend, framing):
    if framing == "chunked" and not road.chunked:
        assert road.post("/upload/chunked", b"0\r\n\r\n", fields={"Transfer-Encoding": "chunked"}).status == 411
        return
    (worker,) = backend.server.worker_pids()
    before = resident_kb(worker, "VmRSS")
    with road.connect() as conn:
        if framing == "chunked":
            conn.send(road.head("POST", "/upload/chunked", [("Transfer-Encoding", "chunked")]))
            chunk = b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK)
            for _ in range(UPLOAD):
                conn.send(chunk)
            conn.send(b"0\r\n\r\n")
        else:
            length = str(UPLOAD * len(BLOCK))
            conn.send(road.head("POST", "/upload/length", [("Content-Length", length)]))
            for _ in range(UPLOAD):
                conn.send(BLOCK)
        found = conn.read_response().json()
    crc = 0
    for _ in range(UPLOAD):
        crc = zlib.crc32(BLOCK, crc)
    assert found == {"size": UPLOAD * len(BLOCK), "crc": crc}
    assert resident_kb(worker, "VmHWM") - before < MEMORY_KB


@pytest.mark.parametrize("kind", ["blocks", "stream/large"])
@pytest.mark.parametrize("name", ["nginx-http-unix", "nginx-fastcgi-unix", "apache-fcgi"])
def test_download_of_100_mb(roads, name, kind):
    """As one piece and as a stream: more than every buffer on the way holds."""
    with roads(name).connect() as conn:
        conn.send(roads(name).head("GET", "/%s/%d" % (kind, UPLOAD)))
        response = conn.read_response()
    assert response.status == 200 and len(response.body) == UPLOAD * len(BLOCK)
    assert response.body[: len(BLOCK)] == response.body[-len(BLOCK) :] == BLOCK
    assert zlib.crc32(response.body) == zlib.crc32(BLOCK * UPLOAD)


def test_connections_are_used_again(front, backend):
    """Where nginx keeps connections, 40 requests one after the other take few."""
    accepted = backend.metric("stoker_connections_accepted_total")
    for _ in range(40):
        assert front.get("/").status == 200
    used = backend.metric("stoker_connections_accepted_total") - accepted
    if front.keeps:
        assert used < 10
    else:
        assert used >= 40
