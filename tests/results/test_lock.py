"""One run for one output, whatever became of the run before."""

from __future__ import annotations

import dis
import errno
import json
import os
import platform
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from geoseg_cli.errors import BusyError, StorageError
from geoseg_cli.results import lock as lock_module
from geoseg_cli.results.lock import STALE_AFTER_S, OutputLock, lock_path

posix = pytest.mark.skipif(os.name != "posix", reason="needs flock and SIGKILL")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "map.tif"


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock_module, "flock", refuse)


@pytest.fixture(params=["flock", "no flock"])
def any_system(request: pytest.FixtureRequest) -> None:
    if request.param == "no flock":
        request.getfixturevalue("without_flock")


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def left(out: Path, **said: Any) -> None:
    lock_path(out).write_text(json.dumps({"pid": 1, "host": platform.node(), "since": "2026-01-01T00:00:00Z"} | said))


@pytest.mark.usefixtures("any_system")
def test_a_lock_of_a_process_that_no_system_has_is_taken_over(out: Path) -> None:
    left(out, pid=10**40)
    with OutputLock([out]):
        assert json.loads(lock_path(out).read_text())["pid"] == os.getpid()


@posix
@pytest.mark.parametrize("text", ["[" * 4000, "junk", "[1]", ""])
def test_a_lock_of_nobody_that_says_nothing_is_taken_over(out: Path, text: str) -> None:
    lock_path(out).write_text(text)
    os.utime(lock_path(out), (0, 0))
    with OutputLock([out]):
        assert json.loads(lock_path(out).read_text())["pid"] == os.getpid()


@pytest.mark.usefixtures("any_system")
def test_a_second_run_is_refused_and_told_who_holds_the_output_since_when(out: Path) -> None:
    with OutputLock([out]):
        said = json.loads(lock_path(out).read_text())
        with pytest.raises(BusyError) as caught, OutputLock([out]):
            pytest.fail("two hold it")
    assert caught.value.exit_code == 75
    assert said["pid"] == os.getpid()
    for part in (str(out), f"process {os.getpid()} on {platform.node()} since {said['since']}"):
        assert part in caught.value.message
    assert list(out.parent.iterdir()) == []


@pytest.mark.usefixtures("any_system")
@pytest.mark.parametrize("trouble", [None, ValueError, KeyboardInterrupt])
def test_the_lock_file_goes_however_the_run_ends(out: Path, trouble: type[BaseException] | None) -> None:
    def work() -> None:
        with OutputLock([out]):
            assert lock_path(out).exists()
            if trouble:
                raise trouble

    if trouble:
        with pytest.raises(trouble):
            work()
    else:
        work()
    assert list(out.parent.iterdir()) == []
    work_again = OutputLock([out])
    with work_again:
        pass


@pytest.mark.usefixtures("any_system")
def test_of_several_outputs_all_or_none_are_held(tmp_path: Path) -> None:
    one, both = tmp_path / "b.tif", [tmp_path / "a.tif", tmp_path / "b.tif"]
    with OutputLock([one]):
        with pytest.raises(BusyError, match=r"b\.tif"), OutputLock(both):
            pytest.fail("held twice")
        assert [path.name for path in tmp_path.iterdir()] == [".b.tif.lock"]


