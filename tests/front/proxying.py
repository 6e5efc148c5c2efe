"""PROXY headers for tests, made by hand."""

import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TABLE = []
for number in range(256):
    for _ in range(8):
        number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    TABLE.append(number)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def v1(client="203.0.113.7", server="198.51.100.1", ports=(56324, 443)):
    family = "TCP6" if ":" in client else "TCP4"
    return ("PROXY %s %s %s %d %d\r\n" % (family, client, server, *ports)).encode()


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def ssl_tlv(flags=1, verify=1, version=b"TLSv1.3", cn=None, cipher=b"TLS_AES_128_GCM_SHA256"):
    fields = tlv(0x21, version) + (tlv(0x22, cn) if cn is not None else b"") + tlv(0x23, cipher)
    return tlv(0x20, struct.pack("!BI", flags, verify) + fields)


def block(body, command=1, family=0x11):
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(body)) + body


def v2(client="203.0.113.7", server="198.51.100.1", ports=(56324, 443), tlvs=b"", checksum=False):
    kind = socket.AF_INET6 if ":" in client else socket.AF_INET
    body = socket.inet_pton(kind, client) + socket.inet_pton(kind, server) + struct.pack("!HH", *ports) + tlvs
    if checksum:
        body += tlv(3, bytes(4))
    data = block(body, family=0x21 if ":" in client else 0x11)
    return data[:-4] + struct.pack("!I", crc32c(data)) if checksum else data


LOCAL = block(b"", command=0, family=0)
UNKNOWN = block(b"", family=0)
UNIX = block(bytes(216), family=0x31)
