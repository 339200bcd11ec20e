"""Clusters: a Dask scheduler that is there, one on this machine, or workers that SLURM starts.

Whoever can reach a Dask scheduler or worker can run any code there: its messages are pickles. Between machines use TLS
with certificates of your own, or a network that nobody else is on.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.errors import BusyError, ConfigError, EngineError, UsageError

if TYPE_CHECKING:
    from distributed import Client, Security

SCHEDULERS = "local, tcp://HOST:PORT, tls://HOST:PORT, file://FILE.json or slurm:FILE.yaml"
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.gil.enabled": False,
}
"""Dask looks at its workers up to 100 times a second; docs/clusters.md has what that costs."""
_CONNECT_S = 15
_ALLOWED_FAILURES = "distributed.scheduler.allowed-failures"
_OF_JOBS = (
    "queue", "account", "cores", "memory", "processes", "walltime", "interface", "local_directory", "log_directory",
    "job_extra_directives", "job_script_prologue", "worker_extra_args", "python", "death_timeout", "protocol",
    "shared_temp_directory",
)  # fmt: skip
_OF_NUMBER = ("workers", "minimum", "maximum")


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM form, for both sides: Dask's peers prove themselves to each other.

    Attributes:
        ca: Certificate that signed all others.
        cert: Our certificate.
        key: Its private key.
    """

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Which cluster.

    Attributes:
        scheduler: As :data:`SCHEDULERS` says.
        workers: Worker processes of ``local``.
        tls: What proves who we are; None for what Dask's own configuration says.
        resources: What workers that we begin offer.
    """

    scheduler: str
    workers: int = 1
    tls: Tls | None = None
    resources: Mapping[str, float] | None = None


@contextmanager
def connected(options: ClusterOptions) -> Iterator[Client]:
    """A client of the cluster; what we began ends with the block.

    Raises:
        UsageError: There is no such kind of cluster, or a package is missing.
        ConfigError: The file of a SLURM cluster says something unknown.
        EngineError: SLURM is not here.
        BusyError: The scheduler does not answer.
    """
    kind = options.scheduler
    if not kind.startswith(("tcp://", "tls://", "file://", "slurm:")) and kind != "local":
        raise UsageError(f"--scheduler {kind!r} is no cluster", f"use {SCHEDULERS}")
    if options.tls is not None and kind.startswith(("local", "tcp://")):
        raise UsageError(f"--scheduler {kind} is not encrypted, and --tls-ca was given", "use tls://HOST:PORT")
    _need_dask()
    # What workers of ours say is said to the watch; a scene that fails is no trouble of the cluster's.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if kind == "local":
        with _local(options) as client:
            yield client
    elif kind.startswith("slurm:"):
        with _slurm(Path(kind.removeprefix("slurm:")), options) as client:
            yield client
    else:
        with _client(kind, options) as client:
            yield client


def security_of(tls: Tls | None) -> Security | None:
    """What Dask takes; None leaves it to Dask's own configuration.

    Raises:
        UsageError: A file is not there.
    """
    if tls is None:
        return None
    for path in (tls.ca, tls.cert, tls.key):
        if not path.is_file():
            raise UsageError(f"there is no certificate or key {path}", "correct --tls-ca, --tls-cert or --tls-key")
    from distributed import Security

    ca, cert, key = str(tls.ca), str(tls.cert), str(tls.key)
    return Security(
        require_encryption=True, tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key,
        tls_scheduler_cert=cert, tls_scheduler_key=key, tls_worker_cert=cert, tls_worker_key=key,
    )  # fmt: skip


@contextmanager
def _client(address: str, options: ClusterOptions) -> Iterator[Client]:
    from distributed import Client

    named = {"scheduler_file": address.removeprefix("file://")} if address.startswith("file://") else {}
    if named and not Path(named["scheduler_file"]).is_file():
        raise UsageError(f"there is no scheduler file {named['scheduler_file']}", "start a scheduler that writes it")
    try:
        client = Client(
            None if named else address,
            **named,
            timeout=_CONNECT_S,
            security=security_of(options.tls),
            set_as_default=False,
        )
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise BusyError(
            f"no Dask scheduler answers at {address}: {error}", "see that it runs, and its address"
        ) from error
    with client:
        yield client


@contextmanager
def _local(options: ClusterOptions) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set({_ALLOWED_FAILURES: 0} | QUIET),
        LocalCluster(
            n_workers=options.workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=None,
            host="127.0.0.1", resources=dict(options.resources or {}), silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


@contextmanager
def _slurm(path: Path, options: ClusterOptions) -> Iterator[Client]:
    from distributed import Client

    jobs, number = read_slurm(path)
    if shutil.which("sbatch") is None:
        raise EngineError("sbatch is not on this machine", "run this where SLURM jobs are submitted, or use --shard")
    with slurm_cluster(jobs, options) as cluster, Client(cluster, set_as_default=False) as client:
        if "maximum" in number:
            cluster.adapt(minimum=number.get("minimum", 0), maximum=number["maximum"])
        else:
            cluster.scale(number.get("workers", 1))
        yield client


@contextmanager
def slurm_cluster(jobs: Mapping[str, Any], options: ClusterOptions) -> Iterator[Any]:
    """A scheduler in this process, for workers that SLURM starts; none is asked for yet.

    Raises:
        UsageError: dask-jobqueue is not installed.
        ConfigError: Something that every job needs is not said.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise UsageError("SLURM clusters need dask-jobqueue", "pip install 'geoseg[slurm]'") from error
    import dask

    offers = [f"{name}={value:g}" for name, value in (options.resources or {}).items()]
    # One scene at a time: the last of equal options counts.
    extra = [*_words(jobs.get("worker_extra_args", ())), "--nthreads", "1"]
    extra += ["--resources", f"'{','.join(offers)}'"] if offers else []
    # Each process loads the model: one a job unless more are asked for.
    given = {"processes": 1} | {name: value for name, value in jobs.items() if name != "worker_extra_args"}
    security = security_of(options.tls)
    secure = {"security": security, "protocol": "tls://"} if security is not None else {}
    try:
        with dask.config.set({_ALLOWED_FAILURES: 0}):
            cluster = SLURMCluster(
                **{**given, **secure}, worker_extra_args=extra, scheduler_options={"dashboard": False}
            )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the SLURM cluster cannot be made: {error}", "see docs/clusters.md") from error
    with cluster:
        yield cluster


