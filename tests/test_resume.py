"""A run that is killed, and the one that goes on where it was: the same bytes, and hardly anything computed twice."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg_cli.catalog import Legend, legends
from geoseg_cli.engines.fake_engine import FakeEngine
from geoseg_cli.job import PredictOptions
from geoseg_cli.predict import CloudModel, PredictReport, predict_scene
from geoseg_cli.results import maps as maps_module
from geoseg_cli.results.clean_map import Cleaning
from tests.fakes.bundles import fake_bundle
from tests.test_predict import random_scene

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
WRITTEN = datetime(2026, 1, 2, tzinfo=UTC)
HEIGHT, WIDTH = 250, 180


class Killed(BaseException):
    """Stands for SIGKILL where the test wants to look at the process afterwards: no block may clean up behind it."""


def engine(classes: int = 4, act: Callable[[int], None] = lambda tile: None) -> FakeEngine:
    """Answers that depend on a pixel's surroundings and its place in the tile, as those of a network do."""

    def answer(pixels: np.ndarray) -> np.ndarray:
        act(len(made.batches))
        values = pixels[:, 0]
        mean = (values + np.roll(values, 3, axis=1) + np.roll(values, -2, axis=2)) / 3
        place = np.linspace(0, 1, values.shape[1], dtype=np.float32)[:, None]
        steps = np.arange(classes, dtype=np.float32)[:, None, None]
        logits: np.ndarray = np.sin(mean[:, None] * (1 + steps) + place * steps).astype(np.float32)
        return logits

    made = FakeEngine(classes, answer)
    return made


def options(folder: Path, **more: Any) -> PredictOptions:
    return PredictOptions(
        **{"tile_px": 64, "batch": 1, "overlap_px": 16, "written_at": WRITTEN, "overwrite": True} | more
    )


def run(
    folder: Path, act: Callable[[int], None] = lambda tile: None, clouds: bool = False, **more: Any
) -> tuple[PredictReport, int]:
    """One run; the report, and how many tiles went through its engine."""
    made = engine(act=act)
    model = CloudModel(fake_bundle(tile_px=96, overlap_px=24), engine(), "nodata") if clouds else None
    bundle = fake_bundle(legend=ground(), task="land-cover") if clouds else fake_bundle()
    report = predict_scene(
        folder / "scene.tif", folder / "out" / "map.tif", bundle, made, options(folder, **more), clouds=model
    )
    return report, sum(made.batches)


def ground() -> Legend:
    legend = legends()["esa-worldcover"]
    return replace(legend, classes=legend.classes[:4])


