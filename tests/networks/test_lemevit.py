"""LeMeViT against its published figures, the rules of its three kinds of blocks, and export."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.networks import lemevit_blocks
from geoseg_cli.networks.attention import DotProductAttention, set_explicit_attention
from geoseg_cli.networks.lemevit import (
    VARIANTS,
    LeMeViT,
    LeMeViTBackbone,
    LeMeViTClassifier,
    LeMeViTConfig,
)
from geoseg_cli.networks.lemevit_blocks import (
    CrossBlock,
    DualBlock,
    DualCrossAttention,
    SelfBlock,
    scale_image_scores,
)

Run = Callable[[Tensor], Tensor]
PUBLISHED = ("tiny", "small", "base")
SMALL = LeMeViTConfig((1, 1, 1, 1, 1), (32, 32, 64, 64, 96), decoder_width=32, auxiliary_width=32)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def count_gmacs(network: nn.Module, size: int, *operators: str) -> float:
    """Count the operators that the published figures count: convolutions and linear layers."""
    counter = pytest.importorskip("fvcore.nn")
    with torch.no_grad():
        analysis = counter.FlopCountAnalysis(network.eval(), torch.rand(1, 3, size, size))
        counts = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return float(sum(counts[operator] for operator in ("conv", "linear", *operators))) / 1e9


def enliven(network: nn.Module) -> nn.Module:
    """Enlarge the initial weights, so that attention is far from uniform and a wrong scale shows."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            spread = 1.5 * module.in_features**-0.5
            nn.init.normal_(module.weight, std=spread, generator=generator)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 4, 64, 64, generator=generator))  # gives BatchNorm its statistics
    return network.eval()