@pytest.mark.usefixtures("any_system")
def test_the_lock_of_a_process_that_died_here_is_taken_over_with_a_note(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left(out, pid=dead_process())
    with caplog.at_level("INFO"), OutputLock([out]):
        assert json.loads(lock_path(out).read_text())["pid"] == os.getpid()
    assert "took over the lock" in caplog.text
    assert list(out.parent.iterdir()) == []


def test_without_flock_the_lock_of_a_living_process_is_respected(out: Path, without_flock: None) -> None:
    left(out, pid=os.getppid())
    old = time.time() - 10 * STALE_AFTER_S
    os.utime(lock_path(out), (old, old))
    with pytest.raises(BusyError), OutputLock([out]):
        pytest.fail("its holder lives")


@pytest.mark.usefixtures("any_system")
@pytest.mark.parametrize(("silent_s", "is_held"), [(0.5 * STALE_AFTER_S, True), (1.5 * STALE_AFTER_S, False)])
def test_another_machines_lock_holds_until_it_has_been_silent_too_long(
    out: Path, silent_s: float, is_held: bool
) -> None:
    left(out, host="another machine", pid=os.getpid())
    then = time.time() - silent_s
    os.utime(lock_path(out), (then, then))
    if is_held:
        with pytest.raises(BusyError, match="another machine"), OutputLock([out]):
            pytest.fail("its holder may live")
        assert lock_path(out).exists()
    else:
        with OutputLock([out]):
            pass
        assert not lock_path(out).exists()


def test_a_run_that_works_shows_that_it_lives(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "RENEWED_EVERY_S", 0.01)
    with OutputLock([out]):
        os.utime(lock_path(out), (0, 0))
        until = time.monotonic() + 10
        while lock_path(out).stat().st_mtime < 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert time.time() - lock_path(out).stat().st_mtime < STALE_AFTER_S


def test_without_flock_a_living_lock_is_not_moved_away_with_the_dead_one(
    out: Path, without_flock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a dead lock and its removal somebody else takes the output."""
    left(out, pid=dead_process())
    rename = os.rename

    def somebody_is_faster(old: Path, new: Path) -> None:
        monkeypatch.setattr(lock_module.os, "rename", rename)
        lock_path(out).unlink()
        left(out, pid=os.getppid())
        rename(old, new)

    monkeypatch.setattr(lock_module.os, "rename", somebody_is_faster)
    with pytest.raises(BusyError, match=str(os.getppid())), OutputLock([out]):
        pytest.fail("somebody else holds it")
    assert [path.name for path in out.parent.iterdir()] == [".map.tif.lock"]


def test_names_as_long_as_the_file_system_allows_have_locks(tmp_path: Path) -> None:
    with OutputLock([tmp_path / ("ü" * 127)]):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone/map\.tif"), OutputLock([tmp_path / "gone" / "map.tif"]):
        pytest.fail("there is no folder")


def _compete(out: Path, log: Path, rounds: int) -> None:
    won = 0
    while won < rounds:
        try:
            with OutputLock([out]):
                with log.open("a") as file:
                    file.write(f"in {os.getpid()}\n")
                time.sleep(0.001)
                with log.open("a") as file:
                    file.write(f"out {os.getpid()}\n")
            won += 1
        except BusyError:
            time.sleep(0.001)


def _compete_without_flock(out: Path, log: Path, rounds: int) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    lock_module.flock = refuse
    _compete(out, log, rounds)


@posix
@pytest.mark.parametrize("compete", [_compete, _compete_without_flock])
def test_of_eight_processes_never_two_are_inside(tmp_path: Path, compete: Any) -> None:
    out, log, context = tmp_path / "map.tif", tmp_path / "log", get_context("fork")
    runs = [context.Process(target=compete, args=(out, log, 10)) for _ in range(8)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0] * 8
    lines = log.read_text().splitlines()
    assert len(lines) == 160
    for entered, gone in zip(lines[::2], lines[1::2], strict=True):
        assert (entered.split()[0], gone.split()[0]) == ("in", "out")
        assert entered.split()[1] == gone.split()[1]
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def _hold_and_wait(out: Path, is_held: Any) -> None:
    with OutputLock([out]):
        is_held.set()
        time.sleep(60)


@posix
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    out, context = tmp_path / "map.tif", get_context("fork")
    is_held = context.Event()
    run = context.Process(target=_hold_and_wait, args=(out, is_held))
    run.start()
    assert is_held.wait(30)
    with pytest.raises(BusyError, match=f"process {run.pid} "), OutputLock([out]):
        pytest.fail("the other process lives")
    run.kill()
    run.join(30)
    assert lock_path(out).exists()
    with OutputLock([out]):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("begin", range(1, 17))
def test_an_interrupt_at_any_instruction_leaves_no_lock_file(tmp_path: Path, begin: int) -> None:
    """A signal may come between any two instructions of taking and releasing, but for the first of leaving the block.

    Nor as a function returns: Python looks for signals behind calls and jumps.
    """
    step, is_over = begin, False
    while not is_over:
        is_over = not _interrupted_at(step, [tmp_path / "a.tif", tmp_path / "b.tif"])
        assert os.listdir(tmp_path) == [], f"at instruction {step}"
        step += 16
    assert step > 600


def _interrupted_at(step: int, targets: list[Path]) -> bool:
    """Take and release, interrupted at an instruction; whether there were as many."""
    left = step

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        code = frame.f_code
        if code.co_filename != lock_module.__file__ or code.co_name in ("__exit__", "release"):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and dis.opname[code.co_code[frame.f_lasti]] != "RETURN_VALUE":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return count

    sys.settrace(count)
    try:
        with OutputLock(targets):
            pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return left <= 0
