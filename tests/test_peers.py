"""The contest with the peers: what is counted, compared and printed; the peers themselves only where they are."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from geoseg_cli.bundle import InputSpec, find_bundle
from tests.conftest import TEN_METRES

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
MODULES = ("absent", "compare", "memory", "prepare", "run_plain", "setup", "task")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script of the contest by name; names as short as theirs are forgotten again."""
    for folder in (FOLDER / "peers", FOLDER):
        monkeypatch.syspath_prepend(str(folder))
    for name in (*MODULES, "peers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in (*MODULES, "peers"):
        sys.modules.pop(name, None)


def run_of(name: str, number: int, core_s: float, **more: Any) -> dict[str, Any]:
    """A finished run of a tool that needs ``core_s`` and half of it for everything else."""
    figures = {"core_s": core_s, "work_core_s": core_s / 2, "wall_s": core_s / 2, "peak_rss_mb": core_s / 2}
    return {
        "name": name, "round": number, "engine": "torch fp32", "tile_px": 256, "overlap_px": 64, "size_px": [100, 200],
        "pixels_computed": 30_000, "agreement": {"near": 0.5, "elsewhere": 0.75}, **figures, **more,
    }  # fmt: skip


def test_ratios_are_of_runs_of_one_round_and_figures_are_medians(load: Any) -> None:
    # Another process doubles the times of round 1: the ratio must not notice.
    ours = [run_of("geoseg", number, seconds) for number, seconds in enumerate((2.0, 4.0, 2.0))]
    theirs = [run_of("slow", number, seconds) for number, seconds in enumerate((6.0, 12.0, 6.0))]
    rows = load("peers").render([*ours, *theirs]).splitlines()
    assert rows[3].startswith("| slow | torch fp32 | 256 / 64 | 6.0 | 3.00 | 3.0 | 3.00 | 3.0 | 3.00 | 3 | 3.00 |")
    assert rows[3].endswith("| 1.50 | 50.00% | 75.00% |")
    assert all(row.count("|") == rows[0].count("|") for row in rows)


def test_a_tool_that_failed_has_a_row_that_says_so(load: Any) -> None:
    failed = {"name": "broken", "round": 0, "failed": "no module"}
    rows = load("peers").render([run_of("geoseg", 0, 1.0), failed]).splitlines()
    assert rows[3].startswith("| broken | did not run |")
    assert rows[3].count("|") == rows[0].count("|")


def test_a_round_that_failed_leaves_the_others(load: Any) -> None:
    peers = load("peers")
    ours = peers.of([run_of("geoseg", 0, 2.0), run_of("geoseg", 1, 3.0)], "geoseg")
    theirs = peers.of([{"name": "x", "round": 0, "failed": "why"}, run_of("x", 1, 6.0)], "x")
    assert peers.ratio(theirs, ours, "core_s") == "2.00"


def test_a_process_is_measured_with_all_its_threads_and_says_why_it_failed(load: Any) -> None:
    peers = load("peers")
    busy = 'import time\nwhile time.process_time() < 0.3: pass\nprint(\'{"tool": "x"}\')'
    run = peers.measure([sys.executable, "-c", busy], 1)
    assert run["tool"] == "x"
    assert run["core_s"] >= 0.3
    failed = peers.measure([sys.executable, "-c", "raise ValueError('too small')"], 1)["failed"]
    assert failed == "ValueError: too small"
    assert "setup.py" in peers.measure(["/no/such/python"], 1)["failed"]


@pytest.mark.skipif(not hasattr(__import__("os"), "sched_setaffinity"), reason="cores cannot be chosen here")
def test_a_tool_gets_no_more_cores_than_it_may(load: Any) -> None:
    count = "import json, os; print(json.dumps({'cores': len(os.sched_getaffinity(0))}))"
    assert load("peers").measure([sys.executable, "-c", count], 1)["cores"] == 1


def test_commands_name_the_tiling_in_the_equal_contest_only(load: Any) -> None:
    peers = load("peers")
    options = argparse.Namespace(venvs=Path("V"), layout="contiguous", bundle="cloud-lale")
    tool = next(tool for tool in peers.TOOLS if tool.name == "geoai")
    equal, defaults = (
        peers.command_of(tool, contest, Path("s.tif"), Path("o.tif"), options) for contest in ("equal", "defaults")
    )
    assert equal[0] == "V/geoai/bin/python"
    assert equal[-4:] == ["--tile", "256", "--overlap", "64"]
    assert "--tile" not in defaults
    assert defaults[defaults.index("--bundle") + 1] == "cloud-lale"


def test_every_tool_has_its_adapter_and_every_environment_its_recipe(load: Any) -> None:
    peers, setup = load("peers"), load("setup")
    assert all((FOLDER / "peers" / tool.script).is_file() for tool in peers.TOOLS)
    assert {tool.venv for tool in peers.TOOLS if tool.venv} == set(setup.PEERS)


def test_packages_that_break_a_cpu_build_of_torch_are_found(load: Any) -> None:
    installed = ["torch", "nvidia_cudnn_cu13", "nvidia-ml-py", "torchvision", "triton", "numpy", "nvidia-cublas"]
    assert load("setup").wrong_packages(installed) == ["nvidia-cublas", "nvidia_cudnn_cu13", "torchvision", "triton"]


@given(size=st.integers(300, 3000), tile=st.integers(2, 299), data=st.data())
def test_flush_tiles_cover_the_scene_and_end_at_its_edge(size: int, tile: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, tile))
    sys.path.insert(0, str(FOLDER / "peers"))
    try:
        starts = importlib.import_module("task").flush_starts(size, tile, stride)
    finally:
        sys.path.remove(str(FOLDER / "peers"))
    covered = np.zeros(size, bool)
    for start in starts:
        covered[start : start + tile] = True
    assert covered.all()
    assert starts[-1] + tile == size
    assert len(starts) == len(set(starts))


