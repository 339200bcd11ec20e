"""Losses against their definitions."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
F = pytest.importorskip("torch.nn.functional")

from geoseg_cli.training.losses import (  # noqa: E402
    allowed_classes,
    dice_loss,
    segmentation_loss,
    set_cross_entropy,
)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)


def certain(labels: torch.Tensor) -> torch.Tensor:
    return (1 << labels).to(torch.uint8)


ONE = torch.ones(2)


def test_bits_of_a_target_name_the_allowed_classes() -> None:
    target = torch.tensor([[[0b0001, 0b1010]]], dtype=torch.uint8)
    assert allowed_classes(target, 4)[0, :, 0].T.tolist() == [[True, False, False, False], [False, True, False, True]]


def test_certain_targets_give_the_usual_cross_entropy(logits: torch.Tensor) -> None:
    labels = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    assert set_cross_entropy(logits, certain(labels), ONE).item() == pytest.approx(
        F.cross_entropy(logits, labels).item()
    )


def test_a_set_of_classes_costs_the_logarithm_of_their_total_probability(logits: torch.Tensor) -> None:
    target = torch.full((2, 8, 8), 0b0110, dtype=torch.uint8)
    wanted = -logits.softmax(1)[:, 1:3].sum(1).log().mean()
    assert set_cross_entropy(logits, target, ONE).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_allowing_every_class_costs_nothing(logits: torch.Tensor) -> None:
    assert set_cross_entropy(logits, torch.full((2, 8, 8), 0b1111, dtype=torch.uint8), ONE).item() == pytest.approx(0)


def test_unlabelled_pixels_change_neither_loss_nor_gradient(logits: torch.Tensor) -> None:
    labels = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    target = certain(labels)
    target[:, :4] = 0
    loss = segmentation_loss(logits, target, ONE)
    loss.backward()
    assert loss.item() == pytest.approx(segmentation_loss(logits[:, :, 4:], target[:, 4:], ONE).item(), rel=1e-5)
    assert (logits.grad[:, :, :4] == 0).all()
    assert (logits.grad[:, :, 4:] != 0).all()


def test_a_batch_without_labels_gives_zero_and_finite_gradients(logits: torch.Tensor) -> None:
    loss = segmentation_loss(logits, torch.zeros(2, 8, 8, dtype=torch.uint8), ONE)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_weights_choose_between_images(logits: torch.Tensor) -> None:
    target = certain(torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(1)))
    only_first = segmentation_loss(logits, target, torch.tensor([1.0, 0.0]))
    assert only_first.item() == pytest.approx(segmentation_loss(logits[:1], target[:1], ONE[:1]).item(), rel=1e-5)


def test_a_perfect_map_has_no_dice_loss_and_a_wrong_one_nearly_all() -> None:
    labels = torch.arange(4).repeat(2, 16, 4)  # (2, 16, 16)
    perfect = 50.0 * F.one_hot(labels, 4).permute(0, 3, 1, 2).float()
    assert dice_loss(perfect, certain(labels), ONE).item() == pytest.approx(0, abs=1e-6)
    wrong = perfect.roll(1, dims=1)
    assert dice_loss(wrong, certain(labels), ONE).item() == pytest.approx(1, abs=0.01)


def test_dice_follows_its_formula_with_one_pixel_of_smoothing() -> None:
    probability = torch.tensor([0.75, 0.25]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    target = certain(torch.tensor([[[0, 0, 0, 1]]]))
    first, second = (2 * 3 * 0.75 + 1) / (4 * 0.75 + 3 + 1), (2 * 0.25 + 1) / (4 * 0.25 + 1 + 1)
    wanted = 1 - (first + second) / 2
    assert dice_loss(probability.log(), target, torch.ones(1)).item() == pytest.approx(wanted, rel=1e-5)


def test_dice_ignores_pixels_that_may_be_several_classes(logits: torch.Tensor) -> None:
    assert dice_loss(logits, torch.full((2, 8, 8), 0b0110, dtype=torch.uint8), ONE).item() == 0


def test_auxiliary_outputs_weigh_two_fifths(logits: torch.Tensor) -> None:
    target = certain(torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(1)))
    one = segmentation_loss(logits, target, ONE).item()
    assert segmentation_loss((logits, logits, logits), target, ONE).item() == pytest.approx(1.8 * one, rel=1e-5)
