"""``geoseg train``: a folder of images and labels becomes a bundle that classifies; what is refused and kept."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio

pytest.importorskip("torch")

from geoseg_cli.bundle import Bundle, sha256_of
from geoseg_cli.errors import UsageError
from geoseg_cli.export.readme import describe_in_words
from tests.cli.conftest import Run
from tests.conftest import write_scene

CONFIG = """
[bundle]
name = "tiny"
task = "land-cover"
licence = "CC0-1.0"
gsd_m = 10
tile_px = 64
overlap_px = 16

[network]
name = "lale-s1"
config = { depths = [1, 1, 1, 1], widths = [8, 16, 16, 16], stem_width = 8, heads = [2, 2], decoder_width = 16 }

[input]
bands = ["red", "nir", "swir16"]
optional = ["swir16"]

[classes]
legend = "esa-worldcover"
values = [10, 80]

[[data.pairs]]
folder = "data"

[train]
steps = 6
validate_steps = 2
pixels_per_step = 4096
learning_rate = 5e-3
class_balance = "inverse"
"""


def write_data(folder: Path, places: tuple[str, ...] = ("north", "south", "west")) -> None:
    """One pair per place: trees are bright in the near infrared, water is dark."""
    for seed, place in enumerate(places):
        rng = np.random.default_rng(seed)
        labels = np.where(np.kron(rng.random((4, 4)), np.ones((16, 16))) > 0.5, 10, 80).astype(np.uint8)
        means = [
            (labels == 10) * tree + (labels == 80) * water for tree, water in ((500, 900), (3500, 300), (1500, 100))
        ]
        pixels = (np.stack(means) + rng.integers(0, 100, (3, 64, 64))).astype(np.uint16)
        (folder / place).mkdir(parents=True, exist_ok=True)
        write_scene(folder / place / "scene.tif", pixels, ("red", "nir", "swir16"), [(1e-4, 0.0)] * 3)
        write_scene(folder / place / "scene_label.tif", labels[None])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a configuration and three pairs."""
    write_data(tmp_path / "data")
    (tmp_path / "train.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "train.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def history(folder: Path) -> list[dict[str, object]]:
    return Bundle.open(folder).card.extras.training["history"]


def test_a_folder_of_pairs_becomes_a_bundle_that_classifies(run: Run, here: Path) -> None:
    from geoseg_cli.engines.torch_engine import TorchEngine
    from geoseg_cli.job import PredictOptions
    from geoseg_cli.predict import predict_scene

    change(here, "[train]", "[train]\ntensorboard = true\npatience = 50")
    (here / "data" / "west" / "scene.tif").write_bytes(b"the test part is not opened")
    change(here, "[train]", '[split]\ntest_places = ["west"]\ndevelop_places = ["south"]\n[train]')
    done = run("train", "train.toml")
    assert (done.code, done.out) == (0, "tiny\n")
    for words in ("17,084 parameters", "train: 1 place: north", "test: 1 place: west (not read)", "step      6",
                  "steps/s, 0 s left", "mIoU pairs-0", "scale and offset tags"):  # fmt: skip
        assert words in done.err
    has_logs = any((here / "tiny.run").glob("tensorboard/events*"))
    assert has_logs or "no TensorBoard logs, the package is missing: pip install 'geoseg[train]'" in done.err
    bundle = Bundle.open(here / "tiny")
    record = bundle.card.extras.training
    assert record["split"] == {"train": ["north"], "develop": ["south"], "test": ["west"]}
    assert [row["step"] for row in record["history"]] == [2, 4, 6]
    assert bundle.input_spec.bands == ("red", "nir", "swir16")
    assert (here / "tiny" / "README.md").read_text() == describe_in_words(bundle.card)
    assert "From scratch; 6 steps on" in describe_in_words(bundle.card)  # once: 40 minutes, a budget that nobody gave
    pixels = np.concatenate([rasterio.open(here / "data" / "north" / "scene.tif").read()]) * 1e-4
    np.testing.assert_allclose(bundle.input_spec.mean, pixels.mean(axis=(1, 2)), rtol=1e-3)
    np.testing.assert_allclose(bundle.input_spec.stddev, pixels.std(axis=(1, 2)), rtol=1e-3)
    curves = ElementTree.parse(here / "tiny" / "curves.svg").getroot()
    assert [len(line.get("points", "").split()) for line in curves.iter("{http://www.w3.org/2000/svg}polyline")] == [
        3,
        3,
    ]
    predict_scene(
        here / "data" / "south" / "scene.tif", here / "map.tif", bundle, TorchEngine(bundle), PredictOptions()
    )
    with rasterio.open(here / "map.tif") as made:
        assert set(np.unique(made.read(1))) <= {10, 80}
        assert (made.height, made.width) == (64, 64)
    again = run("train", "train.toml")
    assert (again.code, again.out) == (73, "")
    assert "--resume" in again.err
    change(here, "learning_rate = 5e-3", "learning_rate = 4e-3")
    changed = run("train", "train.toml", "--resume")
    assert changed.code == 65
    assert "train.learning_rate: 0.005 then, 0.004 now" in changed.err


def test_a_dry_run_says_what_would_be_done_and_leaves_nothing(run: Run, here: Path) -> None:
    change(here, "[[data.pairs]]", '[start]\nbundle = "nowhere"\n[[data.pairs]]')
    refused = run("train", "train.toml", "--dry-run")
    assert (refused.code, "nowhere" in refused.err) == (66, True)
    change(here, '[start]\nbundle = "nowhere"\n', '[split]\ntest_places = ["west"]\ndevelop_places = ["south"]\n')
    before = sorted(here.rglob("*"))
    done = run("train", "train.toml", "--dry-run")
    assert (done.code, done.out) == (0, "")
    with rasterio.open(here / "data" / "north" / "scene_label.tif") as label:
        assert f"{int((label.read(1) == 10).sum()):,}" in done.err
    for words in ("17,084 parameters; cpu, fp32", "6 steps", "means and deviations were measured on 1 training chips",
                  "class weights", "samples of 64 px"):  # fmt: skip
        assert words in done.err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("steps = 6", "stepps = 6", 2, ("train.stepps is no known key", "did you mean steps")),
        ('"lale-s1"', '"resnet"', 2, ("no network is called 'resnet'", "lemevit-tiny")),
        ("stem_width = 8", "stem_width = true", 2, ("network.config.stem_width is true; lale-s1 has 16 there",)),
        ("stem_width = 8", "stem_width = 8.5", 2, ("network.config.stem_width is 8.5",)),
        ("stem_width = 8", "stem_width = -8", 2, ("network.config.stem_width is -8",)),
        ("stem_width = 8", 'stem_width = "8"', 2, ('network.config.stem_width is "8"',)),
        ("heads = [2, 2]", "heads = [true, 2]", 2, ("network.config.heads is [true, 2]", "[4, 8]")),
        ("heads = [2, 2]", "heads = [2]", 2, ("network.config.heads is [2]", "as many")),
        ("heads = [2, 2]", "heads = 2", 2, ("network.config.heads is 2",)),
        ("heads = [2, 2]", "heads = [2, 0]", 2, ("network.config makes no lale-s1", "heads")),
        ("stem_width = 8", "keep_pointwise_residual = 1", 2, ("keep_pointwise_residual is 1",)),
        ("stem_width = 8", "stem = 8", 78, ("has no setting stem", "stem_width")),
        ('folder = "data"', 'folder = "nothing"', 66, ("there is no folder", "images/X.tif")),
        ('folder = "data"', 'folder = "data/north/empty"', 66, ("there is no folder",)),
        ("values = [10, 80]", "values = [10, 30]", 65, ("80 (", "no classes of the legend", "ignore = [")),
        ('bands = ["red", "nir", "swir16"]', 'bands = ["red", "blue", "swir16"]', 65, ("missing band blue",)),
        ("[train]", "[augment]\nband_sets = [['nir']]\n[train]", 2, ("nir is no optional band",)),
        ("[train]", '[split]\ntest_places = ["east"]\n[train]', 2, ("no place east", "north, south, west")),
        ("[train]", '[start]\nbundle = "cloud-mscloudcam"\n[train]', 2, ("is a mscloudcam-small", "lale-s1")),
        ("[[data.pairs]]", '[data.simulator]\nspectra = "data"\n[[data.pairs]]', 66, ("data",)),
    ],
)
def test_what_cannot_be_trained_on_is_refused_before_the_first_step(
    run: Run, here: Path, old: str, new: str, code: int, words: tuple[str, ...]
) -> None:
    change(here, old, new)
    done = run("train", "train.toml")
    assert (done.code, done.out) == (code, "")
    for word in words:
        assert word in done.err
    assert not (here / "tiny").exists()


