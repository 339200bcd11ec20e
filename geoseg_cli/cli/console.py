"""What the user sees on stderr: messages, tables and the progress bar."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.cli import logs
from geoseg_cli.errors import GeosegError
from geoseg_cli.printable import counted, printable

if TYPE_CHECKING:
    from rich.console import Console

    from geoseg_cli.memory import MemoryPlan
    from geoseg_cli.predict import PredictReport


def tame(error: GeosegError) -> None:
    """Take from the texts of an error what a terminal would obey."""
    error.message, error.hint = printable(error.message, keep="\n"), printable(error.hint, keep="\n")


class Messages:
    """Writes to stderr; silent when ``quiet``, failures excepted."""

    def __init__(self, quiet: bool, verbose: int) -> None:
        self._quiet, self._verbose = quiet, verbose
        self._redaction = logs.redaction()

    @property
    def is_quiet(self) -> bool:
        """Whether only failures are shown."""
        return self._quiet

    @property
    def is_verbose(self) -> bool:
        """Whether more than usual is wanted."""
        return self._verbose > 0 and not self._quiet

    @cached_property
    def console(self) -> Console:
        """The terminal, for what is drawn there; rich is not imported before something is."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """One line."""
        logs.tell("message", text=text)
        if not self._quiet:
            self._line(text)

    def failure(self, scene: Path, error: GeosegError) -> None:
        """A scene that failed while others go on; shown even when quiet."""
        logs.failure(error)
        self.trouble(f"{printable(str(scene))}: failed (code {error.exit_code}): {error.message}", error.hint)

    def trouble(self, text: str, hint: str) -> None:
        """What went wrong and what to do; shown even when quiet."""
        self._line(text)
        if hint:
            self._line(f"  -> {hint}")

    def _line(self, text: str) -> None:
        """Names of files may hold what a terminal would obey, addresses what nobody should see."""
        self.console.print(printable(self._redaction.secretless(text), keep="\n"), markup=False)

    def decisions(self, decisions: dict[str, Any], scene: Path, output: Path) -> None:
        """What was resolved about a scene, and why."""
        height, width = decisions["size_px"]
        tile_height, tile_width = decisions["tile_px"]
        self.note(f"{printable(str(scene))} -> {printable(str(output))}")
        self.note(f"  grid: {height} x {width} px, {decisions['crs'] or 'no CRS'}, {_gsd(decisions['gsd_m'])}")
        self.note("  bands: " + ", ".join(_band(row) for row in decisions["bands"]))
        self.note(f"  radiometry: {decisions['radiometry']['reason']}")
        self.note(f"  nodata: {decisions['nodata']}")
        tiles = f"{decisions['tiles']} of {tile_height} x {tile_width} px, overlap >= {decisions['overlap_px']} px"
        views = "" if decisions["tta"] == "none" else f", {decisions['tta']} augmentation"
        self.note(f"  tiles: {tiles}, {decisions['blend']} blend{views}, batch {decisions['batch']}")
        for warning in decisions["warnings"]:
            self.note(f"  warning: {warning}")

    def memory(self, plan: MemoryPlan) -> None:
        """What a run would take, part by part."""
        limit = "what is free is not known" if plan.limit_bytes is None else f"of {_mib(plan.limit_bytes)}"
        self.note(f"  memory: {_mib(plan.total_bytes)} {limit}, beside interpreter, libraries and weights")
        for part, size in plan.parts.items():
            self.note(f"    {part}: {_mib(size)}")
        self.note(f"    batches of {counted(plan.batch, 'tile')}, {plan.waiting} may wait")

    def areas(self, report: PredictReport) -> None:
        """Table of classes of a finished map."""
        if self._quiet:
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for title in ("value", "class", "pixels", "share", "hectares"):
            table.add_column(title, justify="left" if title == "class" else "right")
        for area in report.areas:
            hectares = "-" if area.hectares is None else f"{area.hectares:,.2f}"
            table.add_row(str(area.value), area.title, f"{area.pixels:,}", f"{area.share:.1%}", hectares)
        self.console.print(table)
        if report.hidden_pixels is not None:
            hidden = counted(report.hidden_pixels, "pixel")
            self.note(f"hidden below clouds and shadows, or where nobody can tell: {hidden}")
        if report.seams is not None:
            one = report.seams
            shared = counted(one.shared, "shared pixel")
            share = "no pixel is shared" if one.share is None else f"{one.share:.2%} of {shared}"
            self.note(f"overlapping tiles gave different classes: {share}")
        if report.polygons is not None:
            self.note(f"{report.polygons.output}: {counted(report.polygons.polygons, 'polygon')}")
        if report.valid_pixels == 0:
            self.note("warning: no valid pixel: the map is nodata everywhere")
        if report.not_finite:
            lost = counted(report.not_finite, "pixel")
            self.note(f"warning: {lost} became nodata because the network gave no finite number")
        if self._verbose:
            self.note("seconds: " + ", ".join(f"{k} {v:.2f}" for k, v in report.seconds.items()))

    @contextmanager
    def log(self) -> Iterator[None]:
        """Show what the library notes by the way."""
        handler, logger = _Notes(self), logging.getLogger("geoseg_cli")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int], None] | None]:
        """A bar with rate and time left where stderr is a terminal; None elsewhere."""
        if self._quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(escape(printable(title)), total=None, rate="")

            def update(done_px: int, total_px: int) -> None:
                elapsed = bar.tasks[0].elapsed or 0.0
                rate = f"{done_px / elapsed / 1e6:.2f} Mpx/s" if elapsed else ""
                bar.update(task, completed=done_px, total=total_px, rate=rate)

            yield update


class _Notes(logging.Handler):
    """Hands log records on as notes."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, logs.FIELDS):  # an event for the log file, told in other words here
            return
        self._messages.note(f"  {record.getMessage()}")


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"


def _gsd(gsd_m: list[float] | None) -> str:
    if gsd_m is None:
        return "pixel size unknown"
    return f"pixels of {gsd_m[0]:g} x {gsd_m[1]:g} m"


def _band(row: dict[str, Any]) -> str:
    if "filled" in row:
        return f"{row['band']} filled with {row['filled']:g}"
    if row["index"] is None:
        return f"{row['band']} absent"
    return f"{row['band']}={row['index']}" + (f" ({row['name']})" if row["name"] else "")
