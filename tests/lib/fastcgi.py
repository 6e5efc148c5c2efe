"""FastCGI 1.0 as a front end speaks it: records made and read by hand."""

from __future__ import annotations

import struct
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from tests.lib.server import Connection

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, VALUES, UNKNOWN = range(1, 12)
RESPONDER, AUTHORIZER = 1, 2
KEEP = 1
COMPLETE, CANT_MPX, OVERLOADED, UNKNOWN_ROLE = range(4)


class Record(NamedTuple):
    kind: int
    id: int
    content: bytes


def record(kind: int, id: int = 1, content: bytes = b"", padding: int = 0) -> bytes:
    return struct.pack(">BBHHBB", 1, kind, id, len(content), padding, 0) + content + b"\xaa" * padding


def begin(id: int = 1, keep: bool = True, role: int = RESPONDER) -> bytes:
    return record(BEGIN, id, struct.pack(">HB5x", role, KEEP if keep else 0))


def pairs(variables: Iterable[Tuple[str, str]]) -> bytes:
    def length(part: bytes) -> bytes:
        return bytes([len(part)]) if len(part) < 128 else struct.pack(">L", len(part) | 1 << 31)

    packed = b""
    for name, value in variables:
        one, two = name.encode("latin-1"), value.encode("latin-1")
        packed += length(one) + length(two) + one + two
    return packed


def stream(kind: int, id: int, data: bytes, size: int = 65535, padding: int = 0) -> bytes:
    """The data in records of at most `size` bytes, and the empty one that ends it."""
    parts = [record(kind, id, data[at : at + size], padding) for at in range(0, len(data), size)]
    return b"".join(parts) + record(kind, id)


def request(variables, body: bytes = b"", id: int = 1, keep: bool = True, size: int = 65535, padding: int = 0) -> bytes:
    return (
        begin(id, keep)
        + stream(PARAMS, id, pairs(variables), size, padding)
        + stream(STDIN, id, body, size, padding)
    )


def split(data: bytes) -> List[Record]:
    """All records of `data`, of which none may be incomplete."""
    found = []
    while data:
        version, kind, id, length, padding = struct.unpack(">BBHHBx", data[:8])
        assert version == 1 and len(data) >= 8 + length + padding, data[:80]
        found.append(Record(kind, id, data[8 : 8 + length]))
        data = data[8 + length + padding :]
    return found


def take(conn: Connection) -> Record:
    """The next record that comes."""
    version, kind, id, length, padding = struct.unpack(">BBHHBx", conn.read_bytes(8))
    assert version == 1
    content = conn.read_bytes(length)
    conn.read_bytes(padding)
    return Record(kind, id, content)


class Answer:
    """What STDOUT has of a response, and STDERR besides."""

    def __init__(self, data: bytes, end: Optional[Record], errors: bytes = b""):
        self.errors = errors
        head, sep, self.body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        assert sep and lines[0].startswith("Status: "), data[:200]
        self.status = int(lines[0][8:11])
        self.fields: Dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            self.fields[name.lower()] = value
        self.end = end

    @property
    def protocol_status(self) -> int:
        assert self.end is not None, "END_REQUEST is missing"
        return self.end.content[4]


def answer(conn: Connection, id: int = 1) -> Answer:
    """A whole response of that request; records of others may not come between."""
    data, errors, closed = [], [], False
    while True:
        found = take(conn)
        assert found.id == id, found
        if found.kind == END:
            return Answer(b"".join(data), found, b"".join(errors))
        if found.kind == STDERR:
            errors.append(found.content)
            continue
        assert found.kind == STDOUT and not closed, found
        data.append(found.content)
        closed = not found.content


def rest(conn: Connection, id: int = 1) -> Answer:
    """
    What comes until the connection ends, with or without END_REQUEST. Without it the last eight
    bytes are no record, so that nobody takes the end of the connection for that of the response.
    """
    data = conn.read_to_end()
    cut = data[-16:-14] != bytes((1, END)) and data.endswith(bytes(8))
    records = split(data[:-8] if cut else data)
    assert cut == all(found.kind != END for found in records), records
    assert all(found.id == id for found in records), records
    ends = [found for found in records if found.kind == END]
    assert not ends or records[-1].kind == END
    data, errors = (b"".join(found.content for found in records if found.kind == kind) for kind in (STDOUT, STDERR))
    return Answer(data, ends[0] if ends else None, errors)
