"""Decode heads: published counts, placement on the finest map, export at other sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from geoseg_cli.networks.heads import AllMLPHead, FCNHead, UPerHead, merged, raise_to

Run = Callable[[Tensor], Tensor]
WIDTHS = (8, 16, 24, 32)
HEADS: dict[str, Callable[[], AllMLPHead | UPerHead]] = {
    "all-mlp": lambda: AllMLPHead(WIDTHS, 5, width=16),
    "upernet": lambda: UPerHead(WIDTHS, 5, width=16),
}


def pyramid(height: int, width: int, batch: int = 2) -> list[Tensor]:
    sizes = [(-(-height // scale), -(-width // scale)) for scale in (1, 2, 4, 8)]
    return [torch.rand(batch, channels, *size) for channels, size in zip(WIDTHS, sizes, strict=True)]


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class FromImage(nn.Module):
    """A head on maps that are poolings of an image, so that it has one input to export."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(3, width, 1) for width in WIDTHS)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Tensor] = []
        for project in self.project:
            maps.append(project(x))
            x = F.avg_pool2d(x, 2)
        logits: Tensor = self.head(maps)
        return logits


@pytest.mark.parametrize(
    ("widths", "head", "auxiliary"),
    [
        ((64, 128, 192, 320), 28_293_637, 444_165),
        ((96, 192, 320, 384), 28_834_309, 739_077),
        ((96, 192, 384, 512), 29_719_045, 886_533),
    ],
)
def test_counts_match_those_published_with_lemevit(widths: Sequence[int], head: int, auxiliary: int) -> None:
    assert parameters(UPerHead(widths, 5)) == head
    assert parameters(FCNHead(widths[2], 5)) == auxiliary


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 1), (3, 21)])
def test_logits_lie_on_the_finest_map(name: str, size: tuple[int, int]) -> None:
    logits = HEADS[name]().eval()(pyramid(*size))
    assert logits.shape == (2, 5, *size)
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("name", HEADS)
def test_every_map_reaches_the_logits(name: str) -> None:
    maps = [one.requires_grad_() for one in pyramid(8, 12)]
    torch.autograd.backward(HEADS[name]()(maps).square().sum())
    assert all(one.grad is not None and float(one.grad.abs().max()) > 0 for one in maps)


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    head = HEADS[name]()
    torch.autograd.backward(head(pyramid(8, 12)).square().sum())
    assert all(one.grad is not None for one in head.parameters())


def test_all_mlp_head_equals_its_formula() -> None:
    head, maps = AllMLPHead(WIDTHS, 5, width=16).eval(), pyramid(4, 6)
    convolutions: list[nn.Conv2d] = list(head.project)  # type: ignore[arg-type]
    projected = [
        torch.einsum("ndhw,md->nmhw", one, conv.weight[:, :, 0, 0])
        + (0 if conv.bias is None else conv.bias[:, None, None])
        for conv, one in zip(convolutions, maps, strict=True)
    ]
    raised = [F.interpolate(one, size=(4, 6), mode="bilinear") for one in projected]
    expected = head.classify(head.fuse(torch.cat(raised, dim=1)))
    torch.testing.assert_close(head(maps), expected, atol=1e-6, rtol=0)


def test_all_mlp_head_fuses_before_raising_to_the_same_effect() -> None:
    head, maps = AllMLPHead(WIDTHS, 5, width=16).eval(), pyramid(9, 7)
    early = head(maps)
    head.is_concatenating = True
    torch.testing.assert_close(head(maps), early, atol=1e-5, rtol=0)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_a_merged_head_answers_the_same_with_one_convolution_a_map(height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    head, maps = AllMLPHead(WIDTHS, 5, width=16).eval(), pyramid(height, width)
    answer = head(maps)
    head.merge()
    torch.testing.assert_close(head(maps), answer, atol=1e-5, rtol=0)
    kernels = {tuple(conv.weight.shape) for conv in head.modules() if isinstance(conv, nn.Conv2d)}
    assert kernels == {*((16, one, 1, 1) for one in WIDTHS), (5, 16, 1, 1)}


def test_a_network_stays_as_it_is_where_its_merged_copy_runs() -> None:
    network, maps = nn.Sequential(AllMLPHead(WIDTHS, 5, width=16)).eval(), pyramid(4, 6)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copied = merged(network)
    assert network.state_dict().keys() == before.keys() != copied.state_dict().keys()
    torch.testing.assert_close(copied[0](maps), network[0](maps), atol=1e-5, rtol=0)


def test_all_mlp_head_takes_the_norm_and_activation_it_is_given() -> None:
    head = AllMLPHead(WIDTHS, 5, width=16, norm=lambda width: nn.GroupNorm(4, width), activation=nn.GELU)
    kinds = [type(layer) for layer in head.fuse]
    assert kinds == [nn.Conv2d, nn.GroupNorm, nn.GELU, nn.Dropout]


def test_raising_keeps_a_constant_map_and_its_corners() -> None:
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    raised = raise_to(x, torch.zeros(1, 9, 8, 12))
    assert raised.shape == (1, 1, 8, 12)
    assert [float(raised[0, 0, row, column]) for row in (0, -1) for column in (0, -1)] == [0, 2, 3, 5]
    constant = raise_to(torch.ones(1, 1, 2, 3), torch.zeros(1, 1, 5, 7))
    torch.testing.assert_close(constant, torch.ones(1, 1, 5, 7))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_exported_upernet_equals_the_network_at_sizes_never_traced(
    export_dynamic: Callable[[nn.Module, int], Run],
) -> None:
    network = FromImage(HEADS["upernet"]())
    run = export_dynamic(network, 3)
    for shape in ((1, 3, 40, 24), (3, 3, 33, 50), (1, 3, 71, 19)):
        x = torch.rand(shape)
        torch.testing.assert_close(run(x), network(x), atol=1e-4, rtol=0)
