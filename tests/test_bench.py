"""What is measured is what runs, figures follow from it, and agreement is counted as numpy counts it."""

from __future__ import annotations

import os
import signal
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from geoseg_cli.bench import measure, synthetic
from geoseg_cli.bench.agreement import Agreement, Seams, compare_maps
from geoseg_cli.bench.apart import run_apart
from geoseg_cli.bench.figures import Round, make_row
from geoseg_cli.bench.measure import Case, ForwardFigures, ReadFigures, RunFigures, peak_rss_bytes
from geoseg_cli.bench.overlap import OverlapReport, OverlapRow, SweepOptions, find_seams, sweep_overlaps
from geoseg_cli.bench.run import BenchOptions, Configuration, bench_scene, engines_that_run
from geoseg_cli.bundle import Bundle, find_bundle
from geoseg_cli.catalog import legends
from geoseg_cli.engines import Engine, EngineOptions, EngineStatus, choose_engine
from geoseg_cli.engines.fake_engine import ConstantEngine, FakeEngine
from geoseg_cli.errors import EngineError, GeosegError, UsageError
from geoseg_cli.grid import Window
from geoseg_cli.job import PredictOptions, open_job
from geoseg_cli.predict import predict_scene
from tests.conftest import MakeScene, write_scene
from tests.engines.pixelwise import CHANNELS, CLASSES, write_pixelwise_bundle
from tests.fakes.calls import call_here, divide, end_by, refuse

CLOUDS = legends()["cloudsen12"]
SEEDS = st.integers(0, 2**32 - 1)
ONNX = EngineOptions("onnx", "cpu")


