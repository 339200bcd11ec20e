"""``geoseg export``: what it prints and where, its exit codes, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio

from geoseg_cli.bundle import Bundle, sha256_of
from geoseg_cli.engines import choose_engine
from geoseg_cli.engines.golden import read_golden
from geoseg_cli.errors import UsageError
from geoseg_cli.export.onnx_file import open_graph
from geoseg_cli.export.single_file import ExportOptions, export_file
from geoseg_cli.export.source import open_source
from tests.cli.conftest import Run
from tests.export.test_calibration import scene
from tests.export.toys import Plain, seeded, write_small_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("export-cli") / "small")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that exports in a second in the place of the one that was asked for."""
    monkeypatch.setattr("geoseg_cli.engines.torch_engine.load_network", lambda bundle: seeded(Plain))
    monkeypatch.setattr("geoseg_cli.export.source.create_network", lambda name, bands, classes: seeded(Plain))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_stdout_carries_the_path_and_stderr_what_was_compared(run: Run, bundle: Bundle, here: Path) -> None:
    done = run("export", bundle.folder)
    assert (done.code, done.out) == (0, "small.onnx\n")
    assert names(here) == {"small.onnx"}
    for words in ("small, 3 channels, 4 classes -> small.onnx (ONNX, fp32)", "opset 20", "multiples of 32",
                  "1 x 64 x 64, 3 x 96 x 160, 1 x 192 x 64", "100.000% of", "traced at 2 x 128 x 192"):  # fmt: skip
        assert words in done.err
    pixels, wanted = read_golden(bundle)
    np.testing.assert_allclose(open_graph(here / "small.onnx")(pixels), wanted, atol=1e-4)


@pytest.mark.usefixtures("quick")
def test_a_bare_network_is_exported_quietly_in_half_precision(run: Run, here: Path) -> None:
    arguments = ("lale-s1", "--bands", 3, "--classes", 4, "--precision", "fp16", "--accept-agreement", 0.9)
    done = run("export", *arguments, "--opset", 18, "-q")
    assert (done.code, done.out, done.err) == (0, "lale-s1-fp16.onnx\n", "")
    model = onnx.load(here / "lale-s1-fp16.onnx")
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
    (entry,) = model.metadata_props
    assert entry.key == "geoseg_export"
    facts = json.loads(entry.value)
    assert (facts["source"], facts["weights"], facts["channels"]) == ("lale-s1", "random", 3)


@pytest.mark.usefixtures("quick")
def test_pt2_goes_where_it_is_told(run: Run, bundle: Bundle, here: Path) -> None:
    done = run("export", bundle.folder, "--to", "pt2", "-o", here / "network.pt2")
    assert (done.code, done.out) == (0, f"{here / 'network.pt2'}\n")
    assert "(torch.export, fp32)" in done.err
    assert "opset" not in done.err


@pytest.mark.usefixtures("quick")
def test_int8_says_what_it_was_judged_by_and_is_refused_below_the_floor(run: Run, bundle: Bundle, here: Path) -> None:
    scene(here / "scene.tif", 90, 150)
    arguments = ("export", bundle.folder, "--precision", "int8", "--calibration", "scene.tif")
    refused = run(*arguments, "--accept-agreement", 1)
    assert (refused.code, refused.out) == (78, "")
    assert "get the class of fp32, less than 100.00%" in refused.err
    assert names(here) == {"scene.tif"}
    done = run(*arguments, "--accept-agreement", 0.5)
    assert (done.code, done.out) == (0, "small-int8.onnx\n")
    assert "calibrated with every other of" in done.err
    assert "worst class " in done.err


@pytest.mark.usefixtures("quick")
def test_an_existing_file_is_kept_unless_told_otherwise(run: Run, bundle: Bundle, here: Path) -> None:
    (here / "small.onnx").write_bytes(b"older")
    done = run("export", bundle.folder)
    assert (done.code, done.out) == (73, "")
    assert "--overwrite" in done.err
    assert (here / "small.onnx").read_bytes() == b"older"
    assert run("export", bundle.folder, "--overwrite").code == 0
    onnx.checker.check_model(here / "small.onnx", full_check=True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nonsense",), 66, ("no bundle and no network is called 'nonsense'", "lale-s1", "chromaformer-h")),
        (("lale-s1",), 2, ("--bands and --classes", "--bands 3 --classes 7")),
        (("lale-s1", "--bands", 3), 2, ("--classes must say",)),
        (("lale-s1", "--bands", 0, "--classes", 3), 2, ("--bands",)),
        (("BUNDLE", "--bands", 4), 78, ("for --bands 3, not 4",)),
        (("BUNDLE", "--classes", 7), 78, ("for --classes 4, not 7",)),
        (("BUNDLE", "--opset", 17), 2, ("opset 17 is older", "18 to 23", "--opset 18")),
        (("BUNDLE", "--opset", 99), 2, ("opset 99 is newer", "--opset 23")),
        (("BUNDLE", "--to", "pt2", "--precision", "fp16"), 2, ("a pt2 file holds fp32",)),
        (("BUNDLE", "--to", "tflite"), 2, ("tflite",)),
        (("BUNDLE", "--calibration", "a.tif"), 2, ("--calibration belongs to int8",)),
        (("BUNDLE", "--precision", "int8", "--calibration", "none.tif"), 66, ("none.tif",)),
        (("BUNDLE", "-o", ""), 2, ("--output names no file",)),
        (("BUNDLE", "-o", "map.tif"), 2, ("does not end in .onnx", "name it map.onnx")),
        (("BUNDLE", "-o", "missing/a.onnx"), 73, ("there is no folder", "mkdir -p")),
    ],
)
def test_bad_input_is_refused_with_its_code_and_its_remedy(
    run: Run, bundle: Bundle, here: Path, arguments: tuple[object, ...], code: int, words: tuple[str, ...]
) -> None:
    done = run("export", *(bundle.folder if argument == "BUNDLE" else argument for argument in arguments))
    assert (done.code, done.out) == (code, "")
    for word in words:
        assert word in done.err
    assert not names(here)


