"""Look into an ONNX file for what could reach outside it, before any runtime parses it.

Reads the protocol buffer encoding (https://protobuf.dev/programming-guides/encoding) of ``onnx.proto`` (ONNX IR
version 10) as far as it leads to operators' domains and tensors' places, so that it needs no onnx package.
"""

from __future__ import annotations

from collections.abc import Iterator

from geoseg_cli.errors import ModelError

TRUSTED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operators that ONNX Runtime brings itself; all others are native code from elsewhere."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Message -> field number -> message inside; fields that lead to neither an operator nor a tensor are left out.
_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "opset": {},
    "tensor": {},
}
_DOMAIN_FIELD = {"opset": 1, "node": 7}
_EXTERNAL_DATA_FIELD, _DATA_LOCATION_FIELD = 13, 14


def check_self_contained(content: bytes, name: str) -> None:
    """Refuse a graph that reads other files or calls operators that ONNX Runtime does not bring itself.

    Args:
        content: The ONNX file.
        name: What to call it in errors.

    Raises:
        ModelError: It does, or it is no ONNX file.
    """
    try:
        for kind, start, end in _walk(content):
            for number, value in _fields(content, start, end):
                if kind == "tensor" and _is_external(number, value):
                    raise ModelError(f"{name} keeps weights in other files", "export it as a single file")
                if _DOMAIN_FIELD.get(kind) == number and isinstance(value, slice):
                    _check_domain(content[value].decode(), name)
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise ModelError(f"{name} is no ONNX file, or is truncated", "restore the bundle") from error


def _check_domain(domain: str, name: str) -> None:
    if domain not in TRUSTED_DOMAINS:
        raise ModelError(
            f"{name} uses operators of the domain {domain!r}",
            "export the network with standard ONNX operators, or use --engine torch",
        )


def _is_external(number: int, value: int | slice) -> bool:
    return number == _EXTERNAL_DATA_FIELD or (number == _DATA_LOCATION_FIELD and value != 0)


def _walk(content: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield every message of ``_PARTS``: what it is, and where it starts and ends."""
    # A stack of our own: graphs nest inside operators as deep as a file likes.
    waiting = [("model", 0, len(content))]
    while waiting:
        kind, start, end = waiting.pop()
        yield kind, start, end
        for number, value in _fields(content, start, end):
            inside = _PARTS[kind].get(number)
            if inside is not None and isinstance(value, slice):
                waiting.append((inside, value.start, value.stop))


def _fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int | slice]]:
    """Yield the fields of a message: number, and its value or, for bytes, where they lie."""
    position = start
    while position < end:
        key, position = _read_varint(content, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _read_varint(content, position)
            yield number, value
            continue
        if wire == _BYTES:
            length, position = _read_varint(content, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position + length > end:
            raise ValueError("a field ends behind its message")
        yield number, slice(position, position + length)
        position += length


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte; returns it and the position behind it."""
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number longer than 64 bits")
