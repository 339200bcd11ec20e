"""Which place is learned from, which chooses the best weights, and which is kept for the test.

Pixels of one place look alike, so a place is in one part alone; a split by pixel or by chip would test what was
learned by heart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Literal

from geoseg_cli.errors import InputError, UsageError
from geoseg_cli.training.config import SplitTable

Part = Literal["train", "develop", "test"]
READ_PARTS: Final[tuple[Part, ...]] = ("train", "develop")
"""Parts whose pixels are read; those of the test never are."""


def split_places(places: Iterable[str], table: SplitTable, has_other_develop: bool = False) -> dict[str, Part]:
    """Put every place into one part.

    The order of the places is that of a hash with the seed: it depends on their names alone, not on how many there
    are or in which order they were found.

    Args:
        places: Names; doubled ones count once.
        table: Shares or names.
        has_other_develop: Whether something else chooses the best weights, so that no place must.

    Returns:
        Place -> part, in the order of the names.

    Raises:
        UsageError: A named place does not exist, or the shares leave no place to choose the weights with.
        InputError: There are too few places.
    """
    known = sorted(set(places))
    named = {key: _existing(key, getattr(table, key), known) for key in ("develop_places", "test_places")}
    free = [place for place in known if not any(place in (own or ()) for own in named.values())]
    order = sorted(free, key=lambda place: hashlib.sha256(f"{table.seed}/{place}".encode()).digest())
    test = named["test_places"]
    if test is None:
        test, order = _drawn(order, _count(table.test, len(known)))
    develop = named["develop_places"]
    if develop is None:
        develop, order = _drawn(order, _count(table.develop, len(known)))
    if not order:
        raise InputError(
            f"{len(known)} place(s) ({_named(known)}) cannot be split: {len(test)} for the test and {len(develop)} to"
            " choose the weights leave none to learn from",
            "give data of more places (subfolders, places.csv, place_property or a smaller block_m), or set"
            " split.test = 0",
        )
    if not develop and not has_other_develop:
        raise UsageError("split: no place chooses the best weights", "raise split.develop, or name develop_places")
    return {place: "test" if place in test else "develop" if place in develop else "train" for place in known}


def _count(share: float, places: int) -> int:
    """Places of a share of all: at least one, unless the share is 0."""
    return max(1, round(share * places)) if share else 0


def _drawn(order: list[str], count: int) -> tuple[set[str], list[str]]:
    """The first places of an order, and the others."""
    return set(order[:count]), order[count:]


def _existing(key: str, named: tuple[str, ...] | None, known: list[str]) -> set[str] | None:
    """Places that the configuration names; None where it leaves them to the share."""
    if named is None:
        return None
    if stray := sorted(set(named) - set(known)):
        raise UsageError(f"split.{key}: there is no place {_named(stray)}", f"places are {_named(known)}")
    return set(named)


def _named(places: list[str]) -> str:
    rest = f" and {len(places) - 10} more" if len(places) > 10 else ""
    return ", ".join(places[:10]) + rest
