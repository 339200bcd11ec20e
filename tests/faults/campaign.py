"""Faults one after the other: what each run left is compared with the old and the new outputs, and run again."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.faults import stage as stages
from tests.faults.shim import ACTS
from tests.faults.stage import Ended, Stage, disturbed, hidden, in_child, operations, visible

DISK_BYTES = 3_000_000


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and where.

    Attributes:
        stage: Name of the run.
        kind: An act of the shim; ``full disk``, ``file limit`` or ``random kill``.
        at: Number of the operation; bytes that are free, or that a file may have; milliseconds until the kill.
        operation: What the operation was; empty for the others.
    """

    stage: str
    kind: str
    at: int
    operation: str = ""


@dataclass(frozen=True)
class Result:
    """What came of a fault.

    Attributes:
        fault: The fault.
        trouble: What should not have been; empty where the outputs survived.
        state: ``old``, ``new`` or, after a kill between two renames, ``between``.
        code: Exit code of the disturbed run.
    """

    fault: Fault
    trouble: str
    state: str
    code: int


def warm_up(stage: Stage) -> None:
    """Import what a run imports, without opening a data set: children are forked from here."""
    names, out = stage.root / "modules", stage.root / "warm" / "out"

    def learn() -> None:
        before = set(sys.modules)
        try:
            stage.run(stage.prepare(out))
        finally:
            names.write_text("\n".join(name for name in sys.modules if name not in before))

    in_child(learn, stage.root / "log")
    shutil.rmtree(out.parent)
    for name in names.read_text().splitlines():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


@contextmanager
def opened_stages(names: Iterable[str] = ()) -> Iterator[dict[str, Stage]]:
    """The runs, made in a temporary folder, which is in memory where that is to be had."""
    os.environ["OMP_NUM_THREADS"], os.environ["GEOSEG_CONFIG"] = "1", os.devnull
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="faults-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        made = {}
        for build in stages.STAGES:
            name = build.__name__.replace("_", " ")
            if not names or name in names:
                root = Path(folder) / build.__name__
                root.mkdir()
                ended = in_child(lambda root=root: stages.make_inputs(root), root / "log")  # type: ignore[misc]
                assert ended.code == 0, ended.said
                made[name] = build(root)
                warm_up(made[name])
        yield made


def faults_of(stage: Stage) -> list[Fault]:
    """Every operation of a run x every act."""
    found = operations(stage, stage.root / "counted" / "out")
    return [Fault(stage.name, act, at, name) for at, name in enumerate(found, start=1) for act in ACTS]


def faults_of_gdal(stage: Stage, count: int, seed: int = 0) -> list[Fault]:
    """Sizes of a full disk, limits on the size of files, and moments of a kill: ``count`` of each."""
    chosen = random.Random(seed)
    disks = count if can_mount() else 0
    disk = [Fault(stage.name, "full disk", 4096 * chosen.randrange(1, 180)) for _ in range(disks)]
    limits = [Fault(stage.name, "file limit", chosen.randrange(1, 300_000)) for _ in range(count)]
    kills = [Fault(stage.name, "random kill", chosen.randrange(0, 250)) for _ in range(count)]
    return [*disk, *limits, *kills]


