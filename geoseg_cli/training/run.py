"""One run from its configuration to its bundle: read data, train, write."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from geoseg_cli.bundle import Bundle
from geoseg_cli.export.onnx_file import require_packages
from geoseg_cli.training.finish import finish
from geoseg_cli.training.logs import TensorBoardLog, has_tensorboard
from geoseg_cli.training.loop import Pace, Progress, Trainer
from geoseg_cli.training.plan import Plan, Preview, cut_chips, make_plan, new_network
from geoseg_cli.training.ranks import Ranks
from geoseg_cli.training.run_folder import Mode, RunFolder


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of a run.

    Attributes:
        note: A sentence.
        doing: What is being done at the moment, many times a second.
        planned: The plan, before the first step.
        reported: A validation.
        stepped: How far and how fast, after every step.
        wants_stop: Asked before every step.
    """

    note: Callable[[str], None]
    doing: Callable[[str], None]
    planned: Callable[[Plan], None]
    reported: Callable[[Progress], None]
    stepped: Callable[[Pace], None]
    wants_stop: Callable[[], bool]


def run_training(preview: Preview, folder: RunFolder, mode: Mode, ranks: Ranks, listener: Listener) -> Bundle | None:
    """Train, or go on training, and write the bundle.

    Args:
        preview: What the configuration says.
        folder: Where the run is kept.
        mode: What to do with an earlier run there.
        ranks: This process among those that train.
        listener: Who hears of it, in the first process.

    Returns:
        The bundle, in the first process; None where the run was stopped before its end.

    Raises:
        GeosegError: Data, an earlier run, the disk or a missing package stand in the way.
    """
    require_packages()  # not after hours of training
    if ranks.is_first:
        files = preview.data.files(preview.parts)
        simulator = preview.config.data.simulator
        listener.note(folder.open(mode, preview.config, [*files, simulator.spectra] if simulator else files))
        if not folder.has_chips:
            listener.note("reading the data")
            cut_chips(preview, folder.chips, listener.doing)
    ranks.wait()
    plan = make_plan(preview, folder.chips, ranks.device)
    listener.planned(plan)
    trainer = _train(plan, folder, ranks, listener)
    if not (trainer.is_over and ranks.is_first):
        return None
    listener.note("writing the bundle")
    return finish(plan, trainer, ranks, folder.out)


def _train(plan: Plan, folder: RunFolder, ranks: Ranks, listener: Listener) -> Trainer:
    network = new_network(plan.preview)[0].to(ranks.device)
    trainer = Trainer(network, plan.spec, plan.options, plan.augment, folder.checkpoint, ranks)
    if trainer.pace.step:
        listener.note(f"the checkpoint is of step {trainer.pace.step}")
    with _log(plan, folder, trainer, ranks, listener) as log:
        reports = trainer.run(
            plan.sources(), plan.validation(), lambda: listener.stepped(trainer.pace), listener.wants_stop
        )
        for progress in reports:
            listener.reported(progress)
            if log is not None:
                log.add(progress)
    return trainer


def _log(
    plan: Plan, folder: RunFolder, trainer: Trainer, ranks: Ranks, listener: Listener
) -> TensorBoardLog | nullcontext[None]:
    if not (plan.preview.config.train.tensorboard and ranks.is_first):
        return nullcontext()
    if not has_tensorboard():
        listener.note("warning: no TensorBoard logs, the package is missing: pip install 'geoseg[train]'")
        return nullcontext()
    return TensorBoardLog(folder.logs, trainer.pace.step + 1)
