"""Reads Tributary's golden vectors with nothing but Python's standard library.

Written from docs/protocol.md alone, so that the document is known to be enough. Prints one JSON object: the decoded
value of each vector by name, or {"refused": reason}.

    python3 read_vectors.py vectors/
"""

import hashlib
import json
import math
import struct
import sys
from pathlib import Path

MAGIC = b"TRBF\r\n\x1a\n"
FORMATS = {
    "float32": "f",
    "float16": "e",
    "bfloat16": "H",
    "int32": "i",
    "int8": "b",
    "uint8": "B",
    "bool": "B",
    "int64": "q",
}


class Malformed(Exception):
    """The bytes are not what docs/protocol.md says."""


class MessagePack:
    """The part of MessagePack that the protocol uses."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def decode(self):
        value = self.value()
        if self.at != len(self.data):
            raise Malformed("bytes after the end")
        return value

    def take(self, count):
        if count > len(self.data) - self.at:
            raise Malformed("truncated MessagePack")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(form)))[0]

    def text(self, length):
        return self.take(length).decode("utf-8")

    def array(self, length):
        return [self.value() for _ in range(length)]

    def map(self, length):
        result = {}
        for _ in range(length):
            key = self.value()
            if not isinstance(key, str) or key in result:
                raise Malformed("a map key that is no text, or comes twice")
            result[key] = self.value()
        return result

    def value(self):
        token = self.number("B")
        if token < 0x80:
            return token
        if token < 0x90:
            return self.map(token & 0x0F)
        if token < 0xA0:
            return self.array(token & 0x0F)
        if token < 0xC0:
            return self.text(token & 0x1F)
        if token >= 0xE0:
            return token - 0x100
        if token in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[token]
        if 0xCA <= token <= 0xD3:
            return self.number("fdBHIQbhiq"[token - 0xCA])
        if 0xD9 <= token <= 0xDB:
            return self.text(self.number("BHI"[token - 0xD9]))
        if token in (0xDC, 0xDD):
            return self.array(self.number("HI"[token - 0xDC]))
        if token in (0xDE, 0xDF):
            return self.map(self.number("HI"[token - 0xDE]))
        raise Malformed(f"MessagePack type 0x{token:02x}")


def align(value, alignment):
    return -(-value // alignment) * alignment


def as_json(value):
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def read_frame(frame):
    if len(frame) < 48 or frame[:8] != MAGIC:
        raise Malformed("not a frame")
    version, header_length = struct.unpack_from("<II", frame, 8)
    if version != 1:
        raise Malformed(f"frame format version {version}")
    start = align(48 + header_length, 64)
    if start > len(frame):
        raise Malformed("truncated header")
    packed = frame[48 : 48 + header_length]
    if any(frame[48 + header_length : start]):
        raise Malformed("the padding after the header")
    if hashlib.sha256(packed).digest() != frame[16:48]:
        raise Malformed("header digest")
    header = MessagePack(packed).decode()

    tensors = []
    end = 0
    for entry in header["tensors"]:
        dtype, shape = entry["dtype"], entry["shape"]
        count = math.prod(shape)
        size = struct.calcsize("<" + FORMATS[dtype]) * count
        if entry["offset"] != end or entry["byteLength"] != size:
            raise Malformed(f"the place of {entry['name']}")
        data = frame[start + end : start + end + size]
        if len(data) != size:
            raise Malformed("truncated data")
        if hashlib.sha256(data).hexdigest() != entry["digest"]:
            raise Malformed(f"the digest of {entry['name']}")
        if any(frame[start + end + size : start + align(end + size, 8)]):
            raise Malformed(f"the padding after {entry['name']}")
        end = align(end + size, 8)
        values = struct.unpack(f"<{count}{FORMATS[dtype]}", data)
        if dtype == "bfloat16":
            values = [struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in values]
        if dtype == "int64":
            values = [str(value) for value in values]
        values = [as_json(value) for value in values]
        tensors.append({"name": entry["name"], "dtype": dtype, "shape": shape, "values": values})
    if start + end != len(frame):
        raise Malformed("the frame's length")
    return {"meta": header["meta"], "tensors": tensors}


def main(folder):
    results = {}
    for path in sorted(Path(folder).glob("*.bin")):
        data = path.read_bytes()
        try:
            is_frame = path.stem.startswith("frame-")
            results[path.stem] = read_frame(data) if is_frame else MessagePack(data).decode()
        except Malformed as error:
            results[path.stem] = {"refused": str(error)}
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
