"""Lists, catalogues and journals that are not as they should be: told, and nothing of anybody's is lost."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geoseg_cli.batch.inputs import SceneUnit, read_list
from geoseg_cli.batch.journal import Journal
from geoseg_cli.batch.naming import Naming
from geoseg_cli.batch.tasks import Failure, SceneTask
from geoseg_cli.errors import UsageError
from tests.batch.conftest import Mask, Run, hashes, scenes_in

NAMING = Naming("cloudmask")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scenes_in(tmp_path / "in", ["a.tif", "b.tif"])
    return tmp_path / "in"


@pytest.mark.parametrize("output", ["sub/../b.tif", "link/b.tif", "b.TIF/../b.tif", "./b.tif"])
def test_no_spelling_of_an_output_replaces_another_scene(folder: Path, output: str) -> None:
    (folder / "sub").mkdir()
    (folder / "b.TIF").mkdir()
    (folder / "link").symlink_to(".")
    units = [SceneUnit(folder / "a.tif", output=folder / output), SceneUnit(folder / "b.tif")]
    with pytest.raises(UsageError, match="would replace the scene"):
        NAMING.tasks(units, True)


def test_a_scene_behind_a_link_is_not_replaced_either(folder: Path) -> None:
    (folder / "c.tif").symlink_to("b.tif")
    units = [SceneUnit(folder / "a.tif", output=folder / "b.tif"), SceneUnit(folder / "c.tif")]
    with pytest.raises(UsageError, match="would replace the scene"):
        NAMING.tasks(units, True)


def test_an_output_that_is_itself_a_link_to_a_scene_is_one_of_its_own(folder: Path) -> None:
    (folder / "c.tif").symlink_to("b.tif")
    units = [SceneUnit(folder / "a.tif", output=folder / "c.tif"), SceneUnit(folder / "b.tif")]
    assert len(NAMING.tasks(units, True)) == 2, "publishing replaces the link, not what it leads to"


@pytest.mark.parametrize(
    ("one", "other"), [("s.tif", "x/../s.tif"), ("s.tif", "s.tiff"), ("s.tif", "s.qml"), ("s.json", "s.tif")]
)
def test_two_maps_share_neither_file_nor_sidecar(folder: Path, one: str, other: str) -> None:
    units = [SceneUnit(folder / f"{name}.tif", output=folder / out) for name, out in (("a", one), ("b", other))]
    with pytest.raises(UsageError, match="would both be written to"):
        NAMING.tasks(units, True)


def test_maps_without_sidecars_may_have_the_same_stem(folder: Path) -> None:
    naming = Naming("cloudmask", sidecars=False)
    outputs = [folder / "s.tif", folder / "s.tiff"]
    units = [SceneUnit(folder / f"{name}.tif", output=out) for name, out in zip("ab", outputs, strict=True)]
    assert [task.output for task in naming.tasks(units, True)] == outputs


def test_a_sidecar_replaces_no_scene_that_is_described_in_json(folder: Path) -> None:
    units = [SceneUnit(folder / "a.tif", output=folder / "item.tif"), SceneUnit(folder / "item.json")]
    with pytest.raises(UsageError, match="would replace the scene"):
        NAMING.tasks(units, True)


@pytest.mark.parametrize(
    "line",
    [
        {"path": "a\0b.tif"},
        {"path": "\ud800.tif"},
        {"path": "a.tif", "output": ""},
        {"path": "a.tif", "output": "."},
        {"path": "a.tif", "output": "x\0.tif"},
        {"path": "a.tif", "output": "\udfff.tif"},
    ],
)
def test_a_line_whose_paths_can_be_no_files_is_named(line: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="line 2"):
        read_list(b"ok.tif\n" + json.dumps(line).encode())


def test_a_list_may_begin_with_a_byte_order_mark_and_utf_16_is_refused() -> None:
    assert [unit.path for unit in read_list(b"\xef\xbb\xbfa.tif\r\nb.tif\r\n")] == [Path("a.tif"), Path("b.tif")]
    for coding in ("utf-16-le", "utf-16-be"):
        with pytest.raises(UsageError, match="UTF-16"):
            read_list("\ufeffa.tif\n".encode(coding))


def test_a_closed_standard_input_is_an_empty_list(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    done = run("cloudmask", "-", "--model", model)
    assert (done.code, "is empty" in done.err) == (66, True)


def test_a_scene_whose_name_is_no_utf_8_is_refused_by_name_and_the_others_are_done(mask: Mask, folder: Path) -> None:
    os.rename(folder / "b.tif", os.fsencode(folder) + b"/\xff.tif")
    assert mask(folder, code=1) == {"a.tif": "done", "\udcff.tif": "failed"}


def test_the_trouble_with_such_a_name_is_the_name_not_the_pixels(run: Run, model: Path, folder: Path) -> None:
    odd = os.fsdecode(os.fsencode(folder) + b"/\xff.tif")
    os.rename(folder / "b.tif", odd)
    done = run("cloudmask", odd, "--model", model)
    assert done.code == 65
    assert "not UTF-8" in done.err
    assert "rename it" in done.err


def test_names_that_the_system_does_not_take_fail_alone(
    run: Run, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = b"\n".join([b"a" * 300 + b".tif", b"a/" * 4000 + b"x.tif", os.fsencode(folder / "a.tif")])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(listed)))
    done = run("cloudmask", "-", "--out-dir", folder, "--model", model, "--json", "-q")
    lines = [json.loads(line) for line in done.out.splitlines()]
    codes = [line["error"]["exit_code"] if "error" in line else 0 for line in lines]
    assert done.code == 1
    assert sorted(codes) == [0, 74, 74]


def test_a_folder_for_the_maps_that_is_not_there_is_told_once_before_any_scene(
    run: Run, model: Path, folder: Path
) -> None:
    for missing in (folder / "none", folder / "a.tif"):
        done = run("cloudmask", folder, "--out-dir", missing, "--model", model)
        assert done.code == 73
        assert done.err.count(f"mkdir -p {missing}") == 1
        assert "scenes:" not in done.err


def test_a_scene_that_needs_more_memory_than_there_is_is_no_bug() -> None:
    failure = Failure.of(MemoryError(), Path("a.tif"))
    assert failure.exit_code == 69
    assert "--tile" in failure.hint


ITEM: dict[str, Any] = {"id": "x", "assets": {"B02": {"href": "a.tif"}}}


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "FeatureCollection", "features": null}',
        '{"type": "FeatureCollection", "features": 5}',
        *(
            json.dumps({"type": "FeatureCollection", "features": [ITEM | odd]})
            for odd in (
                {"assets": []},
                {"assets": None},
                {"assets": {"a": 5}},
                {"links": ["x"]},
                {"links": 5},
                {"links": {"rel": "self"}},
                {"links": [{"rel": "self", "href": "http://[x"}]},
                {"links": [{"rel": "self", "href": "http://x/y.json"}], "assets": {"a": {"href": "http://[1"}}},
                {"id": "a\0b"},
                {"id": "\ud800"},
            )
        ),
    ],
)
def test_a_catalogue_of_odd_items_is_refused_by_name(run: Run, model: Path, tmp_path: Path, text: str) -> None:
    catalogue = tmp_path / "catalogue.json"
    catalogue.write_text(text)
    done = run("cloudmask", catalogue, "--model", model)
    assert done.code == 65, done.err
    assert str(catalogue) in done.err


LINE = '{"v": 1, "time": %s, "event": "%s", "scene": "s", "output": "%s", "process": %s, "files": %s}\n'


@pytest.mark.parametrize(
    "line",
    [
        LINE % ("5", "started", "a_cloudmask.tif", "1e999", "{}"),
        LINE % ("5", "done", "a_cloudmask.tif", "1", '{"x": {"sha256": "q", "size": Infinity}}'),
        LINE % ("Infinity", "failed", "a_cloudmask.tif", "1", "{}"),
        LINE % ("NaN", "failed", "a_cloudmask.tif", "1", "{}"),
        LINE % ("5", "started", "a_cloudmask.tif", "9" * 30, "{}"),
        LINE % ("5", "started", "a_cloudmask.tif", "-1", "{}"),
        '{"v": 1, "time": ' + "9" * 6000 + "}\n",
    ],
)
def test_a_journal_line_that_no_run_wrote_counts_for_nothing(
    run: Run, mask: Mask, folder: Path, tmp_path: Path, line: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    mask(folder, "--out-dir", out)
    before = hashes(out)
    (out / ".geoseg" / "journal-zz.jsonl").write_text(line)
    assert set(mask(folder, "--out-dir", out).values()) == {"unchanged"}
    assert hashes(out) == before
    assert run("batch", "status", out).code == 0


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing"])
def test_what_is_called_like_a_journal_and_is_no_file_is_not_read(mask: Mask, folder: Path, kind: str) -> None:
    home = folder / ".geoseg"
    home.mkdir()
    odd = home / "journal-zz.jsonl"
    {"folder": odd.mkdir, "pipe": lambda: os.mkfifo(odd), "link to nothing": lambda: odd.symlink_to("nothing")}[kind]()
    assert set(mask(folder).values()) == {"done"}


def test_what_was_written_last_counts_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = SceneTask(tmp_path / "a.tif", tmp_path / "a_cloudmask.tif", tmp_path)
    for now, key in ((2e9, "old"), (1e9, "new")):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        journal = Journal(tmp_path)
        journal.write(task, "done", key=key)
        journal.close()
    history = Journal(tmp_path).of(task.place)
    assert history is not None
    assert history.last.key == "new"