def can_mount() -> bool:
    """Whether a small file system in memory may be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        if not _mount(Path(folder)):
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run_all(
    made: dict[str, Stage], faults: Sequence[Fault], jobs: int = 2, seconds: float | None = None
) -> list[Result]:
    """Let faults happen, in ``jobs`` processes that fork from this one.

    Args:
        made: The runs by name.
        faults: What goes wrong.
        jobs: Processes beside each other.
        seconds: When to stop; None for when all is done.
    """
    end = time.monotonic() + (1e9 if seconds is None else seconds)
    tries = [(made[fault.stage], fault, number) for number, fault in enumerate(faults)]
    results = []
    # Tries come to an end of their own: leaving the pool ends its processes, not their children.
    with multiprocessing.get_context("fork").Pool(jobs) if jobs > 1 else nullcontext() as pool:
        for result in pool.imap_unordered(_try_one, tries) if pool else map(_try_one, tries):
            results.append(result)
            if time.monotonic() > end:
                break
    return results


def _try_one(given: tuple[Stage, Fault, int]) -> Result:
    return try_fault(*given)


def try_fault(stage: Stage, fault: Fault, number: int) -> Result:
    """One fault, the look at what it left, and the run after it."""
    place = stage.root / str(number)
    place.mkdir()
    out = place / "out"
    try:
        with _disk(fault, place):
            ended = _disturb(stage, fault, out, place / "log")
            found, trouble = visible(out), ""
            state = state_of(stage, found)
            trouble = _judge(stage, fault, ended, found, state) or _judge_rerun(stage, out, place / "log")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return Result(fault, trouble, state, ended.code)


@contextmanager
def _disk(fault: Fault, place: Path) -> Iterator[None]:
    if fault.kind != "full disk":
        yield
        return
    assert _mount(place)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _disturb(stage: Stage, fault: Fault, out: Path, log: Path) -> Ended:
    stage.prepare(out)
    if fault.kind in ACTS:
        return disturbed(stage, out, fault.at, fault.kind, log)  # type: ignore[arg-type]
    if fault.kind == "random kill":
        return in_child(lambda: stage.run(out), log, fault.at / 1000)
    if fault.kind == "file limit":
        return in_child(lambda: _limited(stage, out, fault.at), log)
    log = stage.root / f"{out.parent.name}.log"  # not on the full disk
    ballast = out.parent / "ballast"
    free = shutil.disk_usage(out).free
    ballast.write_bytes(bytes(max(0, free - fault.at)))
    ended = in_child(lambda: _believing_in_room(stage, out), log)
    ballast.unlink()
    log.unlink()
    return ended


def _limited(stage: Stage, out: Path, most_bytes: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    stage.run(out)


def _believing_in_room(stage: Stage, out: Path) -> None:
    """Somebody else fills the disk after the run looked: the run itself would refuse to begin."""
    import geoseg_cli.results.commit

    geoseg_cli.results.commit.free_bytes = lambda folder: 1 << 40
    stage.run(out)


def state_of(stage: Stage, found: dict[str, bytes]) -> str:
    """``old``, ``new``, ``between`` where every file is of one of them and fits its map, else ``torn``."""
    if found == stage.old:
        return "old"
    if found == stage.new:
        return "new"
    for name, content in found.items():  # a file of neither run is torn as well
        if content not in (stage.old.get(name), stage.new.get(name)):
            return f"torn: {name} is neither the old nor the new one"
    for name, beside in stage.maps.items():
        generation = stage.new if found.get(name) == stage.new[name] else stage.old
        strange = [one for one in beside if one in found and found[one] != generation.get(one)]
        if strange:
            return f"torn: {name} lies beside {strange[0]} of the other run"
        if name in stage.old and name not in found:
            return f"torn: {name} is gone"
    return "between"


def _judge(stage: Stage, fault: Fault, ended: Ended, found: dict[str, bytes], state: str) -> str:
    """What is wrong right after the fault."""
    is_killed = ended.code == -signal.SIGKILL
    allowed = {"KILL": (-9, 0), "random kill": (-9, 0), "TERM": (143, 0)}.get(fault.kind, (0, *stage.failed_codes))
    if ended.code not in allowed or "Traceback" in ended.said:
        return f"exit code {ended.code}: {ended.said[-600:]}"
    if state.startswith("torn"):
        return state
    if ended.code == 0 and state != "new":
        return f"success was claimed, and the outputs are {state}"
    # Several maps are several transactions, so some may be new and others not there.
    if state == "between" and not is_killed and len(stage.maps) == 1:
        return f"exit code {ended.code} left some outputs old and others new"
    return ""


def _judge_rerun(stage: Stage, out: Path, log: Path) -> str:
    """What is wrong after the same command again."""
    if not stage.old and len(stage.maps) == 1 and visible(out) == stage.new:
        return ""  # it would rightly be refused: the outputs are there
    if not stage.old and len(stage.maps) == 1 and visible(out):
        again = Stage(stage.name, stage.root, (*stage.arguments, "--overwrite"), stage.maps)
    else:
        again = stage
    ended = in_child(lambda: again.run(out), log)
    if ended.code:
        return f"the run after it: exit code {ended.code}: {ended.said[-600:]}"
    if visible(out) != stage.new:
        return "the run after it did not bring the new outputs"
    return f"the run after it left {hidden(out)}" if hidden(out) else ""


def table_of(results: Sequence[Result]) -> str:
    """Faults by run and kind, and what they left."""
    counts = Counter((r.fault.stage, r.fault.kind) for r in results)
    lines = [f"{'':22}{'fault':14}{'faults':>8}{'survived':>10}{'old':>7}{'new':>7}{'between':>9}"]
    for (stage, kind), total in counts.items():
        own = [r for r in results if (r.fault.stage, r.fault.kind) == (stage, kind)]
        lines.append(_line(stage, kind, total, own))
    return "\n".join([*lines, _line("all", "", len(results), results)])


def _line(stage: str, kind: str, total: int, own: Sequence[Result]) -> str:
    states = Counter(r.state for r in own)
    survived = sum(not r.trouble for r in own)
    return f"{stage:22}{kind:14}{total:8,}{survived:10,}" + "".join(
        f"{states[name]:{width},}" for name, width in (("old", 7), ("new", 7), ("between", 9))
    )