def test_one_place_alone_cannot_be_split(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path / "data", ("north",))
    (tmp_path / "train.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    done = run("train", "train.toml")
    assert done.code == 65
    assert "1 place(s) (north) cannot be split" in done.err


def test_a_label_on_another_grid_is_refused(run: Run, here: Path) -> None:
    for place in ("north", "south", "west"):
        write_scene(here / "data" / place / "scene_label.tif", np.full((1, 32, 64), 10, np.uint8))
    done = run("train", "train.toml")
    assert done.code == 65
    assert "label: 32 x 64 px" in done.err


def test_a_damaged_checkpoint_is_refused_and_a_restart_needs_none(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoseg_cli.training import run as run_module

    monkeypatch.setattr(run_module, "finish", lambda plan, trainer, ranks, out: type("B", (), {"folder": out}))
    assert run("train", "train.toml", "--resume").code == 0  # there was none to resume
    checkpoint = here / "tiny.run" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    done = run("train", "train.toml", "--resume")
    assert (done.code, done.out) == (74, "")
    assert "checkpoint tiny.run/checkpoint.pt is cut or damaged" in done.err
    assert "remove tiny.run/checkpoint.pt" in done.err
    assert "torch" not in done.err
    assert run("train", "train.toml", "--resume", "--restart").code == 2
    assert run("train", "train.toml", "--restart", "--out", "tiny").out == "tiny\n"


def test_what_a_killed_run_left_behind_does_not_end_it(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geoseg_cli.training import run as run_module

    monkeypatch.setattr(run_module, "finish", lambda plan, trainer, ranks, out: type("B", (), {"folder": out}))
    assert run("train", "train.toml").code == 0
    left = here / "tiny" / ".part-killed"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half of it")
    assert run("train", str(here / "train.toml"), "--resume").code == 0  # and by another name of the same file
    assert not left.exists()
    begun_with = here / "tiny.run" / "run.json"
    begun_with.write_text(begun_with.read_text()[:40])
    done = run("train", "train.toml", "--resume")
    assert done.code == 74
    assert "tiny.run/run.json is damaged" in done.err
    assert "--restart" in done.err


def fake_bundle_in(out: Path, *rest: object) -> object:
    out.mkdir(exist_ok=True)
    return type("B", (), {"folder": out})


def refuse_to_write(error: Exception) -> Callable[..., NoReturn]:
    def write(*rest: object) -> NoReturn:
        raise error

    return write


def test_a_full_disk_while_the_bundle_is_written_costs_no_step(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from geoseg_cli.training import finish

    full = OSError(errno.ENOSPC, "No space left on device")
    of_weights = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    for mode, error in ((), full), (("--resume",), of_weights):
        monkeypatch.setattr(finish, "write_bundle", refuse_to_write(error))
        done = run("train", "train.toml", *mode)
        assert (done.code, done.out) == (74, "")
        assert "cannot write tiny: " in done.err
        assert "No space left on device" in done.err
        assert "make room" in done.err
        assert "--resume: it trains no further step" in done.err
    monkeypatch.setattr(finish, "write_bundle", fake_bundle_in)
    monkeypatch.setattr(finish, "draw_curves", refuse_to_write(full))
    done = run("train", "train.toml", "--resume")
    assert (done.code, "cannot write tiny/curves.svg: No space" in done.err) == (74, True)
    monkeypatch.setattr(finish, "draw_curves", lambda history, step: "<svg/>")
    done = run("train", "train.toml", "--resume")
    assert (done.code, done.out) == (0, "tiny\n")
    assert "the checkpoint is of step 6" in done.err


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"kind"', '"sort"'),
        lambda text: text.replace('"part": "train"', '"part": "teach"'),
        lambda text: "[]",
    ],
    ids=["cut", "empty", "another key", "another part", "no table"],
)
def test_a_damaged_index_of_the_chips_is_named_with_the_way_out(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[str], str]
) -> None:
    from geoseg_cli.training import run as run_module

    monkeypatch.setattr(run_module, "_train", refuse_to_write(UsageError("here the training would begin")))
    assert run("train", "train.toml").code == 2
    index = here / "tiny.run" / "chips" / "index.json"
    index.write_text(damage(index.read_text()))
    done = run("train", "train.toml", "--resume")
    assert (done.code, done.out) == (74, "")
    assert "tiny.run/chips/index.json is damaged" in done.err
    assert "--restart" in done.err
    assert "here the training would begin" in run("train", "train.toml", "--restart").err


def test_an_out_folder_that_cannot_be_written_is_refused_before_anything_is_read(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoseg_cli.training import run as run_module

    monkeypatch.setattr(run_module, "cut_chips", refuse_to_write(AssertionError("data were read")))
    (here / "link").symlink_to(here / "gone" / "nowhere")
    (here / "file").touch()
    for out, words in (
        ("link", "cannot write link: link: it is a link into nothing"),
        ("file/tiny", "file/tiny"),
        ("x" * 300, "File name too long"),
        ("/", "name a folder with --out"),
        (".", "exists and is no bundle"),
    ):
        done = run("train", "train.toml", "--out", out)
        assert (done.code, done.out) == (73, ""), done.err
        assert words in done.err
        assert "--out" in done.err
    assert not (here / "gone").exists()
    assert sorted(path.name for path in here.iterdir()) == ["data", "file", "link", "train.toml"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_bundle_without_the_right_to_replace_it_is_refused_before_anything_is_read(run: Run, here: Path) -> None:
    (here / "tiny").mkdir()
    (here / "tiny").chmod(0o500)
    done = run("train", "train.toml")
    assert done.code == 73
    assert "Permission denied" in done.err
    assert not (here / "tiny.run").exists()


def test_a_folder_instead_of_a_configuration_is_answered_with_the_one_in_it(run: Run, here: Path) -> None:
    done = run("train", ".")
    assert (done.code, done.out) == (2, "")
    assert ". is a folder" in done.err
    assert "geoseg train train.toml" in done.err


def test_folders_that_are_not_ours_are_left_alone(run: Run, here: Path) -> None:
    (here / "tiny.run").mkdir()
    (here / "tiny.run" / "thesis.txt").write_text("three years of work")
    done = run("train", "train.toml", "--restart")
    assert done.code == 73
    assert "is no training run" in done.err
    assert (here / "tiny.run" / "thesis.txt").exists()
    done = run("train", "train.toml", "--out", "data")
    assert done.code == 73
    assert "is no bundle" in done.err


def geoseg(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "geoseg_cli", "train", "train.toml", *arguments]


@pytest.mark.slow
def test_a_run_that_was_terminated_and_resumed_makes_the_same_weights(here: Path) -> None:
    change(here, "steps = 6", "steps = 40")
    change(here, "validate_steps = 2", "validate_steps = 10")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(geoseg(here, "--out", "whole"), check=True, env=environment, capture_output=True)
    stopped = subprocess.Popen(geoseg(here, "--out", "cut"), env=environment, stderr=subprocess.PIPE, text=True)
    while not (here / "cut.run" / "checkpoint.pt").exists():
        assert stopped.poll() is None
        time.sleep(0.02)
    stopped.send_signal(signal.SIGTERM)
    _, said = stopped.communicate(timeout=120)
    assert stopped.returncode == 143
    assert "Go on with: geoseg train train.toml --out cut --resume" in said
    assert not (here / "cut").exists()
    subprocess.run(geoseg(here, "--out", "cut", "--resume"), check=True, env=environment, capture_output=True)
    assert history(here / "cut") == history(here / "whole")
    one, other = (Bundle.open(here / name).file("weights") for name in ("cut", "whole"))
    assert sha256_of(one) == sha256_of(other)


@pytest.mark.slow
def test_two_processes_make_one_bundle(here: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "geoseg_cli", "train", "train.toml"], capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=240,
    )  # fmt: skip
    assert done.stdout == "tiny\n"
    assert Bundle.open(here / "tiny").card.extras.training["machine"].startswith("2 processes")


@pytest.mark.slow
def test_a_bundle_is_tuned_to_other_classes(here: Path) -> None:
    network = CONFIG[CONFIG.index("[network]") : CONFIG.index("[classes]")]
    change(here, network, '[start]\nbundle = "landcover-lale"\n')
    for path in (here / "data").rglob("scene.tif"):
        with rasterio.open(path) as scene:
            red, nir, swir16 = scene.read()
        write_scene(path, np.stack([red, red, red, nir, swir16]), ("blue", "green", "red", "nir", "swir16"),
                    [(1e-4, 0.0)] * 5)  # fmt: skip
    done = subprocess.run(
        geoseg(here), capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert "weights begin as those of landcover-lale" in done.stderr
    assert "begin at random" in done.stderr
    tuned, start = Bundle.open(here / "tiny"), Bundle.open(Path(__file__).parents[2] / "models" / "landcover-lale")
    assert tuned.input_spec == start.input_spec
    assert tuned.legend.values == (10, 80)
    assert json.dumps(tuned.card.extras.training["resolved"])


def test_a_bundle_whose_run_is_gone_is_not_replaced_unasked(run: Run, here: Path) -> None:
    (here / "tiny").mkdir()
    (here / "tiny" / "item.json").write_text("{}")
    for arguments in ((), ("--resume",)):
        done = run("train", "train.toml", *arguments)
        assert done.code == 73
        assert "--restart trains anew" in done.err


def test_torchs_own_word_decides_about_cuda(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import geoseg_cli.engines.torch_engine

    monkeypatch.setattr(geoseg_cli.engines.torch_engine, "find_cuda_obstacle", lambda probe: "torch is built without")
    done = run("train", "train.toml", "--device", "cuda", "--dry-run")
    assert done.code == 69
    assert "torch is built without" in done.err
    assert "; cpu, fp32" in run("train", "train.toml", "--dry-run").err
