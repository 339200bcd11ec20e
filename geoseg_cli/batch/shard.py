"""One of several parts of a run's scenes, for machines that share a folder and nothing else.

The scenes are sorted by where their maps go and dealt out in turn: shard I of N gets the I-th, the (I + N)-th and so
on. So parts differ by one scene at most, also where there are few, and every process that sees the same list makes the
same parts. Where the list changes meanwhile, claims and journals still keep any scene from being done twice; what
nobody got is done by the next run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from geoseg_cli.batch.tasks import SceneTask
from geoseg_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Shard:
    """A part.

    Attributes:
        number: Which, from 1.
        of: How many there are.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        """Refuse what is no part.

        Raises:
            UsageError: The number is not between 1 and how many there are.
        """
        if not 1 <= self.number <= self.of:
            raise UsageError(f"shard {self.number}/{self.of} is none", f"use 1/{self.of} to {self.of}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``I/N``.

        Raises:
            UsageError: It is something else.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if match is None or int(match[2]) == 0:
            raise UsageError(f"--shard {text!r} is not I/N", "use 1/4 to 4/4 for four parts, or auto in a job array")
        return cls(int(match[1]), int(match[2]))

    def of_tasks(self, tasks: Sequence[SceneTask]) -> list[SceneTask]:
        """The tasks of this part, in their order."""
        return sorted(tasks, key=_place)[self.number - 1 :: self.of]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def _place(task: SceneTask) -> tuple[str, str]:
    """Relative to the folder of the run: machines may see it in different places."""
    place, home = task.place, task.home
    if home is not None and place.is_relative_to(home):
        return place.relative_to(home).as_posix(), ""
    return place.name, str(place)
