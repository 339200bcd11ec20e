"""LALE against its published and derived figures, and its behaviour at any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.networks.attention import DotProductAttention, set_explicit_attention
from geoseg_cli.networks.counting import count_macs
from geoseg_cli.networks.lale import LALE, VARIANTS, Attention, LALEConfig, RMSNorm, StarReLU

Run = Callable[[Tensor], Tensor]
SMALL = replace(VARIANTS["s1"], depths=(1, 1, 1, 1))
NEAR = replace(SMALL, reach=(3, 1))

PARAMETERS = {
    "s1": 1_567_417, "s2": 2_613_525, "s3": 3_659_633, "s4": 4_705_741,
    "s1-k7": 1_596_519, "s2-k7": 2_671_559, "s3-k7": 3_746_599, "s4-k7": 4_821_639,
}  # fmt: skip
GMACS = {"s1": 0.587, "s2": 0.779, "s1-k7": 0.6606, "s2-k7": 0.9223}


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def count_gmacs(network: LALE, size: int) -> float:
    """Count as the published figures do: attention spelled out, stages concatenated before they are fused."""
    counter = pytest.importorskip("fvcore.nn")
    network.decoder.is_concatenating = True
    set_explicit_attention(network.eval())
    analysis = counter.FlopCountAnalysis(network, torch.rand(1, 3, size, size))
    return float(analysis.unsupported_ops_warnings(False).total()) / 1e9


@pytest.mark.parametrize(("variant", "expected"), PARAMETERS.items())
def test_parameters_match_to_the_unit(variant: str, expected: int) -> None:
    assert parameters(LALE(3, 7, config=VARIANTS[variant])) == expected


@pytest.mark.parametrize(("bands", "expected"), [(4, 1_567_561), (11, 1_568_569), (13, 1_568_857)])
def test_each_extra_band_costs_144_parameters(bands: int, expected: int) -> None:
    assert parameters(LALE(bands, 7)) == expected


def test_every_part_of_s1_has_its_share_of_parameters() -> None:
    network = LALE(3, 7)
    stages: list[nn.Sequential] = list(network.stages)  # type: ignore[arg-type]
    assert parameters(network.stem) == 5_140
    assert sum(parameters(stage[0]) for stage in stages[1:]) == 387_520
    blocks = [stages[0], *(stage[1:] for stage in stages[1:])]
    assert [parameters(one) for one in blocks] == [10_108, 34_524, 202_754, 798_722]
    decoder_parts = (network.decoder.project, network.decoder.fuse, network.decoder.classify)
    assert [parameters(part) for part in decoder_parts] == [61_952, 65_794, 903]


def test_stored_values_fit_the_published_sizes_in_mebibytes() -> None:
    for variant, published in (("s1", 5.98), ("s2", 9.97)):
        assert round(4 * parameters(LALE(3, 7, config=VARIANTS[variant])) / 2**20, 2) == published


@pytest.mark.parametrize(("variant", "expected"), GMACS.items())
def test_multiply_adds_at_256_match_within_one_percent(variant: str, expected: float) -> None:
    assert count_gmacs(LALE(3, 7, config=VARIANTS[variant]), 256) == pytest.approx(expected, rel=0.01)


def test_fusing_before_raising_saves_three_tenths_of_the_multiply_adds() -> None:
    counter = pytest.importorskip("fvcore.nn")
    network = LALE(3, 7).eval()
    published = count_gmacs(network, 256)
    network.decoder.is_concatenating = False
    analysis = counter.FlopCountAnalysis(network, torch.rand(1, 3, 256, 256))
    assert float(analysis.unsupported_ops_warnings(False).total()) / 1e9 < 0.7 * published


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(1, 1000), seed=st.integers(0, 2**31))
def test_rms_norm_gives_unit_mean_square_and_ignores_scale(scale: float, seed: int) -> None:
    x = torch.randn(2, 16, 3, 5, generator=torch.Generator().manual_seed(seed)) + 0.5
    norm = RMSNorm(16)
    torch.testing.assert_close(norm(x).square().mean(dim=1), torch.ones(2, 3, 5), atol=1e-4, rtol=0)
    torch.testing.assert_close(norm(scale * x), norm(x), atol=1e-4, rtol=0)


def test_rms_norm_notices_an_added_constant() -> None:
    x = torch.randn(1, 16, 3, 5)
    assert float((RMSNorm(16)(x + 1) - RMSNorm(16)(x)).detach().abs().max()) > 0.1


def test_rms_norm_stays_finite_in_half_precision() -> None:
    assert bool(RMSNorm(16)(torch.full((1, 16, 2, 2), 3e4, dtype=torch.float16)).isfinite().all())


def test_star_relu_is_its_bias_below_zero_and_scale_plus_bias_at_one() -> None:
    star = StarReLU()
    at_minus_three, at_one = star(torch.tensor([-3.0, 1.0])).tolist()
    assert at_minus_three == pytest.approx(-0.4472)
    assert at_one == pytest.approx(0.8944 - 0.4472)


def test_star_relu_standardises_unit_normal_inputs() -> None:
    x = StarReLU()(torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))).detach()
    assert float(x.mean()) == pytest.approx(0, abs=0.01)
    assert float(x.std()) == pytest.approx(1, abs=0.01)


def test_attention_runs_only_at_a_sixteenth_and_a_thirty_second() -> None:
    network = LALE(3, 7).eval()
    tokens: list[int] = []
    for module in network.modules():
        if isinstance(module, DotProductAttention):
            module.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].shape[-2]))
    network(torch.rand(1, 3, 128, 192))
    assert tokens == [8 * 12, 4 * 6]


def test_spelled_out_attention_equals_the_fused_one() -> None:
    network, x = LALE(3, 7).eval(), torch.rand(2, 3, 64, 96)
    fused = network(x)
    set_explicit_attention(network)
    torch.testing.assert_close(network(x), fused, atol=1e-5, rtol=0)


def test_attention_weighs_all_positions_as_written_by_hand() -> None:
    layer, x = Attention(8, 2), torch.randn(1, 8, 2, 3)
    tokens = x.flatten(2).transpose(1, 2)[0]  # (6, 8)
    query, key, value = layer.qkv(tokens).chunk(3, dim=-1)
    heads = [
        torch.softmax(query[:, one] @ key[:, one].T / 4**0.5, dim=-1) @ value[:, one]
        for one in (slice(0, 4), slice(4, 8))
    ]
    expected = layer.out(torch.cat(heads, dim=-1)).T.reshape(1, 8, 2, 3)
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize(("height", "width", "reach"), [(5, 7, 2), (13, 9, 3), (4, 8, 1), (1, 1, 4), (17, 3, 5)])
def test_attention_with_a_reach_weighs_the_positions_around_as_written_by_hand(
    explicit: bool, height: int, width: int, reach: int
) -> None:
    layer, x = Attention(8, 2, reach), torch.randn(1, 8, height, width)
    layer.attend.explicit = explicit
    tokens = x.flatten(2).transpose(1, 2)[0].reshape(height, width, 8)
    expected = torch.empty(1, 8, height, width)
    for row in range(height):
        for column in range(width):
            rows = slice(max(0, row - reach), row + reach + 1)
            near = tokens[rows, max(0, column - reach) : column + reach + 1].reshape(-1, 8)
            query, (_, key, value) = layer.qkv(tokens[row, column])[:8], layer.qkv(near).split(8, dim=-1)
            heads = [
                torch.softmax(key[:, one] @ query[one] / 4**0.5, dim=0) @ value[:, one]
                for one in (slice(0, 4), slice(4, 8))
            ]
            expected[0, :, row, column] = layer.out(torch.cat(heads))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)


def excited(config: LALEConfig) -> LALE:
    """A network whose attention weighs more than random weights make it weigh."""
    torch.manual_seed(3)
    network = LALE(3, 7, config=config).eval()
    for module in network.modules():
        if isinstance(module, Attention):
            nn.init.normal_(module.qkv.weight, std=3 * module.qkv.in_features**-0.5)
    return network


@torch.no_grad()
def test_with_a_reach_the_surroundings_decide_and_not_the_tile() -> None:
    everywhere, near = excited(SMALL), excited(NEAR)
    x = torch.rand(1, 3, 768, 768, generator=torch.Generator().manual_seed(1))
    inside = slice(352, 416)

    def differ(network: LALE) -> float:
        whole, tile = network(x), network(x[..., 128:640, 128:640])
        return float((whole[..., inside, inside] - tile[..., 224:288, 224:288]).abs().max())

    assert differ(near) < 1e-5
    assert differ(everywhere) > 1e-3


@torch.no_grad()
def test_a_reach_changes_nothing_where_all_of_the_image_is_near() -> None:
    x = torch.rand(2, 3, 64, 50)
    torch.testing.assert_close(excited(NEAR)(x), excited(SMALL)(x), atol=5e-6, rtol=0)
    assert parameters(excited(NEAR)) == parameters(excited(SMALL))


def test_without_attention_a_shift_by_32_pixels_only_moves_the_logits() -> None:
    network = LALE(3, 7, config=SMALL).eval()
    for module in network.modules():
        if isinstance(module, Attention):
            nn.init.zeros_(module.out.weight)
    x = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, moved = network(x), network(x.roll((32, 32), (2, 3)))
    inside = slice(192, 352)
    torch.testing.assert_close(
        moved[..., inside, inside], logits.roll((32, 32), (2, 3))[..., inside, inside], atol=1e-5, rtol=0
    )
    assert float((moved - logits).abs().max()) > 1e-3


@pytest.mark.parametrize("size", [(257, 255), (31, 33), (512, 384), (1, 1), (1, 9), (5, 2)])
def test_any_size_comes_back_finite(size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = LALE(3, 7, config=SMALL).eval()(torch.rand(2, 3, *size))
    assert logits.shape == (2, 7, *size)
    assert bool(logits.isfinite().all())


def test_tiles_of_a_batch_do_not_see_each_other() -> None:
    network, x = LALE(3, 7).eval(), torch.rand(3, 3, 40, 56)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), atol=1e-5, rtol=0)


def test_attention_with_a_reach_costs_by_the_pixel_whatever_the_tile() -> None:
    # maps of 24 x 24 and 48 x 48, 12 x 12 and 24 x 24 positions: whole blocks of 6 and of 4, so nothing is filled up
    costs = [count_macs(LALE(3, 7, config=NEAR), 3, side, side) for side in (384, 768)]
    assert costs[1] == 4 * costs[0]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_what_fills_the_last_blocks_becomes_no_nan(precision: torch.dtype) -> None:
    layer = Attention(8, 2, 3).to(precision)
    x = torch.randn(2, 8, 7, 7, dtype=precision, requires_grad=True)
    layer(x).square().sum().backward()
    assert all(bool(one.grad.isfinite().all()) for one in (x, *layer.parameters()) if one.grad is not None)
    assert x.grad is not None
    assert float(x.grad.abs().min()) > 0


@pytest.mark.parametrize("config", [SMALL, NEAR])
def test_every_parameter_gets_a_gradient(config: LALEConfig) -> None:
    network = LALE(3, 7, config=config)
    loss = F.cross_entropy(network(torch.rand(2, 3, 64, 64)), torch.randint(7, (2, 64, 64)))
    torch.autograd.backward(loss)
    assert all(one.grad is not None and float(one.grad.abs().max()) > 0 for one in network.parameters())


def test_pointwise_residual_and_ratio_are_settings() -> None:
    same = LALE(3, 7, config=replace(VARIANTS["s1"], keep_pointwise_residual=False))
    assert parameters(same) == PARAMETERS["s1"]
    # per mixer: C -> 2C -> C instead of C -> C adds 3 C^2 + 2 C weights and biases and one more StarReLU
    added = sum(7 * (3 * width**2 + 2 * width + 2) for width in (32, 64))
    assert parameters(LALE(3, 7, config=replace(VARIANTS["s1"], mixer_ratio=2))) == PARAMETERS["s1"] + added


@pytest.mark.parametrize(
    ("change", "word"),
    [({"kernel": 4}, "kernel"), ({"norm": "batch"}, "norm"), ({"activation": "tanh"}, "activation"),
     ({"heads": (3, 8)}, "heads"), ({"reach": (0, 1)}, "reach"), ({"reach": (3,)}, "reach")],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(change: dict[str, object], word: str) -> None:
    with pytest.raises(ModelError, match=word) as caught:
        LALEConfig(**change)  # type: ignore[arg-type]
    assert caught.value.hint


def check_export(config: LALEConfig, export: Callable[[nn.Module, int], Run]) -> None:
    network = LALE(4, 5, config=config)
    run = export(network, 4)
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
    check_export(SMALL, export_dynamic)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variant", ["s1", "s2", "s1-k7"])
def test_exported_variants_equal_the_network_at_sizes_never_traced(
    variant: str, export_dynamic: Callable[[nn.Module, int], Run]
) -> None:
    check_export(VARIANTS[variant], export_dynamic)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_exported_reach_is_that_of_the_network_at_sizes_never_traced(
    export_dynamic: Callable[[nn.Module, int], Run],
) -> None:
    check_export(NEAR, export_dynamic)
