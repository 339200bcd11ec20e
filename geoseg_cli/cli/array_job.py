"""Which part of a job array this process is, as the schedulers say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from geoseg_cli.errors import UsageError

if TYPE_CHECKING:
    from geoseg_cli.batch.shard import Shard

KUBERNETES_COUNT = "JOB_COMPLETION_COUNT"
"""Kubernetes tells a pod its index and not how many there are: the manifest has to."""
_ARRAYS = {
    "SLURM": ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    "AWS Batch": ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    "Kubernetes": ("JOB_COMPLETION_INDEX", KUBERNETES_COUNT),
}


def shard_of(environ: Mapping[str, str]) -> Shard:
    """The part that the environment tells.

    Raises:
        UsageError: It tells none, or half of one.
    """
    from geoseg_cli.batch.shard import Shard

    for scheduler, (index_name, count_name) in _ARRAYS.items():
        if index_name not in environ:
            continue
        index, count = _number(environ, index_name, scheduler), _number(environ, count_name, scheduler)
        if scheduler == "SLURM":
            index = _slurm_index(index, environ)
        if not 0 <= index < count:
            raise UsageError(
                f"{index_name}={environ[index_name]} is none of {count} in a row",
                "number the array's tasks without gaps, or give --shard I/N",
            )
        return Shard(index + 1, count)
    names = ", ".join(index for index, _ in _ARRAYS.values())
    raise UsageError(f"--shard auto finds no job array: none of {names} is set", "give --shard I/N")


def _slurm_index(index: int, environ: Mapping[str, str]) -> int:
    first = _number(environ, "SLURM_ARRAY_TASK_MIN", "SLURM")
    step = _number(environ, "SLURM_ARRAY_TASK_STEP", "SLURM") if environ.get("SLURM_ARRAY_TASK_STEP") else 1
    whole, rest = divmod(index - first, max(step, 1))
    return -1 if rest else whole


def _number(environ: Mapping[str, str], name: str, scheduler: str) -> int:
    text = environ.get(name, "")
    if not (text.isascii() and text.isdigit()):
        what = f"is {text!r}" if text else "is not set"
        raise UsageError(
            f"--shard auto in {scheduler}: {name} {what}", f"set {name} to a whole number, or give --shard I/N"
        )
    return int(text)
