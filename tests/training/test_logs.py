"""TensorBoard's files hold the reports of a run, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geoseg_cli.training.logs import TensorBoardLog
from geoseg_cli.training.loop import Pace, Progress


def report(step: int) -> Progress:
    return Progress(
        step, step / 2, step / 8, 1 / step, 0.01, {"pairs-0": step / 10}, True, Pace(step, step / 8, 2.0, 1.0)
    )


def test_reports_are_written_and_those_after_a_checkpoint_again(tmp_path: Path) -> None:
    for first, steps in ((1, (2, 4, 6)), (5, (6, 8))):
        with TensorBoardLog(tmp_path, first) as log:
            for step in steps:
                log.add(report(step))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, round(event.value, 3)) for event in events.Scalars("mean_iou/pairs-0")] == [
        (2, 0.2), (4, 0.4), (6, 0.6), (8, 0.8),
    ]  # fmt: skip
    assert {"loss", "learning_rate", "steps_per_s"} <= set(events.Tags()["scalars"])