def test_a_bundle_without_weights_is_refused(run: Run, model: Path, here: Path) -> None:
    card = json.loads((model / "item.json").read_text())
    del card["assets"]["weights"]
    (model / "item.json").write_text(json.dumps(card))
    done = run("export", model)
    assert (done.code, done.out) == (78, "")
    assert "bundle fake-bundle has no weights, only onnx" in done.err
    assert names(here) == {"model"}


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_missing_packages_end_with_69_and_the_command_that_installs_them(
    run: Run, bundle: Bundle, here: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    done = run("export", bundle.folder)
    assert (done.code, done.out) == (69, "")
    assert "pip install 'geoseg[export]'" in done.err
    assert not names(here)


@pytest.mark.slow
def test_pt2_needs_no_onnx(run: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxscript", "onnx_ir"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    assert run("export", bundle.folder, "--to", "pt2").code == 0


def test_the_help_states_every_default(run: Run) -> None:
    done = run("export", "--help")
    text = " ".join(done.out.replace("│", " ").split())
    for words in ("default: onnx", "default: fp32", "default: 20", "default: NAME.onnx", "default: 0.999 in fp16",
                  "0.98 in int8", "golden tiles"):  # fmt: skip
        assert words in text


@pytest.mark.parametrize("name", ["item.json", "README.md", "model.safetensors", "golden.npz"])
def test_no_file_of_the_bundle_is_replaced_whatever_it_is_called(bundle: Bundle, here: Path, name: str) -> None:
    target = bundle.folder / name
    before = target.read_bytes()
    with pytest.raises(UsageError, match="both input and output"):
        export_file(open_source(str(bundle.folder)), target, ExportOptions("pt2", overwrite=True))
    assert target.read_bytes() == before


@pytest.mark.usefixtures("quick")
def test_scenes_without_band_names_are_told_by_an_option_of_their_own(run: Run, bundle: Bundle, here: Path) -> None:
    with rasterio.open(scene(here / "scene.tif", 90, 150), "r+") as file:
        file.set_band_description(1, "")
    arguments = ("export", bundle.folder, "--precision", "int8", "--accept-agreement", 0.5)
    refused = run(*arguments, "--calibration", "scene.tif")
    assert refused.code == 65
    assert "such as --calibration-bands red" in refused.err
    assert run(*arguments, "--calibration", "scene.tif", "--calibration-bands", "red").code == 0
    assert run(*arguments, "--calibration-bands", "red").code == 2


def test_an_internal_error_shows_its_traceback_when_asked(
    run: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("geoseg_cli.export.single_file.export_file", fail)
    assert run("export", bundle.folder).code == 70
    with pytest.raises(ZeroDivisionError):
        run("export", bundle.folder, "-vv")


@pytest.mark.usefixtures("quick")
def test_an_int8_graph_goes_into_the_bundle_and_makes_the_map(
    run: Run, bundle: Bundle, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoseg_cli import engines

    shutil.copytree(bundle.folder, here / "small")
    scene(here / "scene.tif", 150, 200)
    done = run("export", "small", "--precision", "int8", "--calibration", "scene.tif", "--into-bundle",
               "--accept-agreement", 0.5)  # fmt: skip
    assert (done.code, done.out) == (0, "small/model-int8.onnx\n")
    for words in ("small -> small/model-int8.onnx", "calibrated with every other of", "onnx: ",
                  "held-out tiles' pixels as in fp32", "auto will not choose it: "):  # fmt: skip
        assert words in done.err.replace("small, 3 channels, 4 classes", "small")
    monkeypatch.setattr(engines, "choose_engine", choose_engine)
    mapped = run("cloudmask", "scene.tif", "--model", "small", "--engine", "onnx", "--precision", "int8", "-o", "m.tif")
    assert (mapped.code, mapped.out) == (0, "m.tif\n")
    assert "engine onnx on cpu in int8: " in mapped.err
    assert "auto would not choose it" in mapped.err
    with rasterio.open("m.tif") as file:
        tags = file.tags()
    assert (tags["GEOSEG_ENGINE"], tags["GEOSEG_PRECISION"]) == ("onnx", "int8")
    assert tags["GEOSEG_MODEL_SHA256"] == sha256_of(here / "small" / "model-int8.onnx")


def test_int8_without_a_graph_ends_with_78_and_the_command_that_makes_it(
    run: Run, bundle: Bundle, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoseg_cli import engines

    monkeypatch.setattr(engines, "choose_engine", choose_engine)
    scene(here / "scene.tif", 64, 64)
    done = run("cloudmask", "scene.tif", "--model", bundle.folder, "--precision", "int8", "-o", "m.tif")
    assert (done.code, done.out) == (78, "")
    assert "bundle small has no onnx-int8" in done.err
    assert "--precision int8 --calibration SCENE --into-bundle" in done.err.replace("\n", " ")
    assert names(here) == {"scene.tif"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--precision", "fp16"), "--into-bundle is for int8 graphs, not for onnx in fp16"),
     (("--precision", "int8", "-o", "a.onnx"), "--into-bundle and -o both say where the graph goes")],
)  # fmt: skip
def test_into_bundle_goes_with_int8_alone(
    run: Run, bundle: Bundle, here: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = run("export", bundle.folder, "--into-bundle", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
