"""What runs the scenes of a command: this process, processes of this machine, or a cluster."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from geoseg_cli.cli import logs
from geoseg_cli.errors import UsageError

if TYPE_CHECKING:
    from geoseg_cli.batch.dask_cluster import ClusterOptions
    from geoseg_cli.batch.scene_run import SceneRunner
    from geoseg_cli.batch.tasks import Outcome, Recipe, SceneTask
    from geoseg_cli.batch.todo import RunOptions
    from geoseg_cli.batch.watch import Watch

OF_TLS = ("tls_ca", "tls_cert", "tls_key")
Given = dict[str, Any]
Outcomes = Generator["Outcome", None, None]


def refuse_idle_options(given: Given) -> None:
    """Options that mean nothing without a cluster, or that say half.

    Raises:
        UsageError: There is one.
    """
    scheduler = given.get("scheduler")
    for name in ("resources", *OF_TLS):
        if given.get(name) and not scheduler:
            raise UsageError(
                f"--{name.replace('_', '-')} without --scheduler means nothing", "add --scheduler, or leave it out"
            )
    if scheduler and scheduler != "local" and given.get("workers", 1) > 1:
        raise UsageError(
            f"--workers counts processes of this machine, and --scheduler {scheduler} has its own", "leave it out"
        )
    if any(given.get(name) for name in OF_TLS) and not all(given.get(name) for name in OF_TLS):
        raise UsageError("--tls-ca, --tls-cert and --tls-key belong together", "give all three")


def shard_of(tasks: list[SceneTask], text: str) -> tuple[list[SceneTask], str]:
    """The scenes of a part of the run, and how the part is called.

    Raises:
        UsageError: There is no such part.
    """
    from geoseg_cli.batch.shard import Shard
    from geoseg_cli.cli import array_job

    shard = array_job.shard_of(os.environ) if text == "auto" else Shard.parse(text)
    return shard.of_tasks(tasks), str(shard)


@contextmanager
def running(tasks: Sequence[SceneTask], recipe: Recipe, given: Given, watch: Watch) -> Iterator[Outcomes]:
    """Outcomes of scenes, as they end; leaving the block ends what is under way.

    Raises:
        GeosegError: No scene can be run.
    """
    from geoseg_cli.batch.models import EngineTrouble, Models
    from geoseg_cli.batch.scene_run import SceneRunner

    models = Models(recipe, watch)
    with closing(SceneRunner(models, watch, logs.redaction().text)) as runner, closing(models):
        try:
            with closing(_outcomes(tasks, recipe, given, watch, runner)) as outcomes:
                yield outcomes
        except EngineTrouble as trouble:
            raise trouble.error from trouble


def _outcomes(tasks: Sequence[SceneTask], recipe: Recipe, given: Given, watch: Watch, runner: SceneRunner) -> Outcomes:
    from geoseg_cli.batch.run import run_batch
    from geoseg_cli.batch.todo import RunOptions

    # What the user allows in memory is for all that is under way.
    at_once = 1 if recipe.options.max_memory_bytes is not None or len(tasks) == 1 else 2
    options = RunOptions(given.get("fail_fast", False), given.get("retries", 2), at_once, float(given.get("wait", 600)))
    workers = min(given.get("workers", 1), len(tasks))
    if given.get("scheduler"):
        yield from _on_cluster(tasks, recipe, _cluster_options(given, workers), (watch, runner), options)
    elif workers > 1:
        from geoseg_cli.batch.workers import Around, run_workers, shares

        around = Around(watch, runner, logs.redaction().text)
        yield from run_workers(tasks, shares(recipe, workers), around, options)
    else:
        yield from run_batch(tasks, runner, options)


def _cluster_options(given: Given, workers: int) -> ClusterOptions:
    from geoseg_cli.batch.dask_cluster import ClusterOptions, Tls, read_resources

    tls = Tls(*(given[name] for name in OF_TLS)) if given.get("tls_ca") else None
    return ClusterOptions(given["scheduler"], max(1, workers), tls, read_resources(given.get("resources")))


def _on_cluster(
    tasks: Sequence[SceneTask],
    recipe: Recipe,
    cluster: ClusterOptions,
    around: tuple[Watch, SceneRunner],
    options: RunOptions,
) -> Outcomes:
    from geoseg_cli.batch.dask_cluster import connected
    from geoseg_cli.batch.dask_run import DaskOptions, DaskRun
    from geoseg_cli.batch.workers import shares

    watch, runner = around
    if cluster.scheduler == "local":
        recipe = shares(recipe, cluster.workers)[0]
    if cluster.scheduler.startswith("tcp://") and not cluster.scheduler.startswith(("tcp://127.", "tcp://localhost")):
        watch.note("warning: tcp:// is not encrypted: whoever reaches the scheduler can run code on it; use tls://")
    with connected(cluster) as client:
        run = DaskRun(client, recipe, runner, watch)
        yield from run.outcomes(tasks, options, DaskOptions(cluster.resources or {}))
