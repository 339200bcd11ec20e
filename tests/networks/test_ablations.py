"""The papers' ablations as settings: each changes its own parameters and outputs, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geoseg_cli.networks import create_network
from geoseg_cli.networks.chromaformer import VARIANTS as CHROMAFORMER_VARIANTS
from geoseg_cli.networks.lale import VARIANTS as LALE_VARIANTS
from geoseg_cli.networks.lale import LALEConfig

BANDS, CLASSES = 5, 4
CHROMAFORMER: dict[str, Any] = {"embed": 32, "depths": (2, 2, 2, 2), "heads": (1, 2, 4, 8), "head_width": 32}
LALE: dict[str, Any] = {"depths": (2, 2, 1, 1)}
LEMEVIT: dict[str, Any] = {"depths": (1, 1, 1, 1, 1)}


def build(name: str, **config: Any) -> nn.Module:
    """Build a network whose batch norms have seen data, in evaluation mode; the same one every time."""
    torch.manual_seed(0)
    network = create_network(name, BANDS, CLASSES, **config)
    for module in network.modules():
        # Initial weights of Swin are so small that attention and its neighbours hardly show.
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1.5 * module.in_features**-0.5)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randn(2, BANDS, 64, 64))
    return network.eval()


def image() -> Tensor:
    return torch.randn(2, BANDS, 64, 96, generator=torch.Generator().manual_seed(1))


def twins(name: str, base: dict[str, Any], change: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Build a network and one with a changed setting, and give both the same weights wherever they fit."""
    one, other = build(name, **base), build(name, **(base | change))
    wanted = other.state_dict()
    shared = {
        key: value for key, value in one.state_dict().items() if key in wanted and shapes_agree(value, wanted[key])
    }
    other.load_state_dict(shared, strict=False)
    return one, other


