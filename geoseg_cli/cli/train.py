"""``geoseg train``: a configuration and data become a bundle."""

from __future__ import annotations

import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg_cli.cli.console import Messages
from geoseg_cli.cli.logs import LogFile, LogFormat
from geoseg_cli.cli.options import DryRun, Quiet, Verbose
from geoseg_cli.cli.request import put
from geoseg_cli.errors import UsageError
from geoseg_cli.printable import counted

if TYPE_CHECKING:
    from geoseg_cli.training.loop import Pace, Progress
    from geoseg_cli.training.plan import Plan, Preview
    from geoseg_cli.training.run import Listener
    from geoseg_cli.training.split import Part

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_MOST_PLACES = 12

Config = Annotated[
    Path, typer.Argument(metavar="CONFIG.toml", readable=False, help="What to train on what.", show_default=False)
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="Folder of the bundle (default: its name, here).", show_default=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that is kept in FOLDER.run.")]
Restart = Annotated[bool, typer.Option("--restart", help="Drop the run that is kept in FOLDER.run.")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:N]", help="Where it trains.")]


def command(
    config: Config,
    out: Out = None,
    resume: Resume = False,
    restart: Restart = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    log_file: LogFile = None,
    log_format: LogFormat = "json",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Train a bundle on own data or on simulated scenes, as CONFIG.toml says.

    Several processes train together under torchrun:
    torchrun --nproc-per-node 4 -m geoseg_cli train CONFIG.toml
    Standard output carries the folder of the bundle and nothing else.
    """
    if resume and restart:
        raise UsageError("--resume and --restart exclude each other", "give one of them")
    launch = _Launch.of_environment()
    messages = Messages(quiet or launch.rank > 0, verbose)
    from geoseg_cli.training.config import read_config
    from geoseg_cli.training.plan import look_ahead

    preview = look_ahead(read_config(config))
    place = launch.device(device)
    if dry_run:
        _show_plan(preview, place, messages)
        _warn_of_missing_packages(messages)
        return
    mode = "resume" if resume else "restart" if restart else "new"
    _run(preview, out or Path(preview.config.bundle.name), mode, launch, place, messages, config)


def _warn_of_missing_packages(messages: Messages) -> None:
    """A bundle ends with an exported graph, which the run itself would refuse to begin without."""
    from geoseg_cli.errors import EngineError
    from geoseg_cli.export.onnx_file import require_packages

    try:
        require_packages()
    except EngineError as error:
        messages.note(f"warning: the run will stop at its beginning: {error.message}; {error.hint}")


@dataclass(frozen=True)
class _Launch:
    """This process as torchrun started it, or alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls) -> _Launch:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if not all(name in os.environ for name in names):
            return cls()
        try:
            return cls(*(int(os.environ[name]) for name in names))
        except ValueError as error:
            raise UsageError("RANK, WORLD_SIZE and LOCAL_RANK are no numbers", "start it with torchrun") from error

    def device(self, asked: str) -> str:
        """``cpu`` or ``cuda:N``; each process of a machine takes its own GPU."""
        from geoseg_cli.engines.devices import CudaProbe, probe_cuda, resolve_device
        from geoseg_cli.engines.torch_engine import find_cuda_obstacle

        probe = probe_cuda()
        if obstacle := find_cuda_obstacle(probe):
            probe = CudaProbe(0, obstacle)
        chosen = resolve_device(asked, probe)
        if chosen == "cpu" or self.size == 1:
            return chosen
        if ":" in asked:
            raise UsageError(f"--device {asked} is one GPU for {self.size} processes", "use --device cuda")
        return resolve_device(f"cuda:{self.local_rank}", probe)


def _show_plan(preview: Preview, device: str, messages: Messages) -> None:
    """Read the data into a folder that is thrown away, and say what would be done."""
    from geoseg_cli.training.plan import cut_chips, make_plan

    if preview.config.data.simulator is not None:
        messages.note("simulated scenes are made as well, to measure them; this takes its time")
    with tempfile.TemporaryDirectory(prefix="geoseg-") as folder:
        with _LiveLine(_is_live(messages)) as live:
            cut_chips(preview, Path(folder), live.show)
        _announce(make_plan(preview, Path(folder), device), device, messages)


def _run(
    preview: Preview, out: Path, mode: str, launch: _Launch, device: str, messages: Messages, config: Path
) -> None:
    from typing import cast

    from geoseg_cli.training.ranks import joined
    from geoseg_cli.training.run import run_training
    from geoseg_cli.training.run_folder import Mode, RunFolder

    stop = _Stop()
    with joined(launch.rank, launch.size, device) as ranks, _LiveLine(_is_live(messages)) as live:
        listener = _listener(live, device, messages, stop)
        with stop.watching():
            bundle = run_training(preview, RunFolder(out), cast(Mode, mode), ranks, listener)
    if bundle is not None:
        put(f"{bundle.folder}\n")
    elif ranks.is_first:
        folder = "" if out == Path(preview.config.bundle.name) else f" --out {out}"
        messages.note(f"stopped; the checkpoint is kept. Go on with: geoseg train {config}{folder} --resume")
        sys.exit(stop.exit_code)


class _Stop:
    """Turns signals into a wish that the loop hears between two steps; a second signal does not wait.

    Attributes:
        is_loop_running: Until the loop runs there is nothing to keep, and a signal ends the process at once.
    """

    def __init__(self) -> None:
        self._number = 0
        self.is_loop_running = False

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal ended."""
        return 128 + (self._number or signal.SIGTERM)

    def is_wanted(self) -> bool:
        """Whether a signal came."""
        return self._number > 0

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._number:
            os._exit(128 + number)
        self._number = number
        if not self.is_loop_running:
            print("geoseg: interrupted before the first step", file=sys.stderr)
            sys.exit(self.exit_code)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hear signals; those that were heard before this are put back afterwards."""
        earlier = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)


