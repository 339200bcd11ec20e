"""A short campaign, what once ended badly, and proof that the campaign sees crashes, hangs and wrong answers."""

from __future__ import annotations

import os
import shutil
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from geoseg_cli.scenes.raster_file import RasterFile
from tests.fuzz import worker
from tests.fuzz.campaign import Campaign, table_of
from tests.fuzz.kinds import KINDS, Kind

FOUND = Path(__file__).parent / "found"
BY_NAME = {kind.name: kind for kind in KINDS}


def test_damaged_files_are_refused_by_name_or_read_as_others_read_them() -> None:
    results = Campaign(seed=7, jobs=1).run(range(240))
    bad = [result for result in results if result.outcome in worker.BAD]
    assert not bad, f"{table_of(results)}\n{bad}"
    assert len(results) == 240
    assert {result.kind for result in results if result.outcome == "equal"} >= {"tiff", "jp2", "onnx"}
    assert {result.kind for result in results if result.outcome == "refused"} == set(BY_NAME)


def serve_found(pipe: Connection, folder: Path, seed: int, cases: list[int]) -> None:
    """What a process of a campaign runs; case N is the Nth file that was found."""
    worker.limit_process()
    for case in cases:
        pipe.send((case, "begun", ""))
        signal.alarm(worker.ALARM_S)
        path = sorted(one for one in FOUND.iterdir() if one.suffix != ".md")[case]
        pipe.send((case, *worker.judge(*place(path, folder / str(case)))))
        signal.alarm(0)


def place(path: Path, folder: Path) -> tuple[Kind, Path]:
    """Put a file that was found where its kind belongs."""
    kind = BY_NAME[path.name.split("_")[0]]
    folder.mkdir()
    (good, *_) = kind.make(folder)
    return kind, Path(shutil.copyfile(path, good))


def test_what_once_ended_badly_does_so_no_more() -> None:
    count = len([one for one in FOUND.iterdir() if one.suffix != ".md"])
    assert count >= 3
    results = Campaign(seed=0, jobs=1, target=serve_found).run(range(count))
    assert [result.outcome in ("equal", "refused") for result in results] == [True] * count, results


def test_bytes_that_are_no_text_are_no_line_of_their_own_in_front_of_the_message() -> None:
    """GDAL quotes bytes of these two files in its messages; rasterio's logger fails to decode them."""
    results = Campaign(seed=0, jobs=1).run([6784, 9856])
    assert [(result.kind, result.outcome, result.detail) for result in results] == [("tiff", "refused", "")] * 2


def serve_badly(pipe: Connection, folder: Path, seed: int, cases: list[int]) -> None:
    """Crashes at case 1 and hangs at case 2."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for case in cases:
        pipe.send((case, "begun", ""))
        if case == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if case == 2:
            signal.alarm(1)
            time.sleep(60)
        pipe.send((case, "equal", ""))


def test_a_campaign_sees_crashes_and_hangs_and_goes_on() -> None:
    results = Campaign(seed=0, jobs=1, target=serve_badly).run(range(4))
    assert [result.outcome for result in results] == ["equal", "crash", "hang", "equal"]


def test_a_wrong_number_and_an_unnamed_error_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = BY_NAME["tiff"]
    path = kind.make(tmp_path)[0]
    assert worker.judge(kind, path) == ("equal", "")
    read = RasterFile.read

    def off_by_one(self: RasterFile, *given: object, **named: object) -> object:
        pixels, valid = read(self, *given, **named)  # type: ignore[arg-type]
        pixels[0, 3, 3] += 1
        return pixels, valid

    monkeypatch.setattr(RasterFile, "read", off_by_one)
    assert worker.judge(kind, path)[0] == "wrong"

    def fail(*given: object, **named: object) -> np.ndarray:
        raise KeyError("x")

    monkeypatch.setattr(RasterFile, "read", fail)
    assert worker.judge(kind, path)[0] == "traceback"
