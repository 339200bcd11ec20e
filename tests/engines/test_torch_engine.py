from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from geoseg_cli.arrays import NUMPY, Arrays
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import torch_engine
from geoseg_cli.engines.devices import CudaProbe
from geoseg_cli.engines.replayed import PATIENCE, ReplayedNetwork
from geoseg_cli.engines.torch_engine import TorchEngine, find_cuda_obstacle, halve_batch, load_network
from geoseg_cli.errors import EngineError, ModelError
from geoseg_cli.networks import create_network
from tests.engines.pixelwise import CHANNELS, CLASSES, Pixelwise, draw_pixels, write_pixelwise_bundle

SMALL = {"depths": [1, 1, 1, 1], "widths": [8, 8, 16, 16], "stem_width": 4, "heads": [2, 2], "decoder_width": 8}


def write_lale(folder: Path) -> Bundle:
    """A bundle with the weights of a small LALE, and nothing else that torch needs."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = create_network("lale-s1", bands=CHANNELS, classes=CLASSES, **SMALL)
    bundle = write_pixelwise_bundle(folder, weights=save(module.state_dict()))
    card = json.loads((folder / "item.json").read_text())
    card["properties"]["mlm:hyperparameters"]["geoseg"]["network"] = {"name": "lale-s1", "config": SMALL}
    (folder / "item.json").write_text(json.dumps(card))
    return Bundle.open(bundle.folder)


@pytest.fixture(scope="module")
def lale(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_lale(tmp_path_factory.mktemp("lale"))


@pytest.mark.usefixtures("torch_knows_pixelwise")
def test_logits_are_those_of_the_network(pixelwise: Bundle, network: Pixelwise) -> None:
    engine = TorchEngine(pixelwise)
    pixels = draw_pixels(3, CHANNELS, 17, 40)
    logits = engine.run(pixels)
    assert (engine.name, engine.device, engine.precision) == ("torch", "cpu", "fp32")
    assert logits.dtype == np.float32
    assert logits.flags.c_contiguous
    np.testing.assert_allclose(logits, network.answer(pixels), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 96)])
def test_a_tile_gets_the_same_bytes_in_every_batch(lale: Bundle, size: tuple[int, int]) -> None:
    engine = TorchEngine(lale)
    pixels = draw_pixels(5, CHANNELS, *size)
    whole = engine.run(pixels)
    alone = np.concatenate([engine.run(pixels[tile : tile + 1]) for tile in range(5)])
    pairs = np.concatenate([engine.run(pixels[:2]), engine.run(pixels[2:])])
    assert (whole == alone).all()
    assert (whole == pairs).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tensors_are_answered_with_tensors_of_the_same_bytes(lale: Bundle, precision: str) -> None:
    pixels = draw_pixels(3, CHANNELS, 33, 47)
    engine = TorchEngine(lale, precision=precision, arrays=Arrays(torch))
    wanted = TorchEngine(lale, precision=precision).run(pixels)
    answer = engine.run(torch.from_numpy(pixels))
    assert isinstance(answer, torch.Tensor)
    assert answer.numpy().tobytes() == wanted.tobytes()
    assert engine.run(pixels).tobytes() == wanted.tobytes()


def test_who_runs_on_a_cpu_takes_numpys_arrays(lale: Bundle) -> None:
    assert TorchEngine(lale).arrays is NUMPY


def test_dropout_is_off(lale: Bundle) -> None:
    engine = TorchEngine(lale)
    pixels = draw_pixels(1, CHANNELS, 32, 32)
    assert (engine.run(pixels) == engine.run(pixels)).all()


def test_pixels_that_may_not_be_written_are_read_without_a_warning(
    lale: Bundle, recwarn: pytest.WarningsRecorder
) -> None:
    pixels = draw_pixels(1, CHANNELS, 32, 32)
    wanted = TorchEngine(lale).run(pixels)
    pixels.flags.writeable = False
    recwarn.clear()
    assert (TorchEngine(lale).run(pixels) == wanted).all()
    assert not recwarn.list


def test_loading_leaves_the_random_numbers_and_threads_of_the_caller_alone(lale: Bundle) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    TorchEngine(lale, threads=threads + 1).run(draw_pixels(1, CHANNELS, 32, 32))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_number_of_threads_is_what_was_asked_for(lale: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda *a: (seen.append(torch.get_num_threads()), forward(*a))[1])
    TorchEngine(lale, threads=3).run(draw_pixels(1, CHANNELS, 32, 32))
    assert set(seen) == {3}


def test_bf16_on_a_cpu_is_near_fp32(lale: Bundle) -> None:
    pixels = draw_pixels(2, CHANNELS, 64, 64)
    exact = TorchEngine(lale).run(pixels)
    engine = TorchEngine(lale, precision="bf16")
    rounded = engine.run(pixels)
    assert engine.precision == "bf16"
    assert rounded.dtype == np.float32
    assert not (rounded == exact).all()
    # bf16 keeps 8 bits: each of some 30 layers may add 2^-8 of the range.
    assert np.abs(rounded - exact).max() < 0.1 * np.ptp(exact)


class Overflowing(nn.Conv2d):
    """Infinite in reduced precision wherever channel 0 of a tile begins with more than 5."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits = super().forward(pixels)
        if torch.is_autocast_enabled("cpu") and pixels[0, 0, 0, 0] > 5:
            logits = logits / 0
        return logits