def test_near_is_within_16_px_of_an_inner_edge_of_a_tile(load: Any) -> None:
    near = load("compare").near_edges(300, [0, 100], 200)
    assert np.array_equal(np.flatnonzero(near), [*range(84, 116), *range(184, 216)])


def test_agreement_counts_pixels_near_edges_and_elsewhere_apart(load: Any, tmp_path: Path) -> None:
    wanted = np.zeros((50, 100), np.uint8)
    found = wanted.copy()
    found[0:10, 50] = 1  # on the edge between two tiles
    found[0:5, 0] = 255  # no answer, far from it
    path = tmp_path / "map.tif"
    grid = {"height": 50, "width": 100, "crs": "EPSG:32631", "transform": TEN_METRES}
    with rasterio.open(path, "w", driver="GTiff", count=1, dtype="uint8", **grid) as file:
        file.write(found, 1)
    run = {"map": str(path), "tool": "x", "row_starts": [0], "col_starts": [0, 50], "tile_px": 50}
    agreement = load("compare").compare(run, wanted)
    near, elsewhere = 32 * 50, 68 * 50
    assert agreement == {"near": pytest.approx(1 - 10 / near), "elsewhere": pytest.approx(1 - 5 / elsewhere)}


def test_values_of_a_legend_become_numbers_of_classes(load: Any) -> None:
    found = load("compare").as_numbers(np.array([[10, 95, 255, 11]], np.uint8), [10, 20, 95])
    assert found.tolist() == [[0, 2, 255, 255]]


def test_the_mirrored_scene_is_the_sample_and_its_mirror_image(load: Any) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(1, 3, 4)
    grown = load("prepare").mirror(pixels, 5)
    assert grown.shape == (1, 5, 5)
    assert np.array_equal(grown[:, :3, :4], pixels)
    assert grown[0, 3].tolist() == grown[0, 2].tolist()
    assert grown[0, :, 4].tolist() == grown[0, :, 3].tolist()


def test_the_scene_has_the_bands_of_the_bundle_in_reflectance(load: Any, tmp_path: Path) -> None:
    load("prepare").write_scene(300, tmp_path / "scene.tif")
    with rasterio.open(tmp_path / "scene.tif") as file:
        assert file.descriptions == ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B11", "B12")
        assert file.scales == (1e-4,) * 9
        assert file.offsets == (-0.1,) * 9
        near_infrared = file.read(7)
    with rasterio.open(ROOT / "sample_scenes" / "l2a_12_bands.tif") as sample:
        assert np.array_equal(near_infrared, sample.read(8)[:300, :300])


def test_the_scene_of_a_cloud_bundle_has_the_band_of_cirrus(load: Any, tmp_path: Path) -> None:
    load("prepare").write_scene(300, tmp_path / "scene.tif", "cloud-lale")
    with rasterio.open(tmp_path / "scene.tif") as file:
        assert file.descriptions == ("B01", "B02", "B03", "B04", "B08", "B09", "B10", "B11", "B12")
        cirrus = file.read(7)
    with rasterio.open(ROOT / "sample_scenes" / "l1c_13_bands.tif") as sample:
        assert np.array_equal(cirrus, sample.read(sample.descriptions.index("B10") + 1)[:300, :300])


class Echo(nn.Module):
    """A network that returns its input and remembers its memory layout."""

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        self.is_channels_last = planes.is_contiguous(memory_format=torch.channels_last)
        return planes


def test_numbers_are_normalised_as_the_bundle_does_it(load: Any) -> None:
    task = load("task")
    spec = InputSpec(("red", "nir"), ("nir",), (0.1, 0.3), (0.05, 0.2))
    numbers = np.array([[[1500]], [[4000]]], np.uint16)
    planes = task.normalise(numbers, ([1e-4, 1e-4], [-0.1, -0.1]), spec)
    # (0.05 - 0.1) / 0.05, (0.3 - 0.3) / 0.2, and the band that may be absent is there
    assert planes.ravel().tolist() == pytest.approx([-1.0, 0.0, 1.0], abs=1e-6)
    inside = task.FromNumbers(Echo(), spec, [1e-4, 1e-4], [-0.1, -0.1])(torch.from_numpy(numbers)[None])
    assert inside.numpy().ravel().tolist() == pytest.approx(planes.ravel().tolist(), abs=1e-5)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_network_counts_tiles_and_pixels_in_the_layout_that_was_asked_for(layout: str, load: Any) -> None:
    echo = Echo()
    network = load("task").CountedNetwork(echo, layout)
    network(torch.zeros(3, 2, 16, 8))
    logits = network(torch.zeros(1, 2, 16, 8))
    assert (network.tiles, network.pixels) == (4, 4 * 16 * 8)
    assert echo.is_channels_last == (layout == "channels_last")
    assert logits.is_contiguous()