def shapes_agree(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape


def changed_parameters(one: nn.Module, other: nn.Module) -> set[str]:
    """Name the parameters that only one of two networks has, or in another shape."""
    left, right = ({name: value.shape for name, value in net.named_parameters()} for net in (one, other))
    return {name for name in left.keys() | right.keys() if left.get(name) != right.get(name)}


def all_below(names: Iterable[str], *parts: str) -> bool:
    return all(any(name.startswith(part) for part in parts) for name in names)


def output_of(network: nn.Module, part: str) -> Tensor:
    """Record what a part of a network gives when the network runs on the image."""
    recorded: list[Tensor] = []
    handle = network.get_submodule(part).register_forward_hook(lambda _, inputs, output: recorded.append(output))
    logits_of(network)
    handle.remove()
    return recorded[0]


def logits_of(network: nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network(image())
    return logits


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def maps_of(network: nn.Module) -> list[Tensor]:
    with torch.no_grad():
        maps: list[Tensor] = network.backbone(image())  # type: ignore[operator]
    return maps


def is_same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other)


def is_different(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) > 1e-3 * float(one.std())


@pytest.mark.parametrize("sdm", ["bands", "tokens"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_spectral_module_changes_the_maps_from_its_stage_on(sdm: str, stage: int) -> None:
    change = {"sdm": sdm, "sdm_stage": stage}
    plain, spectral = twins("chromaformer-t", CHROMAFORMER | {"sdm": "none"}, change)
    parts = {"query", "key", "value"}
    assert changed_parameters(plain, spectral) == {f"backbone.sdm.{part}.weight" for part in parts}
    for number, (one, other) in enumerate(zip(maps_of(plain), maps_of(spectral), strict=True), start=1):
        assert is_different(one, other) if number >= stage else is_same(one, other)
    assert is_different(logits_of(plain), logits_of(spectral))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_stage_of_the_spectral_module_only_moves_it(stage: int) -> None:
    with torch.device("meta"):
        plain, moved = (create_network("chromaformer-t", 11, 15, **config) for config in (
            {"sdm": "none"}, {"sdm_stage": stage}
        ))  # fmt: skip
    # Three projections of a band's patch, 4 x 4 pixels at the first stage, to the channels of the stage.
    assert count(moved) - count(plain) == 3 * (4 * 2 ** (stage - 1)) ** 2 * 96 * 2 ** (stage - 1)


def test_band_embeddings_of_zero_change_nothing_and_others_everything() -> None:
    unnamed, named = twins("chromaformer-t", CHROMAFORMER, {"use_band_embedding": True})
    assert changed_parameters(unnamed, named) == {"backbone.sdm.embedding"}
    embedding = named.get_parameter("backbone.sdm.embedding")
    nn.init.zeros_(embedding)
    torch.testing.assert_close(logits_of(named), logits_of(unnamed), atol=1e-4, rtol=0)
    nn.init.normal_(embedding)
    assert all(is_different(one, other) for one, other in zip(maps_of(unnamed), maps_of(named), strict=True))


CONTEXTS = {
    # published: psp+aspp
    "psp+psp": ("coarse_context",),
    "aspp+aspp": ("fine_context",),
    "aspp+psp": ("fine_context", "coarse_context"),
}


@pytest.mark.parametrize(("context", "exchanged"), CONTEXTS.items())
def test_a_context_is_exchanged_alone(context: str, exchanged: tuple[str, ...]) -> None:
    published, other = twins("mscloudcam-small", {}, {"context": context})
    changed = changed_parameters(published, other)
    assert all_below(changed, *(f"{part}." for part in exchanged))
    assert {name.split(".")[0] for name in changed} == set(exchanged)
    for one, two in zip(maps_of(published), maps_of(other), strict=True):
        assert is_same(one, two)
    for part in ("fine_context", "coarse_context"):
        agree = is_different if part in exchanged else is_same
        assert agree(output_of(published, part), output_of(other, part))
    assert is_different(logits_of(published), logits_of(other))


def test_the_dilations_change_what_the_dilated_context_sees_alone() -> None:
    published, other = twins("mscloudcam-small", {}, {"dilations": (1, 2, 3)})
    assert changed_parameters(published, other) == set()
    assert is_same(output_of(published, "fine_context"), output_of(other, "fine_context"))
    # At 64 x 96 pixels f4 is 2 x 3: the published dilations see padding alone beside the middle, a step of 1 does not.
    assert is_different(output_of(published, "coarse_context.dilated.0"), output_of(other, "coarse_context.dilated.0"))
    assert is_same(output_of(published, "coarse_context.dilated.2"), output_of(other, "coarse_context.dilated.2"))


def test_the_concatenation_alone_is_the_network_without_its_cross_attention() -> None:
    connected, absent = twins("mscloudcam-small", {}, {"cam": "absent"})
    assert {name.split(".")[0] for name in changed_parameters(connected, absent)} == {"cam"}
    _, bypassed = twins("mscloudcam-small", {}, {"cam": "bypassed"})
    assert changed_parameters(connected, bypassed) == set()
    assert is_same(logits_of(absent), logits_of(bypassed))
    assert is_different(logits_of(connected), logits_of(absent))
    for part in ("backbone.patch_embedding", "fine_context", "coarse_context"):
        assert is_same(output_of(connected, part), output_of(absent, part))


def test_keys_and_values_from_the_concatenation_change_their_projections_alone() -> None:
    published, other = twins("mscloudcam-small", {}, {"cam_keys": "concat"})
    assert changed_parameters(published, other) == {"cam.key.weight", "cam.value.weight"}
    with torch.no_grad():
        published_map, other_map = (net._mix(image()) for net in (published, other))  # type: ignore[operator]
    assert is_different(published_map, other_map)
    assert is_same(output_of(published, "cam.query"), output_of(other, "cam.query"))


def test_keys_that_ignore_the_other_half_of_the_concatenation_are_the_published_ones() -> None:
    published, other = twins("mscloudcam-small", {}, {"cam_keys": "concat"})
    context = published.get_parameter("cam.key.weight").shape[1]
    with torch.no_grad():
        for part in ("key", "value"):
            wide = other.get_parameter(f"cam.{part}.weight")
            wide.zero_()
            wide[:, context:] = published.get_parameter(f"cam.{part}.weight")  # the fine context comes second
    torch.testing.assert_close(logits_of(other), logits_of(published), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "parameters"),
    [
        ({"use_channel_gate": False}, {"channel_gate.neighbours.weight"}),
        ({"use_spatial_gate": False}, {"spatial_gate.convolution.weight"}),
    ],
)
def test_a_gate_goes_with_its_one_kernel(change: dict[str, Any], parameters: set[str]) -> None:
    published, other = twins("mscloudcam-small", {}, change)
    assert changed_parameters(published, other) == parameters
    assert is_same(output_of(published, "bottleneck"), output_of(other, "bottleneck"))
    assert is_different(logits_of(published), logits_of(other))


@pytest.mark.parametrize("tokens", [1, 4, 64])
def test_the_number_of_meta_tokens_changes_them_alone(tokens: int) -> None:
    published, other = twins("lemevit-tiny-light", LEMEVIT, {"meta_tokens": tokens})
    assert changed_parameters(published, other) == {"backbone.meta_tokens"}
    assert other.get_parameter("backbone.meta_tokens").shape == (tokens, 64)
    assert is_same(output_of(published, "backbone.stem"), output_of(other, "backbone.stem"))
    assert all(is_different(one, two) for one, two in zip(maps_of(published), maps_of(other), strict=True))


def test_the_head_of_lemevit_is_exchanged_alone() -> None:
    published, light = twins("lemevit-tiny-light", LEMEVIT, {"decoder": "upernet"})
    assert {name.split(".")[0] for name in changed_parameters(published, light)} == {"decoder"}
    assert all(is_same(one, two) for one, two in zip(maps_of(published), maps_of(light), strict=True))


def mixer(stage: int, part: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(f"stages.{stage}.") and part in name


def test_the_mixers_kernel_changes_their_depthwise_weights_alone() -> None:
    three, seven = twins("lale-s1", LALE, {"kernel": 7})
    changed = changed_parameters(three, seven)
    assert changed == {
        name for name, _ in three.named_parameters() if any(mixer(stage, "spatial.0.weight")(name) for stage in (0, 1))
    }
    assert is_same(output_of(three, "stem"), output_of(seven, "stem"))
    assert is_different(output_of(three, "stages.0"), output_of(seven, "stages.0"))
    with torch.no_grad():
        for name in changed:
            wide = seven.get_parameter(name)
            wide.zero_()
            wide[..., 2:5, 2:5] = three.get_parameter(name)
    torch.testing.assert_close(logits_of(seven), logits_of(three), atol=1e-4, rtol=0)


def test_the_norm_changes_gains_to_gains_and_shifts() -> None:
    rms, layer = twins("lale-s1", LALE, {"norm": "layer"})
    gains = {name.removesuffix(".gain") for name, _ in rms.named_parameters() if name.endswith(".gain")}
    expected = {f"{norm}.{part}" for norm in gains for part in ("gain", "weight", "bias")}
    assert changed_parameters(rms, layer) == expected
    assert is_same(output_of(rms, "stem.0"), output_of(layer, "stem.0"))
    assert is_different(output_of(rms, "stem.1"), output_of(layer, "stem.1"))


def test_the_activation_takes_its_two_scalars_with_it() -> None:
    star, gelu = twins("lale-s1", LALE, {"activation": "gelu"})
    changed = changed_parameters(star, gelu)
    assert {name.rsplit(".", 1)[1] for name in changed} == {"scale", "bias"}
    assert all(star.get_parameter(name).numel() == 1 for name in changed)
    activations = 2 + 2 * (2 + 2) + 2 + 1  # stem, mixers, transformers, decoder
    assert count(star) - count(gelu) == len(changed) == 2 * activations
    assert is_same(output_of(star, "stem.1"), output_of(gelu, "stem.1"))
    assert is_different(output_of(star, "stem.2"), output_of(gelu, "stem.2"))


def test_the_baseline_of_lale_differs_in_kernel_norm_and_activation_alone() -> None:
    for scale in (1, 2, 3, 4):
        expected = replace(LALE_VARIANTS[f"s{scale}"], kernel=7, norm="layer", activation="gelu")
        assert LALE_VARIANTS[f"s{scale}-k7"] == expected


def test_the_ratio_of_the_mixers_changes_their_pointwise_step_alone() -> None:
    one, two = twins("lale-s1", LALE, {"mixer_ratio": 2})
    assert all(any(mixer(stage, ".channel.0.")(name) for stage in (0, 1)) for name in changed_parameters(one, two))
    assert is_same(output_of(one, "stages.0.0.spatial"), output_of(two, "stages.0.0.spatial"))
    assert is_different(output_of(one, "stages.0"), output_of(two, "stages.0"))


def test_the_second_residual_of_the_mixers_has_no_parameters() -> None:
    with_it, without = twins("lale-s1", LALE, {"keep_pointwise_residual": False})
    assert changed_parameters(with_it, without) == set()
    assert is_same(output_of(with_it, "stem"), output_of(without, "stem"))
    assert is_different(output_of(with_it, "stages.0"), output_of(without, "stages.0"))


def test_the_published_settings_are_the_defaults() -> None:
    lale, chromaformer = LALEConfig(), CHROMAFORMER_VARIANTS["t"]
    assert (lale.kernel, lale.norm, lale.activation) == (3, "rms", "star")
    assert (chromaformer.sdm, chromaformer.sdm_stage) == ("bands", 1)
    cloud = create_network("mscloudcam-small", BANDS, CLASSES).config
    assert (cloud.context, cloud.cam, cloud.cam_keys) == ("psp+aspp", "connected", "context")  # type: ignore[union-attr]
    assert create_network("lemevit-tiny-light", BANDS, CLASSES).config.meta_tokens == 16  # type: ignore[union-attr]