def test_a_tile_that_overflows_in_reduced_precision_is_computed_again_in_fp32(
    pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_engine, "create_network", lambda name, bands, classes: Overflowing(bands, classes, 1))
    pixels = draw_pixels(3, CHANNELS, 8, 8)
    pixels[1, 0, 0, 0] = 6
    exact = TorchEngine(pixelwise, precision="fp32").run(pixels)
    logits = TorchEngine(pixelwise, precision="bf16").run(pixels)
    assert (logits[1] == exact[1]).all()
    assert not (logits[0] == exact[0]).all()


def test_fp16_on_a_cpu_is_refused_with_a_remedy(pixelwise: Bundle) -> None:
    with pytest.raises(EngineError) as caught:
        TorchEngine(pixelwise, precision="fp16")
    assert caught.value.exit_code == 69
    assert "bf16" in caught.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_on_a_machine_without_it_is_refused_with_the_reason(pixelwise: Bundle) -> None:
    with pytest.raises(EngineError, match=r"torch cannot run on cuda:0: torch .* (built without|needs a driver)"):
        TorchEngine(pixelwise, "cuda:0")


def test_without_a_driver_the_obstacle_is_the_driver() -> None:
    assert find_cuda_obstacle(CudaProbe(0, "no driver")) == "no driver"


