from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import fidelity
from geoseg_cli.engines.fake_engine import FakeEngine
from geoseg_cli.engines.fidelity import Fidelity, compare_labels, floor_percent, golden_fidelity, held_out_fidelity
from geoseg_cli.engines.golden import read_golden
from tests.engines.pixelwise import CLASSES, draw_network, write_pixelwise_bundle


def test_shares_are_those_of_a_count_by_hand() -> None:
    wanted = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    found = np.array([0, 0, 1, 1, 1, 1, 1, 2])
    # Class 0: 2 of 3, class 1: 4 of 5, class 2: 1 of 1; class 3 nowhere.
    assert compare_labels(wanted, found, 4) == Fidelity(7 / 8, 2 / 3)


@given(
    st.integers(1, 4).flatmap(
        lambda k: st.tuples(st.just(k), arrays(np.int64, (2, 3, 5), elements=st.integers(0, k - 1)))
    )
)
def test_shares_are_those_of_sets_of_pixels(drawn: tuple[int, np.ndarray]) -> None:
    classes, (wanted, found) = drawn
    found_fidelity = compare_labels(wanted, found, classes)
    places = [({*np.flatnonzero(wanted == k)}, {*np.flatnonzero(found == k)}) for k in range(classes)]
    ious = [len(one & other) / len(one | other) for one, other in places if one | other]
    assert found_fidelity.least_iou == pytest.approx(min(ious))
    assert found_fidelity.same == pytest.approx((wanted == found).mean())


def test_999_of_1000_pixels_and_an_iou_of_099_are_enough_and_less_is_not() -> None:
    assert Fidelity(0.999, 0.99).trouble == ""
    assert Fidelity(0.99899, 1.0).trouble == "99.89 % of the pixels as in fp32, less than 99.9 %"
    assert Fidelity(1.0, 0.98999).trouble == "the IoU of a class with fp32 is 0.989, less than 0.99"
    assert Fidelity(float("nan"), 1.0).trouble
    assert Fidelity(1.0, float("nan")).trouble


def test_a_share_is_never_rounded_up() -> None:
    assert floor_percent(0.99999) == "99.99 %"
    assert floor_percent(1.0) == "100.00 %"
    assert floor_percent(0.998965, 3) == "99.896 %"


def bundle_that_says(folder: Path, metric: object) -> Bundle:
    write_pixelwise_bundle(folder)
    path = folder / "item.json"
    card = json.loads(path.read_text())
    card["properties"]["mlm:hyperparameters"]["geoseg"]["metrics"] = {"precisions": metric}
    path.write_text(json.dumps(card))
    return Bundle.open(folder)


def test_a_card_tells_what_was_held_out(tmp_path: Path) -> None:
    bundle = bundle_that_says(tmp_path, {"openvino bf16": {"same": 0.9995, "least_iou": 0.991, "scenes": 60}})
    assert held_out_fidelity(bundle, "openvino", "bf16") == Fidelity(0.9995, 0.991)
    assert held_out_fidelity(bundle, "torch", "bf16") is None


@pytest.mark.parametrize(
    "metric",
    [{}, [], None, {"openvino bf16": 1}, {"openvino bf16": {"same": "1", "least_iou": 1}},
     {"openvino bf16": {"same": 1.5, "least_iou": 1}}, {"openvino bf16": {"same": 1}}],
)  # fmt: skip
def test_a_card_that_says_nothing_clear_says_nothing(tmp_path: Path, metric: object) -> None:
    assert held_out_fidelity(bundle_that_says(tmp_path, metric), "openvino", "bf16") is None


class Reduced(FakeEngine):
    """Answers the golden tiles with the classes of fp32 but for ``wrong`` pixels; counts how often it ran."""

    name, fingerprint = "openvino", "fake 1 on a processor"

    def __init__(self, bundle: Bundle, wrong: int) -> None:
        super().__init__(CLASSES, self._answer)
        self.precision = "bf16"
        _, logits = read_golden(bundle)
        self._labels = logits.argmax(1)
        self._labels.flat[:wrong] = (self._labels.flat[:wrong] + 1) % CLASSES

    def _answer(self, _: np.ndarray) -> np.ndarray:
        return (self._labels[:, None] == np.arange(CLASSES)[:, None, None]).astype(np.float32)


def expected(bundle: Bundle, engine: Reduced) -> Fidelity:
    _, logits = read_golden(bundle)
    return compare_labels(logits.argmax(1), engine._labels, CLASSES)


def test_golden_tiles_run_once_and_their_answer_is_kept(pixelwise: Bundle, tmp_path: Path) -> None:
    engine, again = Reduced(pixelwise, 3), Reduced(pixelwise, 3)
    measured = golden_fidelity(engine, pixelwise, tmp_path / "cache")  # type: ignore[arg-type]
    assert measured == expected(pixelwise, engine)
    assert measured.same == 1 - 3 / 512
    assert golden_fidelity(again, pixelwise, tmp_path / "cache") == measured  # type: ignore[arg-type]
    assert (len(engine.batches), len(again.batches)) == (1, 0)


def test_another_processor_engine_or_bundle_is_measured_anew(pixelwise: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    golden_fidelity(Reduced(pixelwise, 0), pixelwise, cache)  # type: ignore[arg-type]
    elsewhere, later = Reduced(pixelwise, 1), Reduced(pixelwise, 1)
    elsewhere.fingerprint, later.precision = "fake 1 on another processor", "fp16"
    other = write_pixelwise_bundle(tmp_path / "other", draw_network(5))
    for engine, bundle in ((elsewhere, pixelwise), (later, pixelwise), (Reduced(other, 1), other)):
        assert golden_fidelity(engine, bundle, cache) == expected(bundle, engine)  # type: ignore[arg-type]
        assert len(engine.batches) == 1
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"1", b'{"same": 2, "least_iou": 1}', b'{"same": 1}', b"[" * 100_000]
)
def test_a_damaged_cache_is_measured_anew_and_mended(pixelwise: Bundle, tmp_path: Path, content: bytes) -> None:
    golden_fidelity(Reduced(pixelwise, 0), pixelwise, tmp_path / "cache")  # type: ignore[arg-type]
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(content)
    engine = Reduced(pixelwise, 2)
    assert golden_fidelity(engine, pixelwise, tmp_path / "cache") == expected(pixelwise, engine)  # type: ignore[arg-type]
    assert json.loads(path.read_text())["same"] == 1 - 2 / 512


def test_a_cache_that_cannot_be_written_is_done_without(pixelwise: Bundle, tmp_path: Path) -> None:
    """Its folder would lie in a file, which not even a superuser can do."""
    (tmp_path / "file").write_text("")
    engine = Reduced(pixelwise, 1)
    for runs in (1, 2):
        assert golden_fidelity(engine, pixelwise, tmp_path / "file" / "cache") == expected(pixelwise, engine)  # type: ignore[arg-type]
        assert len(engine.batches) == runs


def test_the_cache_lies_in_the_users_cache_folder(
    pixelwise: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "user_cache_path", lambda name: tmp_path / "caches" / name)
    golden_fidelity(Reduced(pixelwise, 0), pixelwise)  # type: ignore[arg-type]
    assert [path.parent for path in tmp_path.rglob("*.json") if "caches" in path.parts] == [
        tmp_path / "caches" / "geoseg" / "fidelity"
    ]
