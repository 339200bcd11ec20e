"""Losses against their definitions."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
F = pytest.importorskip("torch.nn.functional")

from geoseg_cli.training.losses import (  # noqa: E402
    MAX_CLASS_WEIGHT,
    allowed_classes,
    class_weights,
    dice_loss,
    segmentation_loss,
    set_cross_entropy,
    view_disagreement,
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


def test_more_than_eight_classes_fit_into_wide_targets() -> None:
    scores = torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 12, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    target = torch.ones_like(labels) << labels
    assert set_cross_entropy(scores, target, ONE).item() == pytest.approx(F.cross_entropy(scores, labels).item())
    target[0, 0] = 0
    assert torch.isfinite(segmentation_loss(scores, target, ONE))
    narrow = target.clamp(max=1 << 3)
    wanted = segmentation_loss(scores[:, :4], narrow.to(torch.uint8), ONE)
    assert segmentation_loss(scores[:, :4], narrow, ONE).item() == pytest.approx(wanted.item())


def test_class_weights_are_those_of_torchs_weighted_cross_entropy(logits: torch.Tensor) -> None:
    labels = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([0.5, 1.0, 2.0, 4.0])
    wanted = F.cross_entropy(logits, labels, weight=classes).item()
    assert set_cross_entropy(logits, certain(labels), ONE, classes).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_class_weights_fall_with_the_frequency_and_are_1_on_average(power: float) -> None:
    pixels = [900, 90, 10, 0]
    weights = class_weights(pixels, power)
    assert weights[1] / weights[0] == pytest.approx(10**power)
    assert weights[3] == 1
    if max(weights) < MAX_CLASS_WEIGHT:
        assert sum(n * w for n, w in zip(pixels, weights, strict=True)) / 1000 == pytest.approx(1)


def test_no_class_outshouts_all_others() -> None:
    assert class_weights([1_000_000, 1], 1.0)[1] == MAX_CLASS_WEIGHT
    assert class_weights([5, 7], 0.0) == (1.0, 1.0)


EVERYWHERE = torch.ones(2, 8, 8, dtype=torch.bool)


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (0, -2), (-3, 5)])
def test_views_cut_from_one_map_agree_wherever_they_lie(shift: tuple[int, int]) -> None:
    ground = torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(0))
    down, right = shift
    views = torch.stack([ground[:, 6:14, 6:14], ground[:, 6 + down : 14 + down, 6 + right : 14 + right]])
    assert view_disagreement(views, [shift], EVERYWHERE).item() == pytest.approx(0, abs=1e-6)
    if shift != (0, 0):
        assert view_disagreement(views, [(-down, -right)], EVERYWHERE).item() > 0.1


def test_views_that_are_sure_of_different_classes_disagree_by_the_logarithm_of_two() -> None:
    views = torch.zeros(2, 2, 8, 8)
    views[0, 0], views[1, 1] = 60, 60
    assert view_disagreement(views, [(2, -3)], EVERYWHERE).item() == pytest.approx(math.log(2), rel=1e-5)


def test_disagreement_is_the_jensen_shannon_divergence_of_the_common_pixels() -> None:
    views = torch.randn(4, 5, 8, 8, generator=torch.Generator().manual_seed(3))
    valid = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(4)) > 0.3
    total, count = 0.0, 0
    for pair, (down, right) in enumerate([(1, 2), (-2, 0)]):
        for row in range(8):
            for column in range(8):
                other = (row - down, column - right)
                if not (0 <= other[0] < 8 and 0 <= other[1] < 8):
                    continue
                if not (valid[2 * pair, row, column] and valid[(2 * pair + 1, *other)]):
                    continue
                first = views[2 * pair, :, row, column].softmax(0)
                second = views[2 * pair + 1, :, other[0], other[1]].softmax(0)
                middle = (first + second) / 2
                halves = [(one * (one / middle).log()).sum().item() for one in (first, second)]
                total, count = total + sum(halves) / 2, count + 1
    found = view_disagreement(views, [(1, 2), (-2, 0)], valid)
    assert found.item() == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize(("shift", "is_valid"), [((1, 1), False), ((8, 0), True), ((-11, 30), True)])
def test_views_that_share_no_valid_pixel_cost_nothing(
    logits: torch.Tensor, shift: tuple[int, int], is_valid: bool
) -> None:
    loss = view_disagreement(logits, [shift], torch.full((2, 8, 8), is_valid))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()