def read_slurm(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """What a YAML file says about the jobs, and about their number.

    Raises:
        ConfigError: It cannot be read, or says something unknown.
    """
    import yaml

    try:
        told = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "see docs/clusters.md for an example") from error
    if not isinstance(told, dict):
        raise ConfigError(f"{path} is no table of names and values", "see docs/clusters.md for an example")
    unknown = sorted(str(name) for name in told if name not in _OF_JOBS + _OF_NUMBER)
    if unknown:
        raise ConfigError(f"{path} has no {', '.join(unknown)}", f"known are {', '.join(_OF_JOBS + _OF_NUMBER)}")
    missing = [name for name in ("cores", "memory") if name not in told]
    if missing:
        raise ConfigError(f"{path} does not say {' and '.join(missing)}", "every job needs them")
    number = {name: told[name] for name in _OF_NUMBER if name in told}
    wrong = [name for name, value in number.items() if type(value) is not int or value < 0]
    if wrong:
        raise ConfigError(f"{path}: {wrong[0]} is {number[wrong[0]]!r}, not a whole number", "correct it")
    return {name: told[name] for name in _OF_JOBS if name in told}, number


def read_resources(text: str | None) -> dict[str, float]:
    """``NAME=NUMBER,NAME=NUMBER`` as ``--resources`` has it.

    Raises:
        UsageError: It is something else.
    """
    found = {}
    for part in (text or "").split(",") if text else ():
        name, equals, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not (name.strip() and equals and found.get(name.strip(), 0) > 0):
            raise UsageError(f"--resources {text!r} is not NAME=NUMBER", "for example --resources GPU=1")
    return found


def _words(value: str | Sequence[str]) -> list[str]:
    return value.split() if isinstance(value, str) else [str(one) for one in value]


def _need_dask() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise UsageError("clusters need Dask, which is not installed", "pip install 'geoseg[dask]'") from error
