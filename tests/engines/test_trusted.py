"""A bundle whose weights are a program: refused unasked, run for who names its hash, and never with code in hiding."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import EngineOptions, choose_engine
from geoseg_cli.engines.torch_engine import TorchEngine, load_network
from geoseg_cli.errors import AccessError, EngineError, GeosegError, ModelError, UsageError
from tests.engines.pixelwise import CHANNELS, draw_pixels, write_pixelwise_bundle
from tests.failures.scenes import NEAREST, draw, write_red

OTHER = "ab" * 32


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the failure tests as an archive of torch.export."""
    import torch

    from geoseg_cli.export.pt2 import write_pt2

    module = torch.nn.Conv2d(CHANNELS, 4, 1).eval()
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(NEAREST.weight[:, :, None, None]))
        module.bias.copy_(torch.from_numpy(NEAREST.bias))  # type: ignore[union-attr]
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    write_pt2(module, path, (2, CHANNELS, 64, 96), {})
    return path


def bundle_of(folder: Path, archive: Path) -> Bundle:
    """A bundle with the archive for its weights, and no graph."""
    write_pixelwise_bundle(folder, NEAREST, onnx=b"", weights=archive.read_bytes())
    card = json.loads((folder / "item.json").read_text())
    (folder / "weights.bin").rename(folder / "model.pt2")
    card["assets"]["weights"]["href"] = "model.pt2"
    (folder / "item.json").write_text(json.dumps(card))
    return Bundle.open(folder)


def changed(archive: Path, path: Path, change: Callable[[str, bytes], bytes], **extra: bytes) -> Path:
    """A copy with other members."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as copy:
        for name in source.namelist():
            copy.writestr(name, change(name, source.read(name)))
        for name, content in extra.items():
            copy.writestr(f"model/{name}", content)
    return path


def test_a_program_is_refused_unasked_and_its_hash_is_told(tmp_path: Path, archive: Path) -> None:
    bundle = bundle_of(tmp_path / "model", archive)
    with pytest.raises(AccessError, match="a program") as caught:
        choose_engine(bundle, EngineOptions(device="cpu"))
    assert caught.value.exit_code == 77
    assert f"--trust {bundle.sha256('weights')}" in caught.value.hint
    with pytest.raises(AccessError, match="not the file that is trusted"):
        choose_engine(bundle, EngineOptions(device="cpu", trust=OTHER))
    with pytest.raises(ModelError, match="a program"):
        load_network(bundle)


def test_a_trusted_program_answers_as_numpy_does(tmp_path: Path, archive: Path) -> None:
    bundle = bundle_of(tmp_path / "model", archive)
    engine, _ = choose_engine(bundle, EngineOptions(device="cpu", trust=bundle.sha256("weights")))
    assert (engine.name, engine.precision) == ("torch", "fp32")
    for shape in ((3, CHANNELS, 40, 64), (1, CHANNELS, 1, 1)):
        pixels = draw_pixels(*shape)
        np.testing.assert_allclose(engine.run(pixels), NEAREST.answer(pixels), atol=1e-5)
    engine.close()


def test_a_program_runs_in_fp32_alone(tmp_path: Path, archive: Path) -> None:
    bundle = bundle_of(tmp_path / "model", archive)
    with pytest.raises(EngineError, match="fp32 on a CPU"):
        TorchEngine(bundle, precision="bf16", trust=bundle.sha256("weights"))


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        import os

        return os.mkdir, (str(self.marker),)


def test_code_that_hides_in_a_trusted_archive_is_refused_and_does_not_run(tmp_path: Path, archive: Path) -> None:
    marker = tmp_path / "marker"
    harm = pickle.dumps(Harmful(marker), protocol=2)

    def ask(name: str, content: bytes) -> bytes:
        return content.replace(b'"use_pickle": false', b'"use_pickle": true') if "config" in name else content

    attacks = {
        "pickle of more than tensors": {"change": lambda name, old: harm if name.endswith(".pt") else old},
        "asks for a pickle": {"change": ask},
        "which may be code": {"change": lambda name, old: old, "data/constants/custom_obj_0": harm},
        "aotinductor/a.so, which may be code": {"change": lambda name, old: old, "data/aotinductor/a.so": b"x"},
    }
    for says, how in attacks.items():
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        path = changed(archive, tmp_path / "bad.pt2", **how)  # type: ignore[arg-type]
        bundle = bundle_of(tmp_path / "model", path)
        with pytest.raises(AccessError, match=says):
            TorchEngine(bundle, trust=bundle.sha256("weights"))
    assert not marker.exists()
    pickle.loads(harm)
    assert marker.is_dir(), "it would have shown"


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04.", "legacy"])
def test_what_is_no_archive_is_refused(tmp_path: Path, archive: Path, content: bytes | str) -> None:
    path = tmp_path / "bad.pt2"
    if isinstance(content, bytes):
        path.write_bytes(content or b"nothing")
    else:
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("model/byteorder", "little")
    bundle = bundle_of(tmp_path / "model", path)
    with pytest.raises(GeosegError) as caught:
        TorchEngine(bundle, trust=bundle.sha256("weights"))
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("text", ["", "ab", "g" * 64, "AB" * 32])
def test_what_is_no_hash_is_a_mistake_of_the_command_line(text: str) -> None:
    with pytest.raises(UsageError, match="no SHA-256"):
        EngineOptions(trust=text)


def command(tmp_path: Path, *more: str) -> list[str]:
    return ["cloudmask", str(tmp_path / "in" / "scene.tif"), "-o", str(tmp_path / "map.tif"), "--device", "cpu",
            "--model", str(tmp_path / "model"), *more]  # fmt: skip


def test_the_command_line_opens_the_one_door_and_says_so(
    tmp_path: Path, archive: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from geoseg_cli.cli import main

    bundle, labels = bundle_of(tmp_path / "model", archive), draw(70, 60)
    write_red(tmp_path / "in" / "scene.tif", labels)
    digest = bundle.sha256("weights")
    with pytest.raises(SystemExit) as stop:
        main(command(tmp_path), "geoseg")
    assert stop.value.code == 77
    assert f"--trust {digest}" in capfd.readouterr().err
    assert not (tmp_path / "map.tif").exists()
    log = tmp_path / "run.log"
    with pytest.raises(SystemExit) as stop:
        main(command(tmp_path, "--trust", digest, "--log-file", str(log)), "geoseg")
    assert not stop.value.code
    assert digest in capfd.readouterr().err
    assert digest in log.read_text()
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), labels)
        assert file.tags()["GEOSEG_TRUSTED"] == digest
    quiet = tmp_path / "quiet.log"
    with pytest.raises(SystemExit) as stop:
        main(command(tmp_path, "--trust", digest, "--log-file", str(quiet), "--overwrite", "-q"), "geoseg")
    assert not stop.value.code
    assert capfd.readouterr().err == ""
    noted = [json.loads(line) for line in quiet.read_text().splitlines()]
    assert any(line["level"] == "warning" and f"trusted by its SHA-256 {digest}" in line["event"] for line in noted)


def test_trust_for_a_bundle_that_holds_no_program_is_a_mistake(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from geoseg_cli.cli import main

    write_pixelwise_bundle(tmp_path / "model", NEAREST)
    write_red(tmp_path / "in" / "scene.tif", draw(20, 20))
    with pytest.raises(SystemExit) as stop:
        main(command(tmp_path, "--trust", OTHER), "geoseg")
    assert stop.value.code == 2
    assert "holds no program" in capfd.readouterr().err
