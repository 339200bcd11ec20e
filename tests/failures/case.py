"""What a failure is, and what is wanted when it happens: the types that the table in ``table.py`` is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tests.failures.shell import Shell

Labels = npt.NDArray[np.uint8]
"""(H, W) values of a map, 255 where there is no answer."""


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Made:
    """What a case built.

    Attributes:
        scene: The path that stands on the command line.
        answer: What the map must hold, computed from the labels that the scene was made of; None where there must be
            no map.
    """

    scene: Path
    answer: Labels | None = None


@dataclass(frozen=True)
class Case:
    """One way in which a failure shows, and what must come of it.

    Attributes:
        name: Ends the name of its test.
        given: How the input is built, for the page.
        build: Builds it in an empty folder.
        options: What stands behind ``geoseg cloudmask SCENE -o map.tif``.
        code: Wanted exit code.
        message: Words that must stand in the message: the cause and where it is.
        remedy: Words that must stand behind the arrow: the option or command that helps. Of a run that ends well,
            both are words of its warnings.
        names: What the message must name; the scene where this is empty.
        output: Name of the map.
        has_old_map: Whether an older file lies where the map goes, and ``--overwrite`` is given.
        run: How the command is run; None for inside the test's process.
        after: Looks at what else must be true: the shell's folder, and what was built.
        is_slow: Whether it takes more than some seconds.
    """

    name: str
    given: str
    build: Callable[[Path], Made]
    options: tuple[str, ...] = ()
    code: int = 0
    message: tuple[str, ...] = ()
    remedy: tuple[str, ...] = ()
    names: str = ""
    output: str = "map.tif"
    has_old_map: bool = False
    run: Callable[[Shell, Made, list[str]], Done] | None = None
    after: Callable[[Shell, Made], Any] | None = None
    is_slow: bool = False


@dataclass(frozen=True)
class Failure:
    """A row of the table.

    Attributes:
        number: Its place in the list of failures.
        title: What goes wrong.
        does: What geoseg does then, and why, where that is a choice.
        cases: What is run here.
        elsewhere: Further tests that prove it: ``tests/FILE.py::NAME``.
    """

    number: int
    title: str
    does: str
    cases: tuple[Case, ...] = ()
    elsewhere: tuple[str, ...] = ()