def test_names_of_an_absent_package_can_be_imported_but_not_used(load: Any, tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text(
        "from nowhere_at_all.models import Net\n\nclass Own(Net):\n    pass\n\ndef useful():\n    return 3\n", "utf-8"
    )
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(FOLDER / 'peers')!r}]\n"
        "import absent\nprint(absent.declare_absent('nowhere_at_all', 'json'))\nimport needy\nprint(needy.useful())\n"
        "try:\n    needy.Own()\nexcept ModuleNotFoundError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "['nowhere_at_all']", "3", "nowhere_at_all.models.Net is not installed: only its name is",
    ]  # fmt: skip


def test_a_module_is_imported_without_its_packages_own_start(load: Any, tmp_path: Path) -> None:
    inner = tmp_path / "heavy" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner.parent, inner):
        (folder / "__init__.py").write_text("raise RuntimeError('started')\n", "utf-8")
    (inner / "tiling.py").write_text("from heavy.inner import other\n", "utf-8")
    (inner / "other.py").write_text("answer = 3\n", "utf-8")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(FOLDER / 'peers')!r}]\n"
        "import absent; absent.open_packages('heavy', 'heavy.inner')\n"
        "from heavy.inner import tiling\nprint(tiling.other.answer)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "3\n"


@pytest.mark.slow
def test_geoseg_and_the_plain_loop_make_nearly_the_same_map(load: Any, tmp_path: Path) -> None:
    peers = load("peers")
    written = tmp_path / "runs.json"
    command = [sys.executable, str(FOLDER / "peers.py"), "--side", "448", "--rounds", "1", "--contests", "equal",
               "--tools", "geoseg", "rasterio loop", "--json", str(written)]  # fmt: skip
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ours, loop = json.loads(written.read_text("utf-8"))
    assert [ours["tiles"], loop["tiles"]] == [4, 4]
    assert [run["pixels_computed"] for run in (ours, loop)] == [4 * 256 * 256] * 2
    for part in ("near", "elsewhere"):
        assert ours["agreement"][part] > 0.95
        assert ours["agreement"][part] == pytest.approx(loop["agreement"][part], abs=0.01)
    assert printed.count("\n| ") == 3
    assert ours["name"] == peers.REFERENCE_TOOL


@pytest.mark.peer
@pytest.mark.parametrize("name", ["omnicloudmask", "terratorch", "torchgeo", "toolbelt", "geoai", "geo-inference"])
def test_a_peer_makes_nearly_the_map_of_the_whole_scene(name: str, load: Any, tmp_path: Path) -> None:
    peers = load("peers")
    tool = next(tool for tool in peers.TOOLS if tool.venv == name)
    if not (peers.default_venvs() / name).is_dir():
        pytest.skip(f"make its environment: python benchmarks/peers/setup.py {name}")
    scene, reference, output = (tmp_path / file for file in ("scene.tif", "reference.tif", "map.tif"))
    peers.prepare("scene", "448", str(scene))
    peers.prepare("reference", str(scene), str(reference))
    options = argparse.Namespace(venvs=peers.default_venvs(), layout="channels_last", bundle="landcover-lale")
    run = peers.measure(peers.command_of(tool, "equal", scene, output, options), 1)
    assert "failed" not in run
    assert run["pixels_computed"] >= 448 * 448
    runs = [run | {"map": str(output), "bundle": "landcover-lale"}]
    peers.add_agreement(runs, reference)
    # OmniCloudMask standardises every patch anew, which no option turns off.
    assert min(runs[0]["agreement"].values()) > (0.85 if name == "omnicloudmask" else 0.95)


def test_the_hann_weights_of_the_loop_are_positive_and_symmetric(load: Any) -> None:
    weights = load("run_plain").hann_weights(8)
    assert weights.min() > 0
    assert np.allclose(weights, weights[::-1, ::-1])
    assert np.allclose(weights, weights.T)


def test_the_labels_of_a_user_written_loop_lie_on_the_scenes_grid(load: Any, tmp_path: Path) -> None:
    scene = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 3, "width": 4, "dtype": "uint16"}
    with rasterio.open(scene, "w", crs="EPSG:32631", transform=TEN_METRES, **profile) as file:
        file.write(np.ones((1, 3, 4), np.uint16))
    load("task").write_labels(tmp_path / "map.tif", np.full((3, 4), 2, np.uint8), scene)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.transform, file.crs.to_epsg(), file.nodata) == (TEN_METRES, 32631, 255)
        assert (file.read(1) == 2).all()


def test_the_bundle_of_the_contest_has_no_band_that_the_scene_lacks() -> None:
    assert len(find_bundle("landcover-lale").input_spec.bands) == 9
