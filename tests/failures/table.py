"""The table of failures: what goes wrong, what geoseg does then, and which test proves it.

``docs/failures.md`` is written from it by ``scripts/failures.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.failures import rows_files, rows_grid, rows_networks, rows_pixels, rows_tiles
from tests.failures.case import Case, Failure

FAILURES: tuple[Failure, ...] = tuple(
    sorted(
        (
            *rows_grid.ROWS,
            *rows_grid.LATER_ROWS,
            *rows_pixels.ROWS,
            *rows_tiles.ROWS,
            *rows_files.ROWS,
            *rows_networks.ROWS,
        ),
        key=lambda failure: failure.number,
    )
)


def named_cases(failure: Failure) -> list[tuple[str, Case]]:
    """The cases of a failure with the names of their tests."""
    return [(f"{failure.number:02}_{case.name}", case) for case in failure.cases]


def cases() -> Iterator[tuple[str, Case]]:
    """Every case with the name of its test."""
    for failure in FAILURES:
        yield from named_cases(failure)
