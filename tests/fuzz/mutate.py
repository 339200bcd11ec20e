"""Ways to damage a file, chosen by a seeded random number generator."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

_WORDS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1)
_NUMBERS = (
    "0", "-1", "1", "1e999", "-1e-999", "NaN", "Infinity", "", "00", "1_0", "99999999999999999999", "0x10", "1,5",
    "2147483648", "١٢",
)  # fmt: skip
_TEXTS = ("../../x", "/etc/passwd", "/vsicurl/http://localhost/x.tif", "\\u0000", "\x7f", "\u202e", "null", "[]", "{}",
          "true", "<!DOCTYPE a [<!ENTITY b 'c'>]>", "&b;", '"', "%s%n", "\ud7ff")  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_QUOTED = re.compile(rb'(?<=["=>/])[A-Za-z_:.0-9-]{2,60}(?=["</])')
HEAD_BYTES = 512
"""Directories and headers mostly lie here, where one byte tells more than among the pixels."""

Mutation = Callable[[bytearray, random.Random], None]


def mutate(data: bytes, rng: random.Random, is_text: bool) -> bytes:
    """Damage a file in one to four places; the same generator state gives the same damage."""
    mutant = bytearray(data)
    ways = _TEXT_WAYS if is_text else _BINARY_WAYS
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if mutant:
            rng.choice(ways)(mutant, rng)
    return bytes(mutant)


def _place(data: bytearray, rng: random.Random) -> int:
    """Somewhere: near the beginning, near the end, or anywhere."""
    where = rng.random()
    if where < 0.5:
        return rng.randrange(min(HEAD_BYTES, len(data)))
    if where < 0.7:
        return len(data) - 1 - rng.randrange(min(HEAD_BYTES, len(data)))
    return rng.randrange(len(data))


def flip_bit(data: bytearray, rng: random.Random) -> None:
    data[_place(data, rng)] ^= 1 << rng.randrange(8)


def set_byte(data: bytearray, rng: random.Random) -> None:
    data[_place(data, rng)] = rng.randrange(256)


def set_word(data: bytearray, rng: random.Random) -> None:
    """Put a number that sizes, counts and offsets break at, or one near the file's size, into an aligned field."""
    form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(form)
    if len(data) < 2 * size:
        return
    place = min(_place(data, rng) // 2 * 2, len(data) - size)
    value = rng.choice((*_WORDS, len(data), len(data) - 1, len(data) // 2)) % 2 ** (8 * size)
    struct.pack_into(form, data, place, value)


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def swap_chunks(data: bytearray, rng: random.Random) -> None:
    size = rng.choice((1, 2, 4, 8, 16, 64, 256))
    if len(data) < 3 * size:
        return
    one, two = (min(_place(data, rng), len(data) - size) for _ in range(2))
    data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]


def insert_bytes(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    data[place:place] = rng.randbytes(rng.choice((1, 2, 4, 8, 64)))


def delete_bytes(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    del data[place : place + rng.choice((1, 2, 4, 8, 64))]


def repeat_chunk(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    chunk = data[place : place + rng.choice((4, 12, 20, 64, 200))]
    data[place:place] = chunk * rng.choice((1, 2, 10))


def replace_number(data: bytearray, rng: random.Random) -> None:
    _replace(data, rng, _NUMBER, _NUMBERS)


def replace_word(data: bytearray, rng: random.Random) -> None:
    _replace(data, rng, _QUOTED, (*_TEXTS, *_NUMBERS))


def _replace(data: bytearray, rng: random.Random, pattern: re.Pattern[bytes], choices: tuple[str, ...]) -> None:
    found = list(pattern.finditer(bytes(data)))
    if found:
        one = rng.choice(found)
        data[one.start() : one.end()] = rng.choice(choices).encode("utf-8", "surrogatepass")


_BINARY_WAYS: tuple[Mutation, ...] = (
    flip_bit, flip_bit, set_byte, set_byte, set_word, set_word, set_word, truncate, swap_chunks, insert_bytes,
    delete_bytes, repeat_chunk,
)  # fmt: skip
_TEXT_WAYS: tuple[Mutation, ...] = (
    flip_bit, set_byte, truncate, swap_chunks, insert_bytes, delete_bytes, repeat_chunk, replace_number, replace_number,
    replace_number, replace_word, replace_word, replace_word,
)  # fmt: skip
