"""Sequences whose items are read or made when they are asked for, so that memory does not grow with their number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

Item = TypeVar("Item", covariant=True)


class LazySequence(Sequence[Item]):
    """A sequence that makes its items; who derives from it says how many there are and how one is made."""

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        """Items, made now.

        Raises:
            IndexError: There is no such place.
        """
        places = range(len(self))[place]
        return self._make(places) if isinstance(places, int) else [self._make(one) for one in places]

    @abstractmethod
    def _make(self, place: int) -> Item:
        """The item at a place, from 0 to one less than their number."""
