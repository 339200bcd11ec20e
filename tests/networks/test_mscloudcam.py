"""MSCloudCAM against its published figures, the algebra of its attention, and its behaviour at any size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.networks import create_network
from geoseg_cli.networks.attention import set_explicit_attention
from geoseg_cli.networks.mscloudcam import (
    VARIANTS,
    ChannelGate,
    CrossAttention,
    DilatedPyramid,
    MSCloudCAM,
    MSCloudCAMConfig,
    PyramidContext,
    SpatialGate,
    eca_kernel,
)

Run = Callable[[Tensor], Tensor]
TINY = MSCloudCAMConfig(
    embed=8, depths=(2, 1, 1, 1), heads=(1, 1, 2, 2), window=4, drop_path=0.0,
    context_channels=8, bottleneck=(8, 8, 32), decoder=(16, 8, 8, 8),
)  # fmt: skip


def count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def on_meta(bands: int = 13, classes: int = 4, **changes: object) -> MSCloudCAM:
    with torch.device("meta"):
        return MSCloudCAM(bands, classes, config=replace(VARIANTS["published"], **changes))  # type: ignore[arg-type]


def awake(config: MSCloudCAMConfig = TINY, bands: int = 3, seed: int = 0) -> MSCloudCAM:
    """Build a network whose batch norms have seen data, so that logits in evaluation depend on the image."""
    torch.manual_seed(seed)
    network = MSCloudCAM(bands, 4, config=config)
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(4, bands, 64, 64))
    return network.eval()


def test_published_network_has_47446157_parameters() -> None:
    assert count(on_meta()) == 47_446_157
    assert count(on_meta(bands=11)) == 47_443_085
    assert count(on_meta(bands=3)) == 47_430_797


def test_every_part_has_its_share_of_parameters() -> None:
    network = on_meta()
    assert count(network.backbone) == 27_533_178
    assert count(network.coarse_context) == 9_292_800
    assert count(network.fine_context) == 7_229_568
    assert count(network.cam) == 1_772_544
    assert count(network.bottleneck) == 918_528
    assert count(network.channel_gate) == 5
    assert count(network.spatial_gate) == 98
    assert [count(part) for part in network.decoder] == [525_056, 131_456, 32_960, 8_288]
    assert [count(part) for part in network.auxiliary_heads] == [1_028, 516]
    assert count(network.head) == 132


def test_small_network_stays_below_four_million_parameters() -> None:
    with torch.device("meta"):
        assert count(MSCloudCAM(13, 4, config=VARIANTS["small"])) == 3_896_489


def count_gmacs(config: MSCloudCAMConfig, side_px: int = 512) -> float:
    """Count as published: attention products included, both auxiliary heads running."""
    counter = pytest.importorskip("fvcore.nn")
    network = MSCloudCAM(13, 4, config=config).eval()
    set_explicit_attention(network)
    network.training = True  # only the network itself: its batch norms could not train on one image
    analysis = counter.FlopCountAnalysis(network, torch.rand(1, 13, side_px, side_px))
    return float(analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()) / 1e9


@pytest.mark.slow
@pytest.mark.parametrize(("cam", "expected"), [("connected", 42.380), ("bypassed", 38.958)])
def test_multiply_adds_match_the_published_count(cam: str, expected: float) -> None:
    config = replace(VARIANTS["published"], cam=cam, head_order="upsample-classify")  # type: ignore[arg-type]
    assert count_gmacs(config) == pytest.approx(expected, rel=0.005)


@pytest.mark.slow
def test_classifying_first_saves_the_published_network_814_million_multiply_adds() -> None:
    assert count_gmacs(VARIANTS["published"]) == pytest.approx(41.567, rel=0.005)


def test_small_network_needs_under_a_giga_multiply_add_for_256_px() -> None:
    assert count_gmacs(VARIANTS["small"], 256) == pytest.approx(0.899, rel=0.005)


@pytest.mark.parametrize("head_order", ["classify-upsample", "upsample-classify"])
def test_training_returns_three_logits_and_evaluation_one(head_order: str) -> None:
    network = MSCloudCAM(3, 5, config=replace(TINY, head_order=head_order))  # type: ignore[arg-type]
    x = torch.randn(2, 3, 40, 33)
    outputs = network(x)
    assert isinstance(outputs, tuple)
    assert [output.shape for output in outputs] == [(2, 5, 40, 33)] * 3
    assert network.eval()(x).shape == (2, 5, 40, 33)


def test_classifying_before_upsampling_changes_no_logit() -> None:
    network = awake()
    twin = MSCloudCAM(3, 4, config=replace(TINY, head_order="upsample-classify")).eval()
    twin.load_state_dict(network.state_dict())
    network.training = twin.training = True
    x = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        for logits, twin_logits in zip(network(x), twin(x), strict=True):
            torch.testing.assert_close(logits, twin_logits, atol=1e-5, rtol=1e-5)


def gradient_of_query(cam: str) -> Tensor | None:
    torch.manual_seed(0)
    network = MSCloudCAM(3, 4, config=replace(TINY, cam=cam))  # type: ignore[arg-type]
    main, first, second = network(torch.randn(2, 3, 64, 64))
    torch.autograd.backward((main.square() + first.square() + second.square()).mean())
    assert network.cam is not None
    return network.cam.query.weight.grad


def test_connected_cam_learns() -> None:
    gradient = gradient_of_query("connected")
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_bypassed_cam_gets_no_gradient() -> None:
    assert gradient_of_query("bypassed") is None


def test_cam_weights_of_one_query_sum_to_one() -> None:
    cam = CrossAttention(8, 4, 2)
    nn.init.zeros_(cam.value.weight)
    nn.init.ones_(cam.value.bias)  # type: ignore[arg-type]
    nn.init.eye_(cam.projection.weight.data[:, :, 0, 0])
    nn.init.zeros_(cam.projection.bias)  # type: ignore[arg-type]
    x = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(cam(x, torch.randn(2, 4, 4, 2)), x + 1)


def test_cam_equals_softmax_attention_written_out() -> None:
    torch.manual_seed(0)
    cam = CrossAttention(6, 4, 2)
    x, source = torch.randn(2, 6, 3, 4), torch.randn(2, 4, 3, 4)
    queries, keys, values = (
        part.detach().numpy().reshape(2, 2, 3, 12) for part in (cam.query(x), cam.key(source), cam.value(source))
    )
    scores = np.einsum("nadq,nadk->naqk", queries, keys) / math.sqrt(3)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    found = np.einsum("naqk,nadk->nadq", weights, values).reshape(2, 6, 3, 4)
    expected = x + cam.projection(torch.from_numpy(found))
    torch.testing.assert_close(cam(x, source), expected)


def test_cam_does_not_care_where_keys_lie() -> None:
    torch.manual_seed(0)
    cam = CrossAttention(8, 4, 2)
    x, source = torch.randn(1, 8, 4, 5), torch.randn(1, 4, 4, 5)
    order = torch.randperm(20)
    shuffled = source.flatten(2)[..., order].reshape(source.shape)
    torch.testing.assert_close(cam(x, shuffled), cam(x, source))
    shuffled = x.flatten(2)[..., order].reshape(x.shape)
    torch.testing.assert_close(cam(shuffled, source).flatten(2), cam(x, source).flatten(2)[..., order])


def test_cam_without_projection_returns_its_input() -> None:
    cam = CrossAttention(8, 4, 2)
    nn.init.zeros_(cam.projection.weight)
    nn.init.zeros_(cam.projection.bias)  # type: ignore[arg-type]
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(cam(x, torch.randn(2, 4, 3, 3)), x)


@pytest.mark.parametrize(("channels", "kernel"), [(512, 5), (256, 5), (128, 5), (64, 5), (32, 3)])
def test_channel_gate_chooses_the_published_kernel(channels: int, kernel: int) -> None:
    assert eca_kernel(channels) == kernel
    assert ChannelGate(channels).neighbours.weight.shape == (1, 1, kernel)


def test_channel_gate_lies_between_zero_and_one() -> None:
    gate = ChannelGate(512)
    x = torch.randn(2, 512, 3, 4)
    values = gate.gate(x)
    assert values.shape == (2, 512, 1, 1)
    assert values.min() > 0
    assert values.max() < 1
    assert torch.equal(gate(x), x * values)


def test_spatial_gate_scales_all_channels_of_a_position_alike() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 5, 9, 9) + 0.5
    factor = SpatialGate()(x) / x
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    assert factor.min() > 0
    assert factor.max() < 1


def test_refined_features_are_gated_features_plus_features() -> None:
    network = awake()
    joint = torch.randn(1, 16, 2, 3)
    assert network.channel_gate is not None
    assert network.spatial_gate is not None
    features = network.bottleneck(joint)
    expected = network.spatial_gate(network.channel_gate(features)) + features
    assert torch.equal(network._refine(joint), expected)


def test_first_two_backbone_maps_are_not_used() -> None:
    network = MSCloudCAM(3, 4, config=TINY)
    maps = [features.detach().requires_grad_() for features in network.backbone(torch.randn(2, 3, 64, 64))]
    network.backbone.forward = lambda x: maps  # type: ignore[method-assign]
    torch.autograd.backward(sum(output.square().mean() for output in network(torch.randn(2, 3, 64, 64))))
    assert [features.grad is None for features in maps] == [True, True, False, False]


def test_pyramid_pooling_sees_bin_averages() -> None:
    """The branches of a ramp along the columns see its means over 1, 2, 3 and 6 groups of columns."""
    module = PyramidContext(1, 1).eval()
    seen: list[Tensor] = []
    for branch in module.branches:
        branch.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    module(ramp)
    for bins, pooled in zip((1, 2, 3, 6), seen, strict=True):
        expected = torch.arange(12.0).reshape(bins, -1).mean(1).expand(bins, bins)
        torch.testing.assert_close(pooled[0, 0], expected)


def test_dilated_pyramid_keeps_the_size_of_tiny_maps() -> None:
    assert DilatedPyramid(4, 6, (6, 12, 18)).eval()(torch.randn(1, 4, 2, 1)).shape == (1, 6, 2, 1)


def psp_count(channels: int, out: int) -> int:
    return 4 * (channels * out + 2 * out) + (channels + 4 * out) * out * 9 + 3 * out


def aspp_count(channels: int, out: int) -> int:
    return 2 * (channels * out + out) + 3 * (9 * channels * out + out) + 5 * out * out + 3 * out


@pytest.mark.parametrize("context", ["psp+aspp", "psp+psp", "aspp+aspp", "aspp+psp"])
def test_context_modules_can_be_swapped_and_repeated(context: str) -> None:
    fine, coarse = context.split("+")
    network = on_meta(context=context)
    assert count(network.fine_context) == {"psp": psp_count, "aspp": aspp_count}[fine](384, 384)
    assert count(network.coarse_context) == {"psp": psp_count, "aspp": aspp_count}[coarse](768, 384)


def test_ablations_remove_exactly_their_parameters() -> None:
    assert count(on_meta(cam="absent")) == 47_446_157 - 1_772_544
    assert count(on_meta(cam="bypassed")) == 47_446_157
    assert count(on_meta(cam_keys="concat")) == 47_446_157 + 2 * 384 * 768
    assert count(on_meta(use_channel_gate=False)) == 47_446_157 - 5
    assert count(on_meta(use_spatial_gate=False)) == 47_446_157 - 98


@pytest.mark.parametrize(
    ("context", "cam_keys", "gates"),
    list(product(["psp+psp", "aspp+aspp", "aspp+psp"], ["context", "concat"], [True, False])),
)
def test_every_ablation_runs(context: str, cam_keys: str, gates: bool) -> None:
    changes: dict[str, Any] = {"context": context, "cam_keys": cam_keys}
    config = replace(TINY, use_channel_gate=gates, use_spatial_gate=gates, **changes)
    outputs = MSCloudCAM(3, 4, config=config)(torch.randn(2, 3, 32, 64))
    assert all(output.shape == (2, 4, 32, 64) and output.isfinite().all() for output in outputs)


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_logits_have_the_size_of_the_image(height: int, width: int) -> None:
    network = MSCloudCAM(2, 3, config=TINY).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 2, height, width)).shape == (1, 3, height, width)


def test_odd_sizes_are_padded_with_their_last_row_and_column() -> None:
    network = awake()
    x = torch.randn(1, 3, 40, 33)
    whole = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (0, 24), (0, 31)), mode="edge"))
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(whole)[..., :40, :33])


def test_images_of_a_batch_do_not_influence_each_other() -> None:
    network = awake()
    x = torch.randn(3, 3, 48, 64)
    with torch.no_grad():
        alone = torch.cat([network(image[None]) for image in x])
        torch.testing.assert_close(network(x), alone, atol=1e-5, rtol=1e-5)


def test_explicit_attention_gives_the_same_logits() -> None:
    network = awake()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        fused = network(x)
        set_explicit_attention(network)
        torch.testing.assert_close(network(x), fused, atol=1e-5, rtol=1e-5)


def test_network_is_found_by_name_with_settings_from_json() -> None:
    network = create_network("mscloudcam-small", 13, 4, depths=[2, 2, 2, 2], cam="bypassed")
    assert isinstance(network, MSCloudCAM)
    assert network.config == replace(VARIANTS["small"], cam="bypassed")
    assert {field.name for field in fields(network.config)} >= {"context", "cam", "cam_keys"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cam": "unplugged"}, "cam is 'unplugged'"),
        ({"context": "psp"}, "context is 'psp'"),
        ({"cam_heads": 5}, "768 channels cannot be shared by 5"),
        ({"heads": (3, 6, 12, 25)}, "768 channels cannot be shared by 25"),
        ({"window": 0}, "window is 0"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        replace(VARIANTS["published"], **changes)  # type: ignore[arg-type]
    assert caught.value.hint


def test_training_on_one_image_is_refused_with_a_reason() -> None:
    with pytest.raises(ModelError, match="batch of one image") as caught:
        MSCloudCAM(3, 4, config=TINY)(torch.randn(1, 3, 32, 32))
    assert "at least 2" in caught.value.hint


@pytest.mark.parametrize(("bands", "classes"), [(0, 4), (3, 0)])
def test_no_bands_or_no_classes_are_refused(bands: int, classes: int) -> None:
    with pytest.raises(ModelError, match="bands"):
        MSCloudCAM(bands, classes)


def export_with_free_axes(network: nn.Module, path: Path) -> Run:
    """Export after a trace at (2, 3, 64, 96) and return the graph as a function.

    Axes are named by strings, not by `Dim`: the window counts are expressions of H and W whose bounds the exporter
    cannot prove, and with `Dim` it would fall back to a graph of one size.
    """
    runtime = pytest.importorskip("onnxruntime")
    torch.onnx.export(
        network.eval(), (torch.rand(2, 3, 64, 96),), path, dynamo=True, external_data=False, verbose=False,
        dynamic_shapes=({0: "batch", 2: "height", 3: "width"},), input_names=["x"],
    )  # fmt: skip
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["tiny", "small", "swapped context without CAM"])
def test_one_exported_graph_serves_every_size(variant: str, tmp_path: Path) -> None:
    swapped = replace(TINY, context="aspp+psp", cam="absent")
    network = awake({"tiny": TINY, "small": VARIANTS["small"]}.get(variant, swapped))
    run = export_with_free_axes(network, tmp_path / "network.onnx")
    for shape in ((1, 3, 160, 224), (3, 3, 33, 70), (1, 3, 512, 420), (2, 3, 1, 5)):
        x = torch.randn(shape)
        with torch.no_grad():
            expected = network(x)
        assert expected.std() > 1e-3  # a constant map would agree for the wrong reason
        torch.testing.assert_close(run(x), expected, atol=1e-4, rtol=0)
