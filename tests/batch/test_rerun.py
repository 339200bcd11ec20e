"""The same command again: what is missing, changed or failed is done, and nothing twice."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geoseg_cli.results.lock import lock_path
from geoseg_cli.results.workfolder import WorkFolder
from tests.batch.conftest import Mask, Run, hashes, journal_lines, lines_of, scenes_in
from tests.batch.processes import begin, made, map_of, statuses, wait_for
from tests.test_predict import random_scene, read

NAMES = ["a.tif", "b.tif", "deep/c.tif"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scenes_in(tmp_path / "in", NAMES)
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_of_forty_scenes_two_are_bad_and_named_and_the_others_are_right(run: Run, model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    labels = scenes_in(source, [f"{number % 3}/s{number:02}.tif" for number in range(38)])
    (source / "0" / "text.tif").write_text("no scene")
    whole = (source / "1" / "s01.tif").read_bytes()
    (source / "1" / "torn.tif").write_bytes(whole[: len(whole) // 2])
    out.mkdir()
    done = run("cloudmask", source, "--out-dir", out, "--model", model, "--json")
    reports = {Path(line["scene"]).name: line for line in lines_of(done)}
    assert (done.code, len(reports)) == (1, 40)
    failed = {name: report["error"] for name, report in reports.items() if report["status"] == "failed"}
    assert {name: error["exit_code"] for name, error in failed.items()} == {"text.tif": 65, "torn.tif": 74}
    assert all(error["hint"] for error in failed.values())
    assert "40 scenes: 38 done, 0 unchanged, 2 failed" in done.err
    for name, expected in labels.items():
        made = out / name.replace(".tif", "_cloudmask.tif")
        np.testing.assert_array_equal(read(made)[0], expected)


def test_a_second_run_does_nothing_and_tells_every_map(run: Run, model: Path, folder: Path, out: Path) -> None:
    arguments = ("cloudmask", folder, "--out-dir", out, "--model", model)
    first = run(*arguments)
    before, journal = hashes(out), journal_lines(out)
    again = run(*arguments)
    assert (again.code, sorted(again.out.split())) == (0, sorted(first.out.split()))
    assert "3 scenes: 0 done, 3 unchanged, 0 failed" in again.err
    assert "engine" not in again.err, "the model was loaded for nothing"
    assert (hashes(out), journal_lines(out)) == (before, journal)


def test_only_what_changed_or_is_gone_is_done_again(mask: Mask, folder: Path, out: Path) -> None:
    mask(folder, "--out-dir", out)
    before = hashes(out)
    expected = random_scene(folder / "a.tif", 40, 40, 99)
    (out / "b_cloudmask.tif").unlink()
    found = mask(folder, "--out-dir", out)
    assert found == {"a.tif": "done", "b.tif": "done", "c.tif": "unchanged"}
    np.testing.assert_array_equal(read(out / "a_cloudmask.tif")[0], expected)
    assert hashes(out)["deep/c_cloudmask.tif"] == before["deep/c_cloudmask.tif"]


def test_other_options_or_another_model_give_other_maps_and_are_no_reason_to_ask(
    mask: Mask, run: Run, model: Path, folder: Path, out: Path
) -> None:
    assert set(mask(folder, "--out-dir", out).values()) == {"done"}
    assert set(mask(folder, "--out-dir", out, "--dilate", "1").values()) == {"done"}
    assert set(mask(folder, "--out-dir", out, "--dilate", "1", "--batch", "3").values()) == {"unchanged"}
    card = json.loads((model / "item.json").read_text())
    card["properties"]["mlm:total_parameters"] = 7
    (model / "item.json").write_text(json.dumps(card))
    assert set(mask(folder, "--out-dir", out, "--dilate", "1").values()) == {"done"}


def test_a_map_that_somebody_changed_is_not_touched_without_leave(
    run: Run, mask: Mask, model: Path, folder: Path, out: Path
) -> None:
    mask(folder, "--out-dir", out)
    changed = out / "a_cloudmask.tif"
    status = changed.stat()
    data = bytearray(changed.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))  # size and time tell nothing
    done = run("cloudmask", folder, "--out-dir", out, "--model", model)
    assert done.code == 1
    assert "--overwrite" in done.err
    assert changed.read_bytes() == data
    assert mask(folder, "--out-dir", out, "--overwrite")["a.tif"] == "done"
    assert changed.read_bytes() != data


def test_a_file_that_no_run_made_is_not_touched_and_the_others_are_done(mask: Mask, folder: Path, out: Path) -> None:
    (out / "a_cloudmask.tif").write_text("mine")
    found = mask(folder, "--out-dir", out, code=1)
    assert found == {"a.tif": "failed", "b.tif": "done", "c.tif": "done"}
    assert (out / "a_cloudmask.tif").read_text() == "mine"


def test_a_torn_journal_costs_at_most_the_scenes_of_its_torn_lines(mask: Mask, folder: Path, out: Path) -> None:
    mask(folder, "--out-dir", out)
    (journal,) = (out / ".geoseg").glob("journal-*.jsonl")
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-1])  # the last line feed: what it ends may be cut
    assert set(mask(folder, "--out-dir", out).values()) == {"unchanged"}, "its hashes were told before"
    for later in set((out / ".geoseg").glob("journal-*.jsonl")) - {journal}:
        later.unlink()  # the second run told once more what the torn line had said
    first = whole.index(b'"publishing"')
    journal.write_bytes(whole[: first + 20])
    found = mask(folder, "--out-dir", out, code=1)
    assert set(found.values()) == {"failed"}, "nothing proves that the maps are ours"
    assert set(mask(folder, "--out-dir", out, "--skip-existing").values()) == {"unchanged"}


def test_a_run_that_ended_between_publishing_and_telling_is_known_by_its_hashes(
    mask: Mask, folder: Path, out: Path
) -> None:
    mask(folder, "--out-dir", out)
    (journal,) = (out / ".geoseg").glob("journal-*.jsonl")
    kept = [line for line in journal.read_text().splitlines(keepends=True) if json.loads(line)["event"] != "done"]
    journal.write_text("".join(kept))
    assert set(mask(folder, "--out-dir", out).values()) == {"unchanged"}
    (out / "a_cloudmask.json").unlink()  # as where the run ended before its last rename
    assert mask(folder, "--out-dir", out) == {"a.tif": "done", "b.tif": "unchanged", "c.tif": "unchanged"}


def test_what_a_run_left_that_was_killed_behind_its_last_rename_goes_though_the_map_is_unchanged(
    mask: Mask, folder: Path, out: Path
) -> None:
    mask(folder, "--out-dir", out)
    names = {path.name for path in out.iterdir()}
    with subprocess.Popen([sys.executable, "-c", ""]) as process:  # its number is nobody's afterwards
        pass
    part = WorkFolder.beside(out / "a_cloudmask.tif").path.name.replace(f"-{os.getpid()}-", f"-{process.pid}-")
    (out / part / "aside").mkdir(parents=True)
    (out / part / "aside" / "0").write_text("an old map")
    for name in ("a_cloudmask.tif", "b_cloudmask.json"):
        lock_path(out / name).write_text(json.dumps({"pid": process.pid, "host": platform.node()}))
    assert set(mask(folder, "--out-dir", out).values()) == {"unchanged"}
    assert {path.name for path in out.iterdir()} == names


@pytest.mark.parametrize("what", ["scene", "model", "damage"])
def test_skip_existing_keeps_only_what_proves_to_be_the_same(
    run: Run, mask: Mask, model: Path, folder: Path, out: Path, what: str
) -> None:
    mask(folder, "--out-dir", out)
    shutil.rmtree(out / ".geoseg")
    target = out / "a_cloudmask.tif"
    if what == "scene":
        random_scene(folder / "a.tif", 77, 31, 5)
    elif what == "model":
        card = json.loads((model / "item.json").read_text())
        for asset in card["assets"].values():
            asset["file:checksum"] = "1220" + "cd" * 32
        (model / "item.json").write_text(json.dumps(card))
    else:
        target.write_bytes(target.read_bytes()[:-40])
    done = run("cloudmask", folder, "--out-dir", out, "--model", model, "--skip-existing", "--json")
    found = {Path(line["scene"]).name: line["status"] for line in lines_of(done)}
    others = "failed" if what == "model" else "unchanged"
    assert (done.code, found) == (1, {"a.tif": "failed", "b.tif": others, "c.tif": others})


def test_the_order_of_the_scenes_changes_no_map(mask: Mask, folder: Path, tmp_path: Path, out: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    mask(folder, "--out-dir", out)
    other = tmp_path / "other"
    other.mkdir()
    for name in reversed(NAMES):
        (other / name).parent.mkdir(exist_ok=True)
        mask(folder / name, "--out-dir", (other / name).parent)
    assert hashes(other) == hashes(out)


def test_the_journal_holds_no_password_of_an_address(mask: Mask, out: Path) -> None:
    address = "https://user:secret@example.invalid/a.tif?token=secret"
    mask(address, "https://example.invalid/b.tif", "--out-dir", out, code=1)
    (journal,) = (out / ".geoseg").glob("journal-*.jsonl")
    assert "secret" not in journal.read_text()
    assert {line["event"] for line in journal_lines(out)} <= {"started", "failed"}


def test_status_tells_what_became_of_every_scene(run: Run, mask: Mask, folder: Path, out: Path) -> None:
    (folder / "bad.tif").write_text("no scene")
    mask(folder, "--out-dir", out, code=1)
    (out / "a_cloudmask.tif").unlink()
    done = run("batch", "status", out, "--json")
    states = {Path(line["output"]).name.split("_")[0]: line["state"] for line in lines_of(done)}
    assert (done.code, states) == (1, {"a": "missing", "b": "done", "bad": "failed", "c": "done"})
    told = run("batch", "status", out)
    assert "bad.tif" in told.out
    assert "code 65" in told.out
    assert run("batch", "status", out.parent).out.count("\n") == told.out.count("\n"), "journals further in count"
    assert run("batch", "status", folder).code == 66, "there is none"


def test_what_a_run_left_that_was_killed_behind_its_last_rename_is_removed(tmp_path: Path, model: Path) -> None:
    expected = scenes_in(tmp_path / "in", ["torn.tif"])["torn.tif"]
    killed = begin(tmp_path)
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert list((tmp_path / "out").glob(".*.lock")), "it was killed too early or too late"
    assert statuses(begin(tmp_path))["torn"]["status"] == "unchanged"
    assert not [path for path in (tmp_path / "out").glob(".*") if path.name != ".geoseg"]
    assert journal_lines(tmp_path / "out")[-1]["event"] == "done"
    assert made(tmp_path, "begun")["torn"] == 1
    np.testing.assert_array_equal(read(map_of(tmp_path, "torn"))[0], expected)


def test_status_calls_running_what_somebody_holds_and_interrupted_what_nobody_does(
    run: Run, tmp_path: Path, model: Path
) -> None:
    scenes_in(tmp_path / "in", ["a.tif", "b.tif"])
    process = begin(tmp_path, GEOSEG_TEST_PAUSE="20")
    wait_for(lambda: [line for line in all_lines(tmp_path / "out") if line["event"] == "started"])

    def states() -> set[str]:
        return {line["state"] for line in lines_of(run("batch", "status", tmp_path / "out", "--json"))}

    assert states() == {"running"}
    process.kill()
    process.communicate()
    assert states() == {"interrupted"}


def all_lines(home: Path) -> list[dict[str, object]]:
    """Lines of a journal that is being written."""
    return journal_lines(home) if (home / ".geoseg").is_dir() else []