@pytest.mark.parametrize(
    ("variant", "imagenet", "millionaid", "segmentation", "backbone"),
    [
        ("tiny", 8_635_816, 8_331_187, 37_052_618, 8_314_816),
        ("small", 16_400_456, 16_035_091, 45_588_842, 16_015_456),
        ("base", 53_098_152, 52_611_315, 83_190_730, 52_585_152),
    ],
)
def test_parameters_match_to_the_unit(
    variant: str, imagenet: int, millionaid: int, segmentation: int, backbone: int
) -> None:
    config = VARIANTS[variant]
    with torch.device("meta"):
        assert parameters(LeMeViTClassifier(3, 1000, config=config)) == imagenet
        assert parameters(LeMeViTClassifier(3, 51, config=config)) == millionaid
        assert parameters(LeMeViT(3, 5, config=config)) == segmentation
        assert parameters(LeMeViTBackbone(3, config)) == backbone


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("tiny-light", 8_352_458), ("small-light", 15_644_458), ("base-light", 51_860_042)],
)
def test_light_variants_are_as_small_as_documented(variant: str, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(LeMeViT(3, 5, config=VARIANTS[variant])) == expected


@pytest.mark.parametrize(("variant", "expected"), [("tiny", 8_317_120), ("small", 16_018_912), ("base", 52_588_608)])
def test_backbones_of_eleven_bands_match_to_the_unit(variant: str, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(LeMeViTBackbone(11, VARIANTS[variant])) == expected


@pytest.mark.parametrize(
    ("variant", "stem", "halvings", "meta_mlps", "stages", "tokens", "norms"),
    [
        ("tiny", 19_584, [74_112, 221_760, 553_920], [33_728, 33_728, 50_304, 165_952, 396_480],
         [50_624, 134_528, 531_200, 3_574_272, 2_472_320], 1_024, 1_280),
        ("small", 43_200, [166_464, 553_920, 1_107_072], [75_168, 75_168, 112_320, 396_480, 906_112],
         [112_800, 300_096, 1_190_016, 7_416_960, 3_556_608], 1_536, 1_536),
        ("base", 43_200, [166_464, 664_704, 1_771_008], [75_168, 75_168, 112_320, 445_824, 1_382_400],
         [225_600, 600_192, 2_380_032, 32_009_472, 12_630_016], 1_536, 2_048),
    ],
)  # fmt: skip
def test_every_part_has_its_share_of_parameters(
    variant: str,
    stem: int,
    halvings: list[int],
    meta_mlps: list[int],
    stages: list[int],
    tokens: int,
    norms: int,
) -> None:
    with torch.device("meta"):
        network = LeMeViTBackbone(3, VARIANTS[variant])
    assert network.image_norm is not None
    assert network.meta_norm is not None
    assert parameters(network.stem) == stem
    assert [parameters(one) for one in network.halvings] == halvings
    assert [parameters(one) for one in network.meta_mlps] == meta_mlps
    assert [parameters(one) for one in network.stages] == stages
    assert network.meta_tokens.numel() == tokens
    assert parameters(network.image_norm) + parameters(network.meta_norm) == norms


@pytest.mark.parametrize(("variant", "tail"), [("tiny", 563_712), ("small", 1_304_128), ("base", 1_830_272)])
def test_light_variants_leave_the_dead_weights_of_the_meta_tail_out(variant: str, tail: int) -> None:
    with torch.device("meta"):
        whole, light = (LeMeViTBackbone(3, VARIANTS[variant + suffix]) for suffix in ("", "-light"))
    assert parameters(whole) - parameters(light) == tail


def test_the_meta_tail_changes_no_map() -> None:
    whole = LeMeViT(4, 3, config=SMALL).eval()
    light = LeMeViT(4, 3, config=replace(SMALL, keep_meta_tail=False)).eval()
    left_over = light.load_state_dict(whole.state_dict(), strict=False)
    assert not left_over.missing_keys
    x = torch.rand(2, 4, 40, 56)
    assert torch.equal(light(x), whole(x))


@pytest.mark.parametrize(("variant", "published"), [("tiny", 1.779), ("small", 3.736), ("base", 11.060)])
def test_multiply_adds_of_classification_at_224_match_without_attention(variant: str, published: float) -> None:
    network = LeMeViTClassifier(3, 1000, config=VARIANTS[variant])
    assert count_gmacs(network, 224) == pytest.approx(published, rel=0.005)


def test_multiply_adds_of_tiny_at_224_match_with_attention() -> None:
    network = LeMeViTClassifier(3, 1000, config=VARIANTS["tiny"])
    set_explicit_attention(network)
    assert count_gmacs(network, 224, "matmul") == pytest.approx(1.946, rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "published"), [("tiny", 217.88), ("small", 228.16), ("base", 263.75)])
def test_multiply_adds_of_segmentation_at_512_match_the_published(variant: str, published: float) -> None:
    assert count_gmacs(LeMeViT(3, 5, config=VARIANTS[variant]), 512) == pytest.approx(published, rel=0.005)


def test_cost_of_a_dual_block_is_linear_in_the_pixels() -> None:
    counter = pytest.importorskip("fvcore.nn")
    block = DualBlock(64, 0.0).eval()
    set_explicit_attention(block)
    meta_share, costs = 0.0, []
    for height in (32, 64, 128):
        inputs = (torch.rand(1, 64, height, 32), torch.rand(1, 16, 64))
        analysis = counter.FlopCountAnalysis(block, inputs).unsupported_ops_warnings(False)
        costs.append(float(analysis.uncalled_modules_warnings(False).total()))
    meta_share = 2 * costs[0] - costs[1]  # what does not grow: the meta tokens' own layers
    assert 0 < meta_share < 0.05 * costs[0]
    assert costs[2] - meta_share == pytest.approx(4 * (costs[0] - meta_share), rel=1e-9)


def test_permuting_meta_tokens_leaves_the_image_and_permutes_the_tokens() -> None:
    block, order = DualBlock(64, 0.0).eval(), torch.randperm(16)
    image, meta = torch.randn(2, 64, 6, 9), torch.randn(2, 16, 64)
    new_image, new_meta = block(image, meta)
    permuted_image, permuted_meta = block(image, meta[:, order])
    torch.testing.assert_close(permuted_image, new_image, atol=1e-6, rtol=0)
    torch.testing.assert_close(permuted_meta, new_meta[:, order], atol=1e-6, rtol=0)


def test_image_and_meta_tokens_read_each_other_in_dual_blocks() -> None:
    block = DualBlock(64, 0.0).eval()
    image, meta = torch.randn(1, 64, 4, 4), torch.randn(1, 16, 64)
    new_image, new_meta = block(image, meta)
    other_image, _ = block(image, torch.randn(1, 16, 64))
    _, other_meta = block(torch.randn(1, 64, 4, 4), meta)
    assert not torch.equal(other_image, new_image)
    assert not torch.equal(other_meta, new_meta)


def test_self_blocks_treat_image_and_meta_tokens_apart() -> None:
    block = SelfBlock(64, 0.0).eval()
    image, meta = torch.randn(1, 64, 4, 4), torch.randn(1, 16, 64)
    new_image, new_meta = block(image, meta)
    assert torch.equal(block(image, torch.randn(1, 16, 64))[0], new_image)
    assert torch.equal(block(image, None)[0], new_image)
    assert torch.equal(block(torch.randn(1, 64, 4, 4), meta)[1], new_meta)


def test_cross_blocks_hand_the_image_through_untouched() -> None:
    block = CrossBlock(64, 0.0).eval()
    image, meta = torch.randn(1, 64, 4, 4), torch.randn(1, 16, 64)
    new_image, new_meta = block(image, meta)
    assert torch.equal(new_image, image)
    assert not torch.equal(new_meta, meta)
    assert not torch.equal(block(torch.randn(1, 64, 4, 4), meta)[1], new_meta)


def test_dual_attention_equals_its_formula() -> None:
    layer = DualCrossAttention(64)
    image, meta = torch.randn(1, 30, 64), torch.randn(1, 16, 64)
    image_query, image_key, image_value = layer.image_qkv(image)[0].chunk(3, dim=-1)
    meta_query, meta_key, meta_value = layer.meta_qkv(meta)[0].chunk(3, dim=-1)
    image_read, meta_read = [], []
    for one in (slice(0, 32), slice(32, 64)):
        scores = image_query[:, one] @ meta_key[:, one].T * (math.log(16) / math.log(30) / 8)
        image_read.append(torch.softmax(scores, dim=-1) @ meta_value[:, one])
        scores = meta_query[:, one] @ image_key[:, one].T / 8
        meta_read.append(torch.softmax(scores, dim=-1) @ image_value[:, one])
    new_image, new_meta = layer(image, meta)
    torch.testing.assert_close(new_image[0], layer.image_out(torch.cat(image_read, -1)), atol=1e-6, rtol=0)
    torch.testing.assert_close(new_meta[0], layer.meta_out(torch.cat(meta_read, -1)), atol=1e-6, rtol=0)


def test_attention_weights_sum_to_one_over_the_tokens_that_are_read() -> None:
    layer = DualCrossAttention(64)
    seen: list[tuple[int, int]] = []

    def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        query, key, _ = inputs
        ones = module.forward(query, key, torch.ones_like(key))  # weights times ones are their sums
        torch.testing.assert_close(ones, torch.ones_like(query))
        seen.append((query.shape[2], key.shape[2]))

    for module in layer.modules():
        if isinstance(module, DotProductAttention):
            module.register_forward_pre_hook(check)
    layer(torch.randn(1, 30, 64), torch.randn(1, 16, 64))
    assert seen == [(30, 16), (16, 30)]


@pytest.mark.parametrize("positions", [2, 16, 1000, 16_384])
def test_image_scores_are_scaled_by_a_logarithm_to_the_base_of_the_positions(positions: int) -> None:
    scale = scale_image_scores(torch.zeros(1, positions, 64), 16, 64)
    assert float(scale) == pytest.approx(math.log(16, positions) / 8, rel=1e-6)


def test_sixteen_positions_for_sixteen_tokens_need_no_correction() -> None:
    assert float(scale_image_scores(torch.zeros(1, 16, 64), 16, 64)) == pytest.approx(1 / 8)


def test_one_position_is_scaled_like_two() -> None:
    assert float(scale_image_scores(torch.zeros(1, 1, 64), 16, 64)) == pytest.approx(4 / 8)


@pytest.mark.parametrize("size", [(225, 223), (33, 47), (1, 1), (2, 65)])
@pytest.mark.parametrize("decoder", ["upernet", "mlp"])
def test_any_size_comes_back_finite(size: tuple[int, int], decoder: str) -> None:
    config = replace(SMALL, decoder=decoder)  # type: ignore[arg-type]
    with torch.no_grad():
        logits = LeMeViT(4, 5, config=config).eval()(torch.rand(2, 4, *size))
    assert logits.shape == (2, 5, *size)
    assert bool(logits.isfinite().all())


def test_maps_have_strides_four_to_thirty_two_rounded_up() -> None:
    maps = LeMeViTBackbone(4, SMALL).eval()(torch.rand(1, 4, 225, 223))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (32, 57, 56), (64, 29, 28), (64, 15, 14), (96, 8, 7)
    ]  # fmt: skip