def outputs(folder: Path) -> dict[str, str]:
    """Hash of every file in the output folder, hidden ones too."""
    found = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    return {str(path.relative_to(folder / "out")): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def prepare(folder: Path, **profile: Any) -> Path:
    (folder / "out").mkdir(parents=True)
    random_scene(folder / "scene.tif", HEIGHT, WIDTH, **profile)
    return folder


def in_child(body: Callable[[], object]) -> int:
    """Exit code of a forked process; a negative one is a signal."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tiles_across(report: PredictReport) -> int:
    return int(report.decisions["tiles"]) // 5  # 250 rows in tiles of 64 that share 16 are five rows of tiles


def killed_at_tile(folder: Path, tile: int, **more: Any) -> int:
    return in_child(lambda: run(folder, lambda now: die() if now == tile else None, **more))


@posix
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"probabilities": "probabilities.tif", "confidence": "confidence.tif", "entropy": "entropy.tif"},
        {"bounds": (500_100.0, 4_897_800.0, 501_200.0, 4_899_500.0), "crop": True},
        {"clouds": True},
        pytest.param({"gsd": 15.0}, marks=pytest.mark.slow),
        {"gsd": 6.0},
        {"cleaning": Cleaning(sieve_px=3, dilate_px=1)},
        pytest.param({"cloud_threshold": 0.4, "confidence": "confidence.tif"}, marks=pytest.mark.slow),
        pytest.param({"tta": "flip"}, marks=pytest.mark.slow),
        pytest.param({"blend": "trim"}, marks=pytest.mark.slow),
        pytest.param({"format": "gtiff"}, marks=pytest.mark.slow),
    ],
    ids=lambda more: "-".join(more) or "plain",
)
def test_killed_at_any_row_of_tiles_the_next_run_gives_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    prepare(tmp_path)
    for name in ("probabilities", "confidence", "entropy"):
        if name in more:
            more = more | {name: tmp_path / "out" / more[name]}
    whole, all_tiles = run(tmp_path, **more)
    wanted = outputs(tmp_path)
    resumed = 0
    for tile in range(all_tiles // 10, all_tiles, max(1, all_tiles // 5)):
        for path in (tmp_path / "out").iterdir():
            path.unlink()
        assert killed_at_tile(tmp_path, tile, **more) == -signal.SIGKILL
        again, tiles = run(tmp_path, **more)
        assert outputs(tmp_path) == wanted, f"killed at tile {tile}"
        assert again.areas == whole.areas
        assert again.hidden_pixels == whole.hidden_pixels
        resumed += again.continued_at > 0
        assert tiles < all_tiles or again.continued_at < 64
    assert resumed >= 2


@posix
@pytest.mark.parametrize(
    "transform",
    [Affine(10, 0, 499_980, 0, 10, 4_800_000), Affine(0, 10, 499_980, -10, 0, 4_900_020)],
    ids=["south-up", "east-up"],
)
def test_turned_scenes_go_on_as_well(tmp_path: Path, transform: Affine) -> None:
    prepare(tmp_path, transform=transform)
    _, all_tiles = run(tmp_path)
    wanted = outputs(tmp_path)
    assert killed_at_tile(tmp_path, all_tiles - 2) == -signal.SIGKILL
    again, _ = run(tmp_path)
    assert again.continued_at > 0
    assert outputs(tmp_path) == wanted


@posix
def test_at_most_one_finished_row_of_tiles_is_computed_again(tmp_path: Path) -> None:
    """The one above the row that was under way, whose own tiles come again as well: both answer the same pixels."""
    prepare(tmp_path)
    whole, all_tiles = run(tmp_path)
    across = tiles_across(whole)
    assert across * 5 == all_tiles == 20

    def die_behind_the_last_whole_row(doomed: int, now: int) -> None:
        if now != doomed:
            return
        until = time.monotonic() + 10
        while time.monotonic() < until:  # until what was answered is blended
            lines = [path.read_bytes().count(b"\n") for path in (tmp_path / "out").rglob("checkpoint")]
            if lines == [1 + doomed // across]:
                break
            time.sleep(0.002)
        die()

    for tile in range(all_tiles):
        act = functools.partial(die_behind_the_last_whole_row, tile)
        assert in_child(functools.partial(run, tmp_path, act)) == -signal.SIGKILL
        again, tiles = run(tmp_path)
        under_way = tile % across
        assert tile + tiles == all_tiles + (across if tile >= across else 0) + under_way, f"killed at tile {tile}"
        assert (again.continued_at > 0) == (tile >= across)


@posix
@pytest.mark.parametrize("doomed", ["write_cog", "write_sidecars", "commit"])
def test_killed_when_all_tiles_are_done_no_tile_is_computed_again(
    tmp_path: Path, doomed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    _, _ = run(tmp_path)
    wanted = outputs(tmp_path)

    def body() -> None:
        if doomed == "write_cog":
            monkeypatch.setitem(maps_module.WRITERS, "cog", lambda *arguments: die())
        elif doomed == "write_sidecars":
            monkeypatch.setattr("geoseg_cli.predict.write_sidecars", lambda *arguments: die())
        else:
            monkeypatch.setattr("geoseg_cli.results.commit._sync_folder", lambda folder: die())
        run(tmp_path)

    assert in_child(body) == -signal.SIGKILL
    again, tiles = run(tmp_path)
    assert (tiles, again.continued_at) == (0, HEIGHT)
    assert outputs(tmp_path) == wanted


@contextmanager
def killed_work(folder: Path, **more: Any) -> Iterator[Path]:
    """The work folder of a run that was killed in its last row of tiles."""
    assert killed_at_tile(folder, 18, **more) == -signal.SIGKILL
    (work,) = (path for path in (folder / "out").iterdir() if ".part-" in path.name)
    yield work


def change_input(folder: Path, work: Path) -> None:
    random_scene(folder / "scene.tif", HEIGHT, WIDTH, seed=1)


def tamper_with_first_row(folder: Path, work: Path) -> None:
    flip(work / "scratch" / "labels.tif", maps_first_byte(work))


def tear_work_raster(folder: Path, work: Path) -> None:
    path = work / "scratch" / "labels.tif"
    os.truncate(path, path.stat().st_size // 2)


def lose_work_raster(folder: Path, work: Path) -> None:
    (work / "scratch" / "labels.tif").unlink()


def empty_checkpoint(folder: Path, work: Path) -> None:
    (work / "checkpoint").write_bytes(b"")


def damage_key(folder: Path, work: Path) -> None:
    flip(work / "checkpoint", 30)


def maps_first_byte(work: Path) -> int:
    with rasterio.open(work / "scratch" / "labels.tif") as file:
        return int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1)) + 5


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@posix
@pytest.mark.parametrize(
    "act",
    [change_input, tamper_with_first_row, tear_work_raster, lose_work_raster, empty_checkpoint, damage_key],
    ids=lambda act: act.__name__,
)
def test_work_that_is_not_the_same_or_not_whole_is_not_gone_on_with(tmp_path: Path, act: Any) -> None:
    prepare(tmp_path)
    with killed_work(tmp_path) as work:
        act(tmp_path, work)
    again, tiles = run(tmp_path)
    found = outputs(tmp_path)
    assert again.continued_at == 0
    _, all_tiles = run(tmp_path)
    assert (found, tiles) == (outputs(tmp_path), all_tiles)


@posix
@pytest.mark.parametrize(
    "more", [{"overlap_px": 8}, {"blend": "linear"}, {"tta": "flip"}, {"resume": False}, {"cloud_threshold": 0.3}]
)
def test_other_options_begin_anew_and_leave_nothing_of_the_old_work(tmp_path: Path, more: dict[str, Any]) -> None:
    prepare(tmp_path)
    with killed_work(tmp_path) as work:
        pass
    again, _ = run(tmp_path, **more)
    assert again.continued_at == 0
    assert not work.exists()
    assert sorted(outputs(tmp_path)) == ["map.json", "map.qml", "map.tif", "map.tif.aux.xml"]


@posix
def test_another_model_begins_anew(tmp_path: Path) -> None:
    prepare(tmp_path)
    with killed_work(tmp_path):
        pass
    bundle = fake_bundle(gsd_m=10.5)
    report = predict_scene(tmp_path / "scene.tif", tmp_path / "out" / "map.tif", bundle, engine(), options(tmp_path))
    assert report.continued_at == 0


@posix
@pytest.mark.parametrize("cut", [1, 40])
def test_a_torn_last_line_of_the_checkpoint_costs_a_row_of_tiles_and_no_more(tmp_path: Path, cut: int) -> None:
    prepare(tmp_path)
    _, _ = run(tmp_path)
    wanted = outputs(tmp_path)
    with killed_work(tmp_path) as work:
        os.truncate(work / "checkpoint", (work / "checkpoint").stat().st_size - cut)
    again, _ = run(tmp_path)
    assert 0 < again.continued_at < HEIGHT
    assert outputs(tmp_path) == wanted


@posix
def test_pixels_that_the_disk_lost_cost_their_rows_and_no_more(tmp_path: Path) -> None:
    """As after a loss of power: the checkpoint reached the disk, its last pixels did not."""
    prepare(tmp_path)
    _, _ = run(tmp_path)
    wanted = outputs(tmp_path)
    with killed_work(tmp_path) as work:
        flip(work / "scratch" / "labels.tif", maps_first_byte(work) + 180 * 512)
    again, _ = run(tmp_path)
    assert 0 < again.continued_at <= 180
    assert outputs(tmp_path) == wanted


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_keeps_its_work_for_the_next_one(tmp_path: Path, kind: type[BaseException]) -> None:
    prepare(tmp_path)
    _, all_tiles = run(tmp_path)
    wanted = outputs(tmp_path)

    def stop(tile: int) -> None:
        if tile == all_tiles - 2:
            raise kind

    with pytest.raises(kind):
        run(tmp_path, stop)
    again, tiles = run(tmp_path)
    assert again.continued_at > 0
    assert tiles < all_tiles
    assert outputs(tmp_path) == wanted


def test_a_failed_run_and_an_interrupted_one_without_resume_leave_nothing(tmp_path: Path) -> None:
    prepare(tmp_path)

    def fail(kind: type[BaseException]) -> Callable[[int], None]:
        def act(tile: int) -> None:
            if tile == 15:
                raise kind

        return act

    with pytest.raises(ValueError):
        run(tmp_path, fail(ValueError))
    assert outputs(tmp_path) == {}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, fail(KeyboardInterrupt), resume=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_run_that_met_non_finite_numbers_begins_anew(tmp_path: Path) -> None:
    prepare(tmp_path)

    def body(tile: int) -> None:
        if tile == 18:
            raise KeyboardInterrupt

    broken = engine(act=body)
    plain = broken.function

    def function(pixels: np.ndarray) -> np.ndarray:
        logits = plain(pixels)
        if not broken.batches:
            logits[:, :, 5, 5] = np.nan
        return logits

    broken.function = function
    with pytest.raises(KeyboardInterrupt):
        predict_scene(tmp_path / "scene.tif", tmp_path / "out" / "map.tif", fake_bundle(), broken, options(tmp_path))
    again, _ = run(tmp_path)
    assert again.continued_at == 0


def test_a_single_row_of_tiles_keeps_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    random_scene(tmp_path / "scene.tif", 60, 400)
    seen: list[str] = []
    run(tmp_path, lambda tile: seen.extend(path.name for path in (tmp_path / "out").rglob("checkpoint")))
    assert seen == []


@settings(max_examples=8, deadline=None)
@given(
    st.integers(100, 300),
    st.sampled_from([32, 64]),
    st.integers(0, 16),
    st.sampled_from(["hann", "linear", "trim"]),
    st.floats(0.1, 0.99),
)
def test_interrupted_anywhere_any_plan_gives_the_same_bytes(
    height: int, tile: int, overlap: int, blend: Any, moment: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "out").mkdir()
        random_scene(folder / "scene.tif", height, 90)
        more = {"tile_px": tile, "overlap_px": overlap, "blend": blend}
        _, all_tiles = run(folder, **more)
        wanted = outputs(folder)

        def stop(now: int) -> None:
            if now == int(moment * all_tiles):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(folder, stop, **more)
        run(folder, **more)
        assert outputs(folder) == wanted


def _slow_run(folder: Path) -> None:
    run(folder, lambda tile: time.sleep(0.01))


def kills(folder: Path, count: int, seed: int) -> int:
    """Kill runs at random moments, each followed by a rerun; how many of them went on."""
    prepare(folder)
    run(folder)
    wanted, chance, went_on = outputs(folder), random.Random(seed), 0
    context = get_context("fork")
    for _ in range(count):
        process = context.Process(target=_slow_run, args=(folder,))
        process.start()
        process.join(chance.uniform(0.02, 0.5))
        process.kill()
        process.join(30)
        again, _ = run(folder)
        went_on += again.continued_at > 0
        assert outputs(folder) == wanted
        assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(wanted)
    return went_on


@posix
def test_five_kills_at_random_moments(tmp_path: Path) -> None:
    kills(tmp_path, 5, seed=0)


@posix
@pytest.mark.slow
def test_fifty_kills_at_random_moments(tmp_path: Path) -> None:
    went_on = kills(tmp_path, 50, seed=1)
    print(f"50 kills survived, {went_on} reruns went on with the work of the run before")
    assert went_on > 5
