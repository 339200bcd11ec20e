"""Shares cases out to processes and notices when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from tests.fuzz.kinds import KINDS
from tests.fuzz.worker import Outcome, serve

OUTCOMES: tuple[Outcome, ...] = ("equal", "refused", "unjudged", "wrong", "traceback", "crash", "hang")


@dataclass(frozen=True)
class Result:
    """How a case ended."""

    case: int
    outcome: Outcome
    detail: str = ""

    @property
    def kind(self) -> str:
        """Name of the kind of file."""
        return KINDS[self.case % len(KINDS)].name


@dataclass
class _Lane:
    """A process, what it still has to do, and the case that it is at."""

    process: SpawnProcess
    pipe: Connection
    waiting: list[int]
    current: int | None = None


@dataclass
class Campaign:
    """Many cases.

    Attributes:
        seed: Of the damage.
        jobs: Processes beside each other.
        seconds: When to stop; None for when all is done.
        target: What a process runs; another one in tests of this module.
    """

    seed: int
    jobs: int = 2
    seconds: float | None = None
    target: object = serve
    results: list[Result] = field(default_factory=list)

    def run(self, cases: Iterable[int]) -> list[Result]:
        """Run cases; each comes to one result, unless time runs out."""
        numbers = list(cases)
        end = time.monotonic() + (self.seconds if self.seconds is not None else 1e9)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            lanes = [self._start(Path(folder), numbers[start :: self.jobs]) for start in range(self.jobs)]
            lanes = [lane for lane in lanes if lane]
            while lanes and time.monotonic() < end:
                for pipe in wait([lane.pipe for lane in lanes], timeout=1.0):
                    lane = next(one for one in lanes if one.pipe is pipe)
                    after = self._listen(lane, Path(folder))
                    lanes = [one for one in lanes if one is not lane] + ([after] if after else [])
            for lane in lanes:
                lane.process.terminate()
                lane.process.join()
        return self.results

    def _start(self, folder: Path, cases: list[int]) -> _Lane | None:
        if not cases:
            return None
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        own = Path(tempfile.mkdtemp(dir=folder))
        process = context.Process(target=self.target, args=(theirs, own, self.seed, cases))  # type: ignore[arg-type]
        process.start()
        theirs.close()
        return _Lane(process, ours, list(cases))

    def _listen(self, lane: _Lane, folder: Path) -> _Lane | None:
        """Take one message; the lane that goes on, another one where the process died, None where all is done."""
        try:
            case, outcome, detail = lane.pipe.recv()
        except (EOFError, OSError):
            return self._bury(lane, folder)
        if outcome == "begun":
            lane.current = case
        else:
            self.results.append(Result(case, outcome, detail))
            lane.waiting.remove(case)
            lane.current = None
        return lane

    def _bury(self, lane: _Lane, folder: Path) -> _Lane | None:
        lane.process.join()
        code = lane.process.exitcode or 0
        if lane.current is None:
            if lane.waiting:
                raise RuntimeError(f"a process died with {code} between its cases")
            return None
        outcome: Outcome = "hang" if code == -signal.SIGALRM else "crash"
        self.results.append(Result(lane.current, outcome, f"the process ended with {code}"))
        lane.waiting.remove(lane.current)
        return self._start(folder, lane.waiting)


def table_of(results: Sequence[Result]) -> str:
    """Cases by kind and by how they ended."""
    counts = Counter((result.kind, result.outcome) for result in results)
    lines = [f"{'':12}" + "".join(f"{name:>11}" for name in ("cases", *OUTCOMES))]
    for kind in [one.name for one in KINDS] + ["all"]:
        row = [sum(n for (k, o), n in counts.items() if kind in (k, "all") and o == name) for name in OUTCOMES]
        lines.append(f"{kind:12}" + "".join(f"{count:11,}" for count in (sum(row), *row)))
    return "\n".join(lines)