def test_training_returns_main_and_auxiliary_logits_and_evaluation_the_main_ones() -> None:
    network, x = LeMeViT(4, 5, config=SMALL), torch.rand(2, 4, 33, 47)
    main, auxiliary = network.train()(x)
    assert main.shape == auxiliary.shape == (2, 5, 33, 47)
    assert isinstance(network.eval()(x), Tensor)


def test_every_weight_but_those_of_late_meta_tokens_gets_a_gradient() -> None:
    network = LeMeViT(4, 5, config=replace(SMALL, keep_meta_tail=False, drop_path=0.0))
    labels = torch.randint(5, (2, 64, 64))
    logits = network(torch.rand(2, 4, 64, 64))
    torch.autograd.backward(torch.stack([F.cross_entropy(one, labels) for one in logits]).sum())
    without = {name for name, one in network.named_parameters() if one.grad is None}
    # what the last dual block gives to the meta tokens reaches no map
    assert without == {f"backbone.stages.2.0.attention.meta_out.{part}" for part in ("weight", "bias")}


def test_spelled_out_attention_equals_the_fused_one() -> None:
    network, x = enliven(LeMeViT(4, 5, config=SMALL)), torch.rand(2, 4, 40, 56)
    fused = network(x)
    set_explicit_attention(network)
    torch.testing.assert_close(network(x), fused, atol=1e-4, rtol=0)