@dataclass
class _LiveLine:
    """A line on the terminal that is rewritten once a second; nothing where stderr is no terminal."""

    is_shown: bool
    _last_s: float = 0.0

    def __enter__(self) -> _LiveLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        """Rewrite the line, at most once a second."""
        if self.is_shown and time.monotonic() - self._last_s >= 1:
            self._last_s = time.monotonic()
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for another line."""
        if self.is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _is_live(messages: Messages) -> bool:
    return sys.stderr.isatty() and not messages.is_quiet


def _listener(live: _LiveLine, device: str, messages: Messages, stop: _Stop) -> Listener:
    from geoseg_cli.training.run import Listener

    def planned(plan: Plan) -> None:
        live.clear()
        _announce(plan, device, messages)
        stop.is_loop_running = True

    def reported(progress: Progress) -> None:
        live.clear()
        messages.note(_report(progress))

    def stepped(pace: Pace) -> None:
        live.show(_pace(pace))

    return Listener(messages.note, live.show, planned, reported, stepped, stop.is_wanted)


def _pace(pace: Pace) -> str:
    left = "" if math.isnan(pace.left_s) else f", {_duration(pace.left_s)} left"
    return f"{pace.share:6.1%}  step {pace.step:6d}  {pace.steps_per_s:.3g} steps/s{left}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _report(progress: Progress) -> str:
    scores = "  ".join(f"{name} {value:.4f}" for name, value in progress.scores.items())
    return (
        f"{_pace(progress.pace)}  loss {progress.loss:.4f}  lr {progress.learning_rate:.2e}  mIoU {scores}"
        f"{'  best' if progress.is_best else ''}"
    )


def _announce(plan: Plan, device: str, messages: Messages) -> None:
    """Say what will be done."""
    from geoseg_cli.training.plan import new_network

    preview, options = plan.preview, plan.options
    parameters = sum(weight.numel() for weight in new_network(preview)[0].parameters())
    budget = counted(options.steps, "step") if options.steps else f"{options.minutes:g} min"
    optional = f" (a scene may lack {', '.join(plan.spec.optional)})" if plan.spec.optional else ""
    lines = [
        f"network {preview.network}, {parameters:,} parameters; {device}, {options.precision}",
        f"bands: {', '.join(plan.spec.bands)}{optional}",
        f"  mean {_numbers(plan.spec.mean)}; deviation {_numbers(plan.spec.stddev)}",
        f"{budget}, {options.pixels_per_step:,} px per step in samples of {_numbers(options.sizes_px)} px",
        *(f"  {part}: {_counted(preview.places(part))}{words}" for part, words in _PARTS if preview.parts),
        *_class_table(plan),
        *([f"class weights {_numbers(options.class_weights)}"] if options.class_weights else []),
        *plan.notes,
    ]
    for line in lines:
        messages.note(line)


_PARTS: tuple[tuple[Part, str], ...] = (
    ("train", ""),
    ("develop", " (chooses the best weights)"),
    ("test", " (not read)"),
)


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _counted(places: list[str]) -> str:
    rest = f", ... {len(places) - _MOST_PLACES} more" if len(places) > _MOST_PLACES else ""
    return f"{len(places)} place{'s' * (len(places) != 1)}: {', '.join(places[:_MOST_PLACES])}{rest}"


def _class_table(plan: Plan) -> list[str]:
    """Labelled pixels of the parts that are read, a line per class."""
    train, develop = plan.pixels("train"), plan.pixels("develop")
    classes = plan.preview.legend.classes
    width = max(len(one.title) for one in classes)
    rows = [f"{'value':>5}  {'class':{width}}  {'train px':>14}  {'develop px':>14}"]
    rows += [
        f"{one.value:>5}  {one.title:{width}}  {learned:>14,}  {chosen:>14,}"
        for one, learned, chosen in zip(classes, train, develop, strict=True)
    ]
    chips = f"{counted(len(plan.chips('train')), 'chip')} to learn from, {len(plan.chips('develop'))} to choose with"
    return [chips, *rows]
