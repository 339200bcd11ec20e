"""What the tests of all architectures share: export with free axes, and two tiles to learn by heart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg_cli.export.onnx_file import FREE_AXES

Run = Callable[[Tensor], Tensor]


@pytest.fixture
def export_dynamic(tmp_path: Path) -> Callable[[nn.Module, int], Run]:
    """Give a function that exports a network and returns the graph as a function of a float32 tensor.

    The network is traced at (2, bands, 64, 96) in evaluation mode with free batch, height and width.
    """
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def export(network: nn.Module, bands: int) -> Run:
        path = tmp_path / "network.onnx"
        torch.onnx.export(
            network.eval(), (torch.rand(2, bands, 64, 96),), path, dynamo=True, dynamic_shapes=(FREE_AXES,),
            input_names=["x"], external_data=False, verbose=False,
        )  # fmt: skip
        session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])

    return export


@pytest.fixture
def two_tiles() -> tuple[Tensor, Tensor]:
    """Give pixels (2, 4, 64, 64) float32 and labels (2, 64, 64) int64: four noisy classes in patches."""
    generator = torch.Generator().manual_seed(7)
    field = torch.rand(2, 4, 6, 6, generator=generator)
    labels = F.interpolate(field, size=(64, 64), mode="bilinear", align_corners=False).argmax(dim=1)
    colours = torch.randn(4, 4, generator=generator)  # class, band
    noise = 0.3 * torch.randn(2, 4, 64, 64, generator=generator)
    return colours[labels].permute(0, 3, 1, 2) + noise, labels


def _accuracy(network: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    network.eval()
    with torch.no_grad():
        predicted = network(pixels).argmax(dim=1)
    network.train()
    return float((predicted == labels).float().mean())


@pytest.fixture
def steps_to_learn(two_tiles: tuple[Tensor, Tensor]) -> Callable[[nn.Module], int | None]:
    """Give a function that counts AdamW steps until over 95 % of the two tiles is right; None after 200."""
    pixels, labels = two_tiles

    def learn(network: nn.Module, learning_rate: float = 1e-3) -> int | None:
        optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate)
        network.train()
        for step in range(1, 201):
            logits = network(pixels)
            outputs = logits if isinstance(logits, tuple) else (logits,)
            loss = torch.stack([F.cross_entropy(output, labels) for output in outputs]).sum()
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            if step % 10 == 0 and _accuracy(network, pixels, labels) > 0.95:
                return step
        return None

    return learn
