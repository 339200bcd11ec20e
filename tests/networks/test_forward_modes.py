"""The same network run in other ways: compiled, in reduced precision, channels last, and without Python loops."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from geoseg_cli.networks import create_network
from geoseg_cli.networks.attention import DotProductAttention
from tests.fakes.networks import BANDS, CLASSES, SMALL_NETWORKS, small_network

# Root mean square of the difference to fp32, as a share of the logits' own spread, and the share of labels that stay.
AGREEMENT = {torch.bfloat16: (0.05, 0.98), torch.float16: (0.01, 0.995)}


def image(height: int = 96, width: int = 70, batch: int = 2) -> Tensor:
    return torch.randn(batch, BANDS, height, width, generator=torch.Generator().manual_seed(1))


def difference(actual: Tensor, expected: Tensor) -> float:
    """Compute the root mean square of a difference as a share of the spread of what is expected."""
    return float((actual.float() - expected).square().mean().sqrt() / expected.std())


def run(network: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = network(x)
    return logits


@pytest.mark.parametrize("label", SMALL_NETWORKS)
def test_channels_last_changes_no_logit(label: str) -> None:
    network, x = small_network(label), image()
    expected = run(network, x)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert difference(run(network, x.contiguous(memory_format=torch.channels_last)), expected) < 1e-5


@pytest.mark.parametrize("dtype", AGREEMENT)
@pytest.mark.parametrize("label", SMALL_NETWORKS)
def test_reduced_precision_stays_near_and_keeps_the_labels(label: str, dtype: torch.dtype) -> None:
    network, x = small_network(label), image()
    expected = run(network, x)
    with torch.autocast("cpu", dtype=dtype):
        actual = run(network, x)
    limit, kept = AGREEMENT[dtype]
    assert actual.dtype == dtype  # the convolutions did run in it
    assert difference(actual, expected) < limit
    assert float((actual.argmax(1) == expected.argmax(1)).float().mean()) >= kept


@pytest.mark.parametrize("label", SMALL_NETWORKS)
def test_networks_train_in_reduced_precision(label: str) -> None:
    network = small_network(label).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(image(64, 64))
    main = logits[0] if isinstance(logits, tuple) else logits
    torch.autograd.backward(F.cross_entropy(main.float(), torch.zeros(2, 64, 64, dtype=torch.int64)))
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert len(gradients) > 0.8 * len(list(network.parameters()))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("label", SMALL_NETWORKS)
def test_compiled_networks_give_the_same_logits_at_two_sizes(label: str) -> None:
    # Deeper stages repeat the same block, in Swin after a shifted one, and only compile for longer.
    network = small_network(label, depths=(1,) * 5 if label.startswith("lemevit") else (2, 1, 1, 1))
    torch.compiler.reset()
    compiled = torch.compile(network)
    for height, width, batch in ((64, 96, 2), (96, 70, 1)):
        x = image(height, width, batch)
        with torch.no_grad():
            assert difference(compiled(x), network(x)) < 1e-4


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", AGREEMENT)
@pytest.mark.parametrize("label", SMALL_NETWORKS)
def test_cuda_in_reduced_precision_stays_near_the_cpu(label: str, dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    network, x = small_network(label), image()
    expected = run(network, x)
    network.to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cuda", dtype=dtype):
        actual = run(network, x.to("cuda", memory_format=torch.channels_last))
    assert difference(actual.cpu(), expected) < AGREEMENT[dtype][0]


@pytest.mark.parametrize("label", SMALL_NETWORKS)
def test_all_attention_goes_through_the_fused_kernel(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, fused = small_network(label), F.scaled_dot_product_attention
    calls: list[tuple[int, ...]] = []

    def count(*arguments: Any, **named: Any) -> Tensor:
        calls.append(tuple(arguments[0].shape))
        return fused(*arguments, **named)

    monkeypatch.setattr(F, "scaled_dot_product_attention", count)
    modules = [module for module in network.modules() if isinstance(module, DotProductAttention)]
    ran: set[nn.Module] = set()
    for module in modules:
        module.register_forward_hook(lambda module, inputs, output: ran.add(module))
    run(network, image(64, 64))
    assert len(calls) == len(ran) == len(modules) > 0


class CountKernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the kernels that run, but for views and the copies that they need at some sizes."""

    FREE = ("view", "_unsafe_view", "clone", "slice", "alias")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in self.FREE:
            self.kernels[name] += 1
        return func(*args, **(kwargs or {}))


def kernels_of(label: str, bands: int, height: int, width: int) -> Counter[str]:
    name, config = SMALL_NETWORKS[label]
    with torch.device("meta"):
        network = create_network(name, bands, CLASSES, **config).eval()
    counted = CountKernels()
    with torch.no_grad(), counted:
        network(torch.empty(2, bands, height, width, device="meta"))
    return counted.kernels


@pytest.mark.parametrize("label", SMALL_NETWORKS)
def test_more_pixels_windows_or_bands_run_no_more_kernels(label: str) -> None:
    few = kernels_of(label, 3, 64, 64)
    assert kernels_of(label, 13, 64, 64) == few
    assert kernels_of(label, 3, 512, 448) == few
    assert kernels_of(label, 3, 250, 333) == few