def test_number_of_meta_tokens_is_a_setting() -> None:
    network = LeMeViT(4, 5, config=replace(SMALL, meta_tokens=5)).eval()
    assert network.backbone.meta_tokens.shape == (5, 32)
    assert network(torch.rand(1, 4, 32, 32)).shape == (1, 5, 32, 32)


def test_classification_without_the_meta_tail_is_refused() -> None:
    network = LeMeViTClassifier(4, 5, config=replace(SMALL, keep_meta_tail=False)).eval()
    with pytest.raises(ModelError, match="meta tail"):
        network(torch.rand(1, 4, 32, 32))


@pytest.mark.parametrize(
    ("change", "word"),
    [({"widths": (48, 48, 64, 64, 96)}, "48"), ({"widths": (32, 64, 64, 64, 96)}, "first two"),
     ({"meta_tokens": 0}, "meta tokens"), ({"decoder": "fpn"}, "decoder")],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(change: dict[str, object], word: str) -> None:
    with pytest.raises(ModelError, match=word) as caught:
        replace(SMALL, **change)  # type: ignore[arg-type]
    assert caught.value.hint


def check_export(network: nn.Module, export: Callable[[nn.Module, int], Run]) -> None:
    run = export(enliven(network), 4)
    for shape in ((1, 4, 128, 192), (3, 4, 250, 230), (1, 4, 33, 47)):
        x = torch.rand(shape)
        expected = network(x)
        assert float(expected.std()) > 0.05  # flat logits would hide an error
        torch.testing.assert_close(run(x), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_exported_graph_equals_the_network_at_sizes_never_traced(
    export_dynamic: Callable[[nn.Module, int], Run],
) -> None:
    check_export(LeMeViT(4, 5, config=SMALL), export_dynamic)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variant", ["tiny", "tiny-light"])
def test_exported_tiny_equals_the_network_at_sizes_never_traced(
    variant: str, export_dynamic: Callable[[nn.Module, int], Run]
) -> None:
    check_export(LeMeViT(4, 5, config=VARIANTS[variant]), export_dynamic)


class OneDualBlock(nn.Module):
    """The smallest network with the scale that depends on the number of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(4, 64, 4, stride=4)
        self.meta_tokens = nn.Parameter(torch.randn(16, 64))
        self.block = DualBlock(64, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        image, _ = self.block(self.embed(x), self.meta_tokens.expand(x.shape[0], -1, -1))
        assert isinstance(image, Tensor)
        return image


def freeze_logarithm(tokens: Tensor, meta_tokens: int, width: int) -> Tensor:
    """Compute the scale the obvious way, with Python's logarithm."""
    return torch.tensor(math.log(meta_tokens) / math.log(tokens.shape[1]) * width**-0.5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("is_naive", "is_right"), [(False, True), (True, False)])
def test_a_python_logarithm_is_silently_wrong_after_export_and_ours_is_not(
    is_naive: bool,
    is_right: bool,
    export_dynamic: Callable[[nn.Module, int], Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, x = enliven(OneDualBlock()), torch.rand(1, 4, 128, 192)
    expected = network(x)
    if is_naive:
        monkeypatch.setattr(lemevit_blocks, "scale_image_scores", freeze_logarithm)
    error = float((export_dynamic(network, 4)(x) - expected).detach().abs().max())
    assert math.isfinite(error)
    assert (error < 1e-4) is is_right
