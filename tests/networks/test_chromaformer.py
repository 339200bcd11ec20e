"""ChromaFormer against its published figures, the algebra of its two attentions, and its behaviour at any size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from geoseg_cli.errors import ModelError
from geoseg_cli.networks import create_network
from geoseg_cli.networks.attention import set_explicit_attention
from geoseg_cli.networks.chromaformer import (
    VARIANTS,
    BandAttention,
    ChromaFormer,
    ChromaFormerConfig,
    CosineAttention,
    SwinV2Backbone,
    TokenAttention,
    list_log_offsets,
)
from geoseg_cli.networks.windows import gather_windows, plan_windows, scatter_windows

CPU = torch.device("cpu")
Run = Callable[[Tensor], Tensor]
TINY = ChromaFormerConfig(
    embed=16, depths=(2, 1, 1, 1), heads=(2, 2, 4, 4), window=4, drop_path=0.0, head_width=16
)  # fmt: skip

# variant: backbone, patch embedding, stages 1 to 4; 11 bands
PARTS = {
    "t": (27_551_604, 17_184, 226_764, 968_856, 10_966_416, 15_372_384),
    "s": (48_891_540, 17_184, 226_764, 968_856, 32_306_352, 15_372_384),
    "b": (86_809_456, 22_912, 400_144, 1_717_280, 57_357_376, 27_311_744),
    "l": (195_085_608, 34_368, 894_360, 3_853_104, 128_889_696, 61_414_080),
    "h": (655_011_188, 63_008, 2_990_060, 12_920_024, 432_730_416, 206_307_680),
}
# variant: with the classifier of 15 classes and the SDM of positions, of bands
WITH_SDM = {
    "t": (27_590_787, 27_567_747),
    "s": (48_930_723, 48_907_683),
    "b": (86_873_983, 86_830_975),
    "l": (195_219_255, 195_117_879),
    "h": (655_425_155, 655_070_339),
}
# variant: GMAC at 224 px with window 7, at 256 px with window 8, as counted for the released code
GMACS = {
    "t": (4.628, 6.140),
    "s": (8.981, 11.903),
    "b": (15.742, 20.787),
    "l": (34.927, 45.953),
    "h": (115.935, 152.027),
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(variant: str, bands: int = 11, **changes: Any) -> ChromaFormer:
    with torch.device("meta"):
        return ChromaFormer(bands, 15, config=replace(VARIANTS[variant], **changes))


def tiny(bands: int = 3, classes: int = 4, **changes: Any) -> ChromaFormer:
    torch.manual_seed(0)
    return ChromaFormer(bands, classes, config=replace(TINY, **changes)).eval()


def awake(**changes: Any) -> ChromaFormer:
    """Build a network whose spectral module and batch norm matter, as after some training."""
    network = tiny(**changes).train()
    for name, parameter in network.named_parameters():
        if ".sdm." in name:
            nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(2, 3, 64, 64))
    return network.eval()


@pytest.mark.parametrize(("variant", "expected"), PARTS.items())
def test_backbone_parameters_match_to_the_unit(variant: str, expected: tuple[int, ...]) -> None:
    backbone = on_meta(variant, sdm="none").backbone
    assert count(backbone) == expected[0]
    assert count(backbone.patch_embedding) == expected[1]
    assert tuple(count(stage) for stage in backbone.stages) == expected[2:]


@pytest.mark.parametrize(("variant", "expected"), WITH_SDM.items())
def test_classifier_parameters_match_to_the_unit(variant: str, expected: tuple[int, int]) -> None:
    assert count(on_meta(variant, head="classify", sdm="tokens")) == expected[0]
    assert count(on_meta(variant, head="classify", sdm="bands")) == expected[1]


@pytest.mark.parametrize("sdm", ["bands", "tokens", "none"])
def test_largest_variant_rounds_to_the_published_655_or_656_million(sdm: str) -> None:
    assert 654.5e6 < count(on_meta("h", head="classify", sdm=sdm)) < 656.5e6


def test_each_extra_band_costs_16_parameters_per_channel() -> None:
    assert count(on_meta("t", bands=12)) - count(on_meta("t", bands=11)) == 16 * 96


def test_band_embedding_costs_one_vector_per_band() -> None:
    assert count(on_meta("t", use_band_embedding=True)) - count(on_meta("t")) == 11 * 96


def saved_by_offsets(config: ChromaFormerConfig) -> int:
    """Count what the released code spends on computing the position bias per pair instead of per offset."""
    pairs, offsets = config.window**4, (2 * config.window - 1) ** 2
    blocks = zip(config.depths, config.heads, strict=True)
    return sum(depth * (pairs - offsets) * 256 * (2 + heads) for depth, heads in blocks)


@pytest.mark.parametrize(("variant", "expected"), GMACS.items())
def test_multiply_adds_match_the_released_code(variant: str, expected: tuple[float, float]) -> None:
    for side_px, window, gmacs in ((224, 7, expected[0]), (256, 8, expected[1])):
        config = replace(VARIANTS[variant], sdm="none", window=window)
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            backbone = SwinV2Backbone(11, config).eval()
            set_explicit_attention(backbone)
            backbone(torch.empty(1, 11, side_px, side_px))
        counted = (counter.get_total_flops() / 2 + saved_by_offsets(config)) / 1e9
        assert counted == pytest.approx(gmacs, abs=0.0006)


@settings(max_examples=20, deadline=None)
@given(bands=st.integers(1, 6), patch_px=st.integers(1, 4), use_embedding=st.booleans())
def test_band_attention_equals_queries_keys_and_values_written_out(
    bands: int, patch_px: int, use_embedding: bool
) -> None:
    torch.manual_seed(bands)
    sdm = BandAttention(bands, 7, patch_px, use_embedding)
    image, tokens = torch.randn(2, bands, 2 * patch_px, 3 * patch_px), torch.randn(2, 2, 3, 7)
    expected = tokens.clone()
    name = sdm.embedding if sdm.embedding is not None else torch.zeros(bands, 7)
    for row in range(2):
        for col in range(3):
            rows = slice(row * patch_px, (row + 1) * patch_px)
            cols = slice(col * patch_px, (col + 1) * patch_px)
            pixels = image[:, :, rows, cols].reshape(2, bands, -1)
            queries, keys = sdm.query(pixels) + name, sdm.key(pixels) + name
            weights = (queries @ keys.transpose(1, 2) / math.sqrt(7)).softmax(-1)
            expected[:, row, col] += (weights @ sdm.value(pixels)).mean(1)
    torch.testing.assert_close(sdm(tokens, image), expected, atol=1e-5, rtol=1e-5)


def test_band_attention_weighs_bands_by_bands_in_every_patch() -> None:
    sdm = BandAttention(5, 8, 4, use_embedding=False)
    weights = sdm.weights(torch.randn(2, 5, 8, 12))
    assert weights.shape == (2, 6, 5, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6, 5), atol=1e-6, rtol=0)


def test_permuted_bands_permute_the_weights_and_keep_the_result() -> None:
    torch.manual_seed(0)
    sdm = BandAttention(5, 8, 4, use_embedding=False)
    image, tokens, order = torch.randn(1, 5, 8, 8), torch.randn(1, 2, 2, 8), torch.randperm(5)
    torch.testing.assert_close(sdm.weights(image[:, order]), sdm.weights(image)[:, :, order][..., order])
    torch.testing.assert_close(sdm(tokens, image[:, order]), sdm(tokens, image), atol=1e-5, rtol=0)


def test_band_embedding_tells_bands_apart() -> None:
    torch.manual_seed(0)
    sdm = BandAttention(5, 8, 4, use_embedding=True)
    assert sdm.embedding is not None
    nn.init.normal_(sdm.embedding)
    image, tokens = torch.randn(1, 5, 8, 8), torch.zeros(1, 2, 2, 8)
    assert (sdm(tokens, image.flip(1)) - sdm(tokens, image)).abs().max() > 1e-3


def test_one_patch_changes_its_own_spectral_output_only() -> None:
    torch.manual_seed(0)
    sdm = BandAttention(3, 8, 4, use_embedding=False)
    image, tokens = torch.randn(1, 3, 12, 16), torch.zeros(1, 3, 4, 8)
    changed = image.clone()
    changed[:, :, 4:8, 8:12] += 1
    differs = (sdm(tokens, changed) != sdm(tokens, image)).any(-1)[0]
    assert differs.nonzero().tolist() == [[1, 2]]


def test_switched_off_sdm_is_plain_swin() -> None:
    network, plain = tiny(), tiny(sdm="none")
    plain.load_state_dict(network.state_dict(), strict=False)
    assert isinstance(network.backbone.sdm, BandAttention)
    nn.init.zeros_(network.backbone.sdm.value.weight)
    x = torch.randn(1, 3, 32, 64)
    assert torch.equal(network(x), plain(x))


def test_token_attention_equals_softmax_over_all_positions() -> None:
    torch.manual_seed(0)
    sdm = TokenAttention(4)
    tokens = torch.randn(2, 3, 5, 4)
    flat = tokens.reshape(2, 15, 4)
    weights = (sdm.query(flat) @ sdm.key(flat).transpose(1, 2) / math.sqrt(15)).softmax(-1)
    expected = (weights @ sdm.value(flat)).reshape(2, 3, 5, 4)
    torch.testing.assert_close(sdm(tokens, torch.empty(0)), expected)


def cosine_attention_over_all(attention: CosineAttention, x: Tensor) -> Tensor:
    """Compute cosine attention among all tokens of one image (H, W, channels) from its definition."""
    height, width, channels = x.shape
    heads = attention.heads
    place = torch.tensor([(row, col) for row in range(height) for col in range(width)], dtype=torch.float32)
    offset = place[:, None] - place[None, :]
    bias = attention.position(offset.sign() * torch.log(1 + offset.abs())).permute(2, 0, 1)
    queries, keys, values = attention.qkv(x.reshape(-1, channels)).reshape(-1, 3, heads, channels // heads).unbind(1)
    cosine = torch.cosine_similarity(queries[:, None], keys[None], dim=-1).permute(2, 0, 1)
    scores = cosine / attention.temperature[:, None, None] + bias
    found = torch.einsum("aqk,kad->qad", scores.softmax(-1), values).reshape(-1, channels)
    projected: Tensor = attention.projection(found)
    return projected.reshape(x.shape)


@pytest.mark.parametrize(("height", "width"), [(5, 5), (3, 5), (1, 2)])
@pytest.mark.parametrize("shift", [0, 2])
def test_a_map_no_larger_than_the_window_gets_global_cosine_attention(height: int, width: int, shift: int) -> None:
    torch.manual_seed(0)
    attention = CosineAttention(8, 2, 5)
    nn.init.uniform_(attention.temperature, 0.1, 1.0)
    x = torch.randn(1, height, width, 8)
    plan = plan_windows(height, width, 5, shift, CPU)
    actual = scatter_windows(attention(gather_windows(x, plan), plan.mask), plan)
    torch.testing.assert_close(actual[0], cosine_attention_over_all(attention, x[0]), atol=1e-5, rtol=1e-5)


def test_shifted_windows_block_cosine_attention_at_the_smallest_temperature() -> None:
    plan = plan_windows(8, 8, 4, 2, CPU)
    strongest_against = torch.where(plan.mask == 0, -100.0, 100.0) + plan.mask
    assert strongest_against.softmax(-1)[plan.mask != 0].max() < 1e-30


def scores_of(attention: CosineAttention, x: Tensor) -> Tensor:
    """Record queries times keys, the scores before the position bias."""
    recorded: list[Tensor] = []
    attention.attention.register_forward_pre_hook(lambda _, inputs: recorded.append(inputs[0] @ inputs[1].mT))
    attention(x, torch.zeros(1, x.shape[2], x.shape[2]))
    return recorded[0]


def test_temperature_divides_the_scores_and_is_floored() -> None:
    torch.manual_seed(0)
    attention = CosineAttention(8, 2, 3)
    x = torch.randn(2, 1, 9, 8)
    at_one = scores_of(attention, x)
    assert at_one.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        attention.temperature.copy_(torch.tensor([0.5, 0.001]))
    sharper = scores_of(attention, x)
    torch.testing.assert_close(sharper[:, 0], at_one[:, 0] / 0.5)
    torch.testing.assert_close(sharper[:, 1], at_one[:, 1] / 0.01)


def test_length_of_queries_and_keys_does_not_matter() -> None:
    torch.manual_seed(0)
    attention = CosineAttention(8, 2, 3)
    x, mask = torch.randn(2, 1, 9, 8), torch.zeros(1, 9, 9)
    before = attention(x, mask)
    with torch.no_grad():
        for part, factor in ((slice(0, 8), 3.0), (slice(8, 16), 0.2)):
            attention.qkv.weight[part] *= factor
            attention.qkv.bias[part] *= factor
    torch.testing.assert_close(attention(x, mask), before, atol=1e-5, rtol=1e-5)


def test_log_offsets_are_not_scaled_to_the_window() -> None:
    offsets = list_log_offsets(3)
    assert offsets.shape == (25, 2)
    steps = [-math.log(3), -math.log(2), 0.0, math.log(2), math.log(3)]
    expected = [(row, col) for row in steps for col in steps]
    np.testing.assert_allclose(offsets.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 96), (250, 230), (1, 1), (33, 5)])
def test_segment_logits_have_the_size_of_the_image(height: int, width: int) -> None:
    with torch.no_grad():
        assert tiny()(torch.rand(1, 3, height, width)).shape == (1, 4, height, width)


@pytest.mark.parametrize("patch_px", [2, 4])
def test_chips_of_16_pixels_work_with_both_heads(patch_px: int) -> None:
    chips = torch.rand(3, 11, 16, 16)
    settings_of = {"patch_px": patch_px, "window": 7}
    assert tiny(11, 15, **settings_of)(chips).shape == (3, 15, 16, 16)
    assert tiny(11, 15, head="classify", **settings_of)(chips).shape == (3, 15)


def test_maps_halve_and_double() -> None:
    maps = tiny().backbone(torch.rand(2, 3, 64, 96))
    assert [tuple(features.shape) for features in maps] == [
        (2, 16, 16, 24), (2, 32, 8, 12), (2, 64, 4, 6), (2, 128, 2, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("sdm", ["bands", "tokens"])
@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_sdm_can_sit_before_any_stage(sdm: str, stage: int) -> None:
    network = awake(sdm=sdm, sdm_stage=stage)
    channels = 16 * 2 ** (stage - 1)
    inputs = (4 * 2 ** (stage - 1)) ** 2 if sdm == "bands" else channels
    assert network.backbone.sdm is not None
    assert count(network.backbone.sdm) == 3 * inputs * channels
    x = torch.randn(1, 3, 32, 64)
    with_sdm = network(x)
    network.backbone.sdm = None
    assert (network(x) - with_sdm).abs().max() > 1e-4


def test_explicit_attention_gives_the_same_logits() -> None:
    network = awake(sdm="tokens")
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        fused = network(x)
        set_explicit_attention(network)
        torch.testing.assert_close(network(x), fused, atol=1e-5, rtol=1e-5)


def test_network_is_found_by_name() -> None:
    with torch.device("meta"):
        network = create_network("chromaformer-b", 11, 15, sdm="none")
    assert isinstance(network, ChromaFormer)
    assert network.config == replace(VARIANTS["b"], sdm="none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sdm": "pixels"}, "sdm is 'pixels'"),
        ({"head": "detect"}, "head is 'detect'"),
        ({"sdm_stage": 5}, "sdm_stage is 5"),
        ({"window": 1}, "window is 1"),
        ({"patch_px": 0}, "patch_px is 0"),
        ({"heads": (3, 6, 12, 25)}, "768 channels cannot be shared by 25"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        replace(VARIANTS["t"], **changes)
    assert caught.value.hint


@pytest.mark.parametrize(("bands", "classes"), [(0, 4), (3, 0)])
def test_no_bands_or_no_classes_are_refused(bands: int, classes: int) -> None:
    with pytest.raises(ModelError, match="bands"):
        ChromaFormer(bands, classes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"use_band_embedding": True}, {"sdm": "tokens", "sdm_stage": 2}, {"head": "classify", "patch_px": 2}],
    ids=["bands", "tokens", "classify"],
)
def test_one_exported_graph_serves_every_size(changes: dict[str, Any], tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    network = awake(**changes)
    path = tmp_path / "network.onnx"
    torch.onnx.export(
        network, (torch.rand(2, 3, 64, 96),), path, dynamo=True, external_data=False, verbose=False,
        dynamic_shapes=({0: "batch", 2: "height", 3: "width"},), input_names=["x"],
    )  # fmt: skip
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 160, 224), (3, 3, 33, 70), (1, 3, 420, 500), (2, 3, 1, 5)):
        x = torch.randn(shape)
        with torch.no_grad():
            expected = network(x)
        assert expected.std() > 1e-3  # a constant map would agree for the wrong reason
        (actual,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(actual, expected.numpy(), atol=1e-4)