def change_weights(bundle: Bundle, change: Any) -> Bundle:
    state = load(bundle.file("weights").read_bytes())
    change(state)
    return write_pixelwise_bundle(bundle.folder, weights=save(state))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("bias"), "1 of 2 weights are missing: bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 of 2 weights are unexpected: extra"),
        (
            lambda state: state.update(weight=torch.zeros(9, 3, 1, 1)),
            r"1 of 2 weights are of another shape: weight is \(9, 3, 1, 1\), not \(4, 3, 1, 1\)",
        ),
        (lambda state: state["bias"].fill_(float("nan")), "1 of 2 weights are not finite: bias"),
    ],
)
@pytest.mark.usefixtures("torch_knows_pixelwise")
def test_weights_that_do_not_fit_are_named(pixelwise: Bundle, change: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        TorchEngine(change_weights(pixelwise, change))
    assert caught.value.exit_code == 78


@pytest.mark.usefixtures("torch_knows_pixelwise")
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    bundle = write_pixelwise_bundle(tmp_path, weights=b"no safetensors at all")
    with pytest.raises(ModelError, match="no safetensors file"):
        TorchEngine(bundle)


def test_an_unknown_network_is_refused(pixelwise: Bundle) -> None:
    with pytest.raises(ModelError, match="pixelwise"):
        TorchEngine(pixelwise)


def test_a_closed_engine_runs_no_more(lale: Bundle) -> None:
    engine = TorchEngine(lale)
    engine.close()
    with pytest.raises(AssertionError):
        engine.run(draw_pixels(1, CHANNELS, 32, 32))


def test_half_a_batch_is_tried_down_to_one_tile() -> None:
    error = RuntimeError("out of memory")
    assert [halve_batch(tiles, (3, 8, 8), 1.0, error) for tiles in (16, 5, 2)] == [8, 2, 1]
    with pytest.raises(EngineError, match=r"one tile of \(3, 8, 8\).*7\.5 GiB") as caught:
        halve_batch(1, (3, 8, 8), 7.5, error)
    assert caught.value.exit_code == 69
    assert "--tile" in caught.value.hint


class Crowded(nn.Module):
    """A network on a device that holds three tiles; the numbers of tiles that were tried."""

    def __init__(self) -> None:
        super().__init__()
        self.tried: list[int] = []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.tried.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError
        return 2 * pixels


def test_memory_that_runs_out_halves_the_batch_and_the_smaller_one_is_kept() -> None:
    lane, network = torch_engine._Lane(Arrays(torch), CHANNELS, at_once=0), Crowded()
    pixels = torch.from_numpy(draw_pixels(9, CHANNELS, 2, 2))
    replayed = ReplayedNetwork(network, 0)
    assert torch.equal(lane.run(replayed, pixels), 2 * pixels)
    assert network.tried == [9, 4, 2, 2, 2, 2, 1]
    lane.run(replayed, pixels[:4])
    assert network.tried[7:] == [2, 2]


def convolution_flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32


def test_convolutions_stay_exact_until_the_last_of_several_devices_is_done() -> None:
    """The flags are those of the process: devices that run beside each other share them."""
    before = convolution_flags()
    one, other = torch_engine._exact_convolutions(), torch_engine._exact_convolutions()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert convolution_flags() == (True, False)
    other.__exit__(None, None, None)
    assert convolution_flags() == before


@pytest.mark.gpu
def test_cuda_in_fp32_gives_the_logits_of_the_cpu(lale: Bundle) -> None:
    pixels = draw_pixels(7, CHANNELS, 96, 64)
    engine = TorchEngine(lale, "cuda:0", "fp32")
    assert np.abs(engine.run(pixels) - TorchEngine(lale).run(pixels)).max() < 1e-3
    engine.close()


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "ran", "least"), [("auto", "fp16", 0.995), ("bf16", "bf16", 0.97)])
def test_cuda_in_reduced_precision_gives_the_labels_of_the_cpu(
    lale: Bundle, precision: str, ran: str, least: float
) -> None:
    pixels = draw_pixels(4, CHANNELS, 128, 128)
    engine = TorchEngine(lale, "cuda:0", precision)
    assert engine.precision == ran
    same = engine.run(pixels).argmax(1) == TorchEngine(lale).run(pixels).argmax(1)
    assert same.mean() >= least


@pytest.mark.gpu
def test_cuda_runs_batches_of_changing_size_and_shape(lale: Bundle) -> None:
    engine, reference = TorchEngine(lale, "cuda:0", "fp32"), TorchEngine(lale)
    for tiles, side in ((4, 64), (1, 64), (6, 96), (2, 32)):
        pixels = draw_pixels(tiles, CHANNELS, side, side, seed=tiles)
        assert np.abs(engine.run(pixels) - reference.run(pixels)).max() < 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_cuda_gives_the_same_bytes_whether_kernels_are_told_one_by_one_or_replayed(
    lale: Bundle, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    batches = [draw_pixels(4, CHANNELS, 128, 128, seed=number) for number in range(PATIENCE + 4)]
    replaying = TorchEngine(lale, "cuda:0", precision)
    told = [replaying.run(batch) for batch in batches]
    assert "recording" not in caplog.text
    for batch, answer in zip(batches, told, strict=True):
        np.testing.assert_array_equal(TorchEngine(lale, "cuda:0", precision).run(batch), answer)


@pytest.mark.gpu
def test_a_tile_larger_than_the_memory_of_the_device_ends_with_69(lale: Bundle) -> None:
    free = torch.cuda.mem_get_info(0)[0]
    keep = torch.empty(free - 2**28, dtype=torch.uint8, device="cuda:0")
    try:
        with pytest.raises(EngineError, match="one tile"):
            TorchEngine(lale, "cuda:0", "fp32").run(draw_pixels(1, CHANNELS, 4096, 4096))
    finally:
        del keep
        torch.cuda.empty_cache()


def test_the_card_says_which_network_is_built(lale: Bundle) -> None:
    network: Any = load_network(lale)
    assert dataclasses.asdict(network.config)["widths"] == (8, 8, 16, 16)
