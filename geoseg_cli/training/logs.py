"""TensorBoard's files, where its package is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoseg_cli.training.loop import Progress


def has_tensorboard() -> bool:
    """Whether the package is installed."""
    return find_spec("tensorboard") is not None


class TensorBoardLog:
    """Writes the reports of a run; a context manager.

    Args:
        folder: Where the files go.
        first_step: Reports of this step and later ones that lie there from before a kill are hidden.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, progress: Progress) -> None:
        """Write a report."""
        values = {
            "loss": progress.loss,
            "learning_rate": progress.learning_rate,
            "steps_per_s": progress.pace.steps_per_s,
            **{f"mean_iou/{name}": value for name, value in progress.scores.items()},
        }
        for name, value in values.items():
            self._writer.add_scalar(name, value, progress.step)