def noise_scene(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """Two bands of smooth reflectance with noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    pixels = 2000 + 900 * np.sin(y / 9) * np.cos(x / 7) + random.normal(0, 300, (2, height, width))
    return write_scene(path, pixels.astype(np.uint16), bands=("red", "nir"), tags=((1e-4, 0.0),) * 2)


def write_map(path: Path, labels: np.ndarray) -> Path:
    return write_scene(path, labels[None], nodata=255)


def wide_bundle(folder: Path, reach_px: int = 6) -> Bundle:
    """A bundle whose answer depends on the pixels up to ``reach_px`` away and on nothing else."""
    side = 2 * reach_px + 1
    weight = np.random.default_rng(3).standard_normal((CLASSES, CHANNELS, side, side)).astype(np.float32)
    node = helper.make_node("Conv", ["pixels", "weight"], ["logits"], pads=[reach_px] * 4)
    sizes = ("batch", CHANNELS, "height", "width")
    graph = helper.make_graph(
        [node],
        "wide",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (sizes[0], CLASSES, *sizes[2:]))],
        [numpy_helper.from_array(weight, "weight")],
    )
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return write_pixelwise_bundle(folder, onnx=made.SerializeToString())


class TestApart:
    def test_a_function_runs_in_another_process(self) -> None:
        assert run_apart(os.getpid) != os.getpid()

    def test_an_error_comes_back_whole(self) -> None:
        with pytest.raises(UsageError, match="what and where") as caught:
            run_apart(refuse, "what and where", hint="what to do")
        assert (caught.value.hint, caught.value.exit_code) == ("what to do", 2)

    def test_a_process_that_is_killed_is_told(self) -> None:
        with pytest.raises(EngineError, match="signal 9"):
            run_apart(end_by, signal.SIGKILL)

    def test_a_bug_there_is_told_as_one(self) -> None:
        with pytest.raises(GeosegError, match="ZeroDivisionError") as caught:
            run_apart(divide, 1)
        assert caught.value.exit_code == 70

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
    def test_its_peak_memory_does_not_begin_with_that_of_this_process(self) -> None:
        held = np.ones(300 * 2**20, np.uint8)
        here, there = peak_rss_bytes(), run_apart(peak_rss_bytes)
        assert here is not None
        assert there is not None
        assert there < held.nbytes < here


class TestSyntheticScene:
    def test_a_bundle_takes_it_as_it_is(self, tmp_path: Path) -> None:
        synthetic.write_synthetic(tmp_path / "scene.tif", 96, 160)
        with open_job(tmp_path / "scene.tif", find_bundle("landcover-lale"), PredictOptions()) as job:
            assert (job.scene.grid.height, job.scene.grid.width) == (96, 160)
            assert all(job.scene.present)
            assert job.scene.radiometry.rung == "tags"
            patch = job.scene.read(Window(0, 0, 96, 160))
            reflectance = job.scene.to_reflectance(patch.pixels)
        assert patch.valid.all()
        assert 0 < np.median(reflectance) < 0.5

    def test_it_compresses_as_real_scenes_do(self, tmp_path: Path) -> None:
        path = tmp_path / "scene.tif"
        synthetic.write_synthetic(path, 1024, 512)
        # 1.5 to 2.3 for Sentinel-2 and Landsat scenes stored in the same way.
        assert 1.5 < synthetic.file_bytes(1024, 512) / path.stat().st_size < 2.3

    def test_the_seed_decides_the_pixels(self, tmp_path: Path) -> None:
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            synthetic.write_synthetic(tmp_path / name, 64, 64, seed)
        a, b, c = (rasterio.open(tmp_path / name).read() for name in "abc")
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)


class TestAgreement:
    @given(SEEDS)
    @settings(max_examples=15)
    def test_shares_are_those_that_numpy_counts(self, tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
        folder, random = tmp_path_factory.mktemp("maps"), np.random.default_rng(seed)
        height, width = random.integers(20, 90, 2)
        truth = random.choice(np.array([*CLOUDS.values, 255], np.uint8), (height, width))
        found = np.where(random.random(truth.shape) < 0.3, random.choice(truth.ravel(), truth.shape), truth)
        rows, cols = (tuple(random.integers(1, size, 2).tolist()) for size in (height, width))
        agreement = compare_maps(
            write_map(folder / "truth.tif", truth), write_map(folder / "found.tif", found), CLOUDS, Seams(rows, cols)
        )
        known, same = truth != 255, truth == found
        assert agreement.pixels == known.sum()
        assert agreement.share == pytest.approx(same[known].mean())
        near = np.array(
            [
                [
                    min(abs(row + 0.5 - seam) for seam in rows) < 16 or min(abs(col + 0.5 - seam) for seam in cols) < 16
                    for col in range(width)
                ]
                for row in range(height)
            ]
        )
        assert agreement.seam_pixels == (known & near).sum()
        assert agreement.seam_share == pytest.approx(same[known & near].mean())

    def test_the_lowest_iou_is_of_a_class_with_at_least_a_hundredth_of_the_pixels(self, tmp_path: Path) -> None:
        truth = np.zeros((100, 100), np.uint8)
        truth[:30], truth[30, :99] = 1, 2  # 3000 pixels of class 1 and 99, less than 1 %, of class 2
        found = truth.copy()
        found[0], found[truth == 2] = 0, 0
        agreement = compare_maps(write_map(tmp_path / "a.tif", truth), write_map(tmp_path / "b.tif", found), CLOUDS)
        assert agreement.lowest_class == CLOUDS.classes[1].title
        assert agreement.lowest_iou == pytest.approx(2900 / 3000)
        truth[31, 0] = 2
        agreement = compare_maps(write_map(tmp_path / "a.tif", truth), write_map(tmp_path / "b.tif", found), CLOUDS)
        assert (agreement.lowest_class, agreement.lowest_iou) == (CLOUDS.classes[2].title, 0)

    def test_a_map_without_an_answer_agrees_with_nothing(self, tmp_path: Path) -> None:
        empty = write_map(tmp_path / "a.tif", np.full((40, 40), 255, np.uint8))
        assert compare_maps(empty, empty, CLOUDS) == Agreement(0, None)


class TestMeasure:
    def test_the_forward_pass_gets_the_tiles_of_the_run(
        self, tmp_path: Path, make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[np.ndarray] = []

        def remember(pixels: np.ndarray) -> np.ndarray:
            seen.extend(pixels.copy())
            return np.zeros((len(pixels), CLASSES, *pixels.shape[2:]), np.float32)

        bundle = write_pixelwise_bundle(tmp_path / "bundle")
        scene, out = noise_scene(tmp_path / "scene.tif", 150, 200), tmp_path / "map.tif"
        report = predict_scene(scene, out, bundle, FakeEngine(CLASSES, remember))
        of_the_run, seen = seen, []
        monkeypatch.setattr(measure, "choose_engine", lambda *_: (FakeEngine(CLASSES, remember), ""))
        figures = measure.measure_forward(Case(scene, str(bundle.folder), ONNX, PredictOptions(batch=3), out))
        # One batch of nothing warms up.
        assert [tile.any() for tile in seen[:3]] == [False] * 3
        assert figures.tiles == report.tiles_run == len(of_the_run) > 3
        assert np.array_equal(seen[3:], of_the_run)

    def test_of_a_large_scene_whole_rows_of_tiles_from_top_to_bottom_are_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bundle = write_pixelwise_bundle(tmp_path / "bundle")
        scene = noise_scene(tmp_path / "scene.tif", 400, 100)
        monkeypatch.setattr(measure, "FORWARD_TILES", 5)
        with open_job(scene, bundle, PredictOptions(tile_px=64, overlap_px=0)) as job:
            strips = list(measure._strip_inputs(job, CLASSES))
        assert len(job.plan.rows.starts) == 7
        assert [len(strip) for strip in strips] == [2, 2, 2]
        with rasterio.open(scene) as file:
            red = file.read(1).astype(np.float32) * np.float32(1e-4)
        for strip, start in zip(strips, (0, 168, 336), strict=True):
            assert np.allclose(strip[0, 0], (red[start : start + 64, :64] - 0.1) / 0.2, atol=1e-5)

    def test_a_run_counts_its_tiles_and_its_time(self, tmp_path: Path) -> None:
        bundle = write_pixelwise_bundle(tmp_path / "bundle")
        scene = noise_scene(tmp_path / "scene.tif", 150, 200)
        figures = measure.measure_run(
            Case(scene, str(bundle.folder), ONNX, PredictOptions(tile_px=64, overlap_px=8), tmp_path / "map.tif")
        )
        tiles = 3 * 4  # ceil((150 - 8) / 56) rows, ceil((200 - 8) / 56) columns
        assert (figures.tiles, figures.pixels_computed) == (tiles, tiles * 64**2)
        assert (figures.engine, figures.precision, figures.size_px) == ("onnx", "fp32", (150, 200))
        assert 0 < figures.forward_wall_s + figures.tail_s < figures.wall_s
        assert figures.tail_s >= figures.seconds["commit"] > 0

    def test_reading_alone_decodes_the_used_bands_once(
        self, tmp_path: Path, make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pixels = np.full((3, 100, 70), 1000, np.uint16)
        scene = make_scene(
            pixels, bands=("red", "unused", "nir"), tags=((1e-4, 0.0),) * 3, tiled=True, blockxsize=32, blockysize=32
        )
        read: list[tuple[tuple[int, ...], int]] = []
        plain_open = rasterio.open

        def watch(*arguments: object, **options: object) -> rasterio.DatasetReader:
            file = plain_open(*arguments, **options)
            own = file.read

            class Watched:
                block_windows = staticmethod(file.block_windows)
                __enter__ = lambda self: self  # noqa: E731
                __exit__ = lambda self, *_: file.close()  # noqa: E731

                def read(self, bands: list[int], window: rasterio.windows.Window) -> None:
                    read.append((tuple(bands), own(bands, window=window).shape[1] * window.width))

            return Watched()  # type: ignore[return-value]

        bundle = write_pixelwise_bundle(tmp_path / "bundle")
        with open_job(scene, bundle, PredictOptions()) as job:
            monkeypatch.setattr("geoseg_cli.bench.plain.rasterio.open", watch)
            measure.read_plainly(job.scene)
        assert {bands for bands, _ in read} == {(1, 3)}
        assert sum(count for _, count in read) == 100 * 70
        assert len(read) == 4 * 3


RUN = RunFigures(
    engine="onnx", device="cpu", precision="fp32", size_px=(1000, 2000), tile_px=(256, 256), overlap_px=32, tiles=40,
    pixels_computed=2_621_440, wall_s=4.0, core_s=6.0, seconds={"read": 1.0, "run": 2.0}, forward_wall_s=2.0,
    tail_s=0.2, first_tile_s=1.5, peak_rss_bytes=500_000_000,
)  # fmt: skip
ROUND = Round(RUN, ForwardFigures(10, 0.5, 1.0, 300_000_000), ReadFigures(0.5, 0.8))


class TestFigures:
    def test_figures_of_one_round_follow_from_what_was_measured(self) -> None:
        row = make_row([ROUND], 4, None)
        assert (row.engine, row.precision, row.batch, row.tile_px, row.overlap_px) == ("onnx", "fp32", 4, 256, 32)
        assert row.mpx_per_s == pytest.approx(2 / 4)
        assert row.forward_share == pytest.approx(0.5)
        assert row.forward_core_s == pytest.approx(4)  # 10 of 40 tiles were timed
        assert row.overhead == pytest.approx(6 / (4 + 0.8))
        assert row.computed_share == pytest.approx(1.31072)
        assert row.tail_share == pytest.approx(0.05)
        assert (row.peak_rss_mb, row.rss_above_mb) == (500, 200)

    def test_figures_of_rounds_are_medians(self) -> None:
        walls, cores = [4.0, 9.0, 5.0], [6.0, 5.0, 7.2]
        rounds = [
            replace(ROUND, run=replace(RUN, wall_s=wall, core_s=core)) for wall, core in zip(walls, cores, strict=True)
        ]
        row = make_row(rounds, None, None)
        assert (row.wall_s, row.core_s) == (5, 6)
        assert row.overhead == pytest.approx(statistics.median(core / 4.8 for core in cores))

    def test_a_run_that_needs_less_than_one_batch_has_nothing_above_it(self) -> None:
        small = replace(ROUND, run=replace(RUN, peak_rss_bytes=290_000_000))
        assert make_row([small], None, None).rss_above_mb == 0

    def test_what_the_machine_does_not_tell_is_left_open(self) -> None:
        silent = replace(ROUND, run=replace(RUN, peak_rss_bytes=None))
        assert make_row([silent], None, None).rss_above_mb is None
        on_gpu = replace(ROUND, run=replace(RUN, device="cuda:0"))
        assert make_row([on_gpu], None, None).overhead is None
        nothing_ran = replace(ROUND, run=replace(RUN, tiles=0), forward=ForwardFigures(0, 0.0, 0.0, 1))
        assert make_row([nothing_ran], None, None).overhead is None


@pytest.fixture
def all_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg_cli.bench.run.run_apart", call_here)
    monkeypatch.setattr("geoseg_cli.bench.overlap.run_apart", call_here)


@pytest.mark.usefixtures("all_in_one_process")
class TestBenchScene:
    def test_configurations_are_compared_and_one_that_cannot_run_says_why(self, tmp_path: Path) -> None:
        bundle = write_pixelwise_bundle(tmp_path / "bundle")
        scene = noise_scene(tmp_path / "scene.tif", 100, 140)
        ways = (
            Configuration(replace(ONNX, precision="bf16")),
            Configuration(ONNX, batch=1),
            Configuration(ONNX, batch=5, tile_px=32),
        )
        told: list[str] = []
        report = bench_scene(scene, BenchOptions(bundle, ways, 2), tmp_path, told.append)
        failed, first, second = report.rows
        assert "bf16" in failed.failed
        assert failed.wall_s is None
        assert report.reference == "onnx fp32"
        for row in (first, second):
            assert row.agreement is not None
            # The network sees one pixel at a time: tiles change nothing.
            assert (row.agreement.share, row.agreement.lowest_iou) == (1, 1)
            assert row.agreement.pixels == 100 * 140
        assert (first.tiles, second.tiles) == (2 * 3, 6 * 8)  # ceil((100 - 16) / 48) x ...; ceil((100 - 16) / 16) x ...
        assert [line for line in told if "onnx fp32" in line or "onnx auto" in line] == [
            f"round {number} of 2: onnx auto, batch {batch}" for number in (1, 2) for batch in ("1", "5, tile 32")
        ]

    def test_all_engines_are_those_that_run_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = [EngineStatus("a", True, ("cpu",)), EngineStatus("b", False, ()), EngineStatus("c", True, ("cpu",))]
        monkeypatch.setattr("geoseg_cli.bench.run.available_engines", lambda: found)
        assert engines_that_run() == ("a", "c")

    def test_what_does_not_run_in_fp32_is_compared_with_a_run_that_does(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def choose(bundle: Bundle, options: EngineOptions) -> tuple[Engine, str]:
            if options.precision != "bf16":
                return choose_engine(bundle, options)
            always_first = ConstantEngine([1, 0, 0, 0])
            always_first.precision = "bf16"
            return always_first, ""

        monkeypatch.setattr(measure, "choose_engine", choose)
        bundle = write_pixelwise_bundle(tmp_path / "bundle")
        scene, out = noise_scene(tmp_path / "scene.tif", 100, 140), tmp_path / "own.tif"
        ways = (Configuration(replace(ONNX, precision="bf16")),)
        report = bench_scene(scene, BenchOptions(bundle, ways, 1), tmp_path, lambda _: None)
        engine, _ = choose_engine(bundle, ONNX)
        predict_scene(scene, out, bundle, engine)
        with rasterio.open(out) as file:
            is_zero = file.read(1) == bundle.legend.values[0]
        (row,) = report.rows
        assert report.reference.endswith(" fp32")
        assert row.precision == "bf16"
        assert row.agreement is not None
        assert row.agreement.share == pytest.approx(is_zero.mean())

    def test_it_fails_where_nothing_runs(self, tmp_path: Path) -> None:
        bundle = write_pixelwise_bundle(tmp_path / "bundle")
        scene = noise_scene(tmp_path / "scene.tif", 64, 64)
        ways = (Configuration(replace(ONNX, precision="bf16")),)
        with pytest.raises(EngineError, match="bf16"):
            bench_scene(scene, BenchOptions(bundle, ways, 1), tmp_path, lambda _: None)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> OverlapReport:
    """Overlaps of a network that sees 6 px around."""
    folder = tmp_path_factory.mktemp("sweep")
    options = SweepOptions(wide_bundle(folder / "bundle"), ONNX, (64, 1024))
    return sweep_overlaps(noise_scene(folder / "scene.tif", 170, 200), options, folder, lambda _: None)


class TestOverlap:
    def test_tiles_that_hold_the_scene_are_left_out(self, report: OverlapReport) -> None:
        assert report.seamless == (1024,)
        assert [(row.tile_px, row.overlap_px) for row in report.rows] == [(64, 0), (64, 16), (64, 32)]

    def test_maps_differ_from_the_reference_near_seams_and_less_with_more_overlap(self, report: OverlapReport) -> None:
        shares = [row.agreement.share or 0.0 for row in report.rows]
        assert shares == sorted(shares)
        assert shares[0] < shares[1]
        without = report.rows[0].agreement
        assert without.share is not None
        assert without.seam_share is not None
        # Away from seams nothing can differ: all errors lie near them.
        errors, near = (1 - without.share) * without.pixels, (1 - without.seam_share) * without.seam_pixels
        assert errors > 0
        assert errors == pytest.approx(near)

    def test_twice_the_overlap_is_the_next_map_but_one(self, report: OverlapReport) -> None:
        assert [row.doubled is not None for row in report.rows] == [False, True, False]
        # ceil((170 - overlap) / (64 - overlap)) rows, ceil((200 - overlap) / (64 - overlap)) columns
        assert [row.tiles for row in report.rows] == [(3, 4), (4, 4), (5, 6)]
        assert [row.moved for row in report.rows] == [False, True, False]

    def test_computed_pixels_are_those_of_a_sentinel_2_tile(self, report: OverlapReport) -> None:
        for row in report.rows:
            along = -(-(10_980 - row.overlap_px) // (64 - row.overlap_px))
            assert row.computed_share == pytest.approx((along * 64 / 10_980) ** 2)

    @pytest.mark.usefixtures("all_in_one_process")
    def test_a_scene_without_seams_is_refused(self, tmp_path: Path) -> None:
        options = SweepOptions(write_pixelwise_bundle(tmp_path / "bundle"), ONNX, (64,))
        with pytest.raises(UsageError, match="no seams"):
            sweep_overlaps(noise_scene(tmp_path / "scene.tif", 60, 50), options, tmp_path, lambda _: None)

    def test_the_smallest_overlap_is_the_first_that_agrees_enough(self, report: OverlapReport) -> None:
        def row(overlap_px: int, share: float, doubled: float | None, **changes: Any) -> OverlapRow:
            twice = None if doubled is None else Agreement(1, doubled)
            made = OverlapRow(64, overlap_px, 1.1, 1.0, Agreement(1, share), twice, (3, 3), moved=True)
            return replace(made, **changes)

        rows = (
            row(0, 0.9, None),
            row(16, 0.9951, 0.996),
            row(32, 0.9991, 0.994),
            row(48, 0.998, 0.999, computed_share=1.3),
        )
        made = replace(report, rows=rows)
        assert (made.smallest(64, 0.999), made.smallest(64, 0.995), made.smallest(64, 0.9995)) == (32, 16, None)
        assert made.highest(64) == 0.9991
        assert [one.is_enough for one in rows] == [None, True, False, False]
        # The same tiles give nearly the same map: that tells nothing about the overlap.
        assert row(16, 0.99, 0.999, moved=False).is_enough is None
        assert row(16, 0.99, 0.990, moved=False).is_enough is False

    def test_seams_lie_in_the_middle_of_overlaps(self, tmp_path: Path) -> None:
        bundle = write_pixelwise_bundle(tmp_path / "bundle")
        scene = noise_scene(tmp_path / "scene.tif", 64, 112)
        with open_job(scene, bundle, PredictOptions(tile_px=64, overlap_px=16)) as job:
            assert find_seams(job) == Seams((), (56,))  # tiles of 0 to 64 and 48 to 112
