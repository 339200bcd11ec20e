"""``--sandbox``: the command runs once more in a child process with limits, without network and without secrets.

What this protects from, and what not, stands in ``docs/sandbox.md``. The parent opens neither scene nor bundle.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from geoseg_cli.cli import logs
from geoseg_cli.errors import EngineError, StorageError

GIB: Final = 1 << 30
RUNTIME_BYTES: Final = 4 * GIB
"""Address space of interpreter and libraries; 1.2 GiB with torch, 1.1 with OpenVINO were measured on two cores."""

BYTES_PER_CORE: Final = 64 << 20
"""Stacks and buffers of the threads that libraries start for each core."""

LARGEST_FILE_BYTES: Final = 256 * GIB
MOST_OPEN_FILES: Final = 1024
MOST_CPU_HOURS: Final = 24
"""For each core."""

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_KEPT = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TERM|COLORTERM|COLUMNS|LINES|NO_COLOR|SOURCE_DATE_EPOCH"
    r"|XDG_CACHE_HOME|PYTHON\w+|LD_LIBRARY_PATH|OMP_\w+|KMP_\w+|MKL_\w+|\w+_NUM_THREADS|CUDA_\w+|NVIDIA_\w+|ORT_\w+"
    r"|PROJ_DATA|PROJ_LIB|GDAL_DATA|GEOSEG_\w+|XDG_CONFIG_HOME"
)
"""Variables that a run needs; all others, such as keys of a cloud, stay outside."""

_is_inside = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What the child may take.

    Attributes:
        address_space: Bytes; None for no limit.
        cpu_seconds: Time of all its threads together.
        file_bytes: Largest file that it may write.
        open_files: Files at a time.
        is_cut_off: Whether it is to have no network.
        is_quiet: Whether it says nothing of this.
    """

    address_space: int | None
    cpu_seconds: int
    file_bytes: int = LARGEST_FILE_BYTES
    open_files: int = MOST_OPEN_FILES
    is_cut_off: bool = True
    is_quiet: bool = False


def run_sandboxed(given: Mapping[str, Any], memory_bytes: int | None) -> None:
    """Run a command in a limited child and end as it does; returns at once inside that child.

    Args:
        given: The command's parameters by name.
        memory_bytes: What the command may take as ``--max-memory`` says; None for auto.

    Raises:
        EngineError, StorageError: A limit ended the child, or a library crashed in it.
    """
    if not _is_inside:
        sys.exit(run_limited(limits_for(given, memory_bytes), logs.arguments(), bool(given["allow_network"])))


def limits_for(given: Mapping[str, Any], memory_bytes: int | None) -> Limits:
    """Limits that leave an honest run alone."""
    from geoseg_cli.ahead import usable_cores
    from geoseg_cli.engines.devices import probe_cuda
    from geoseg_cli.memory import fair_share_bytes

    cores = usable_cores()
    planned = memory_bytes or fair_share_bytes() or 8 * GIB
    models = sum(4 * _folder_bytes(given.get(name)) for name in ("model", "cloud_model"))
    address_space = planned + models + RUNTIME_BYTES + cores * BYTES_PER_CORE
    # A GPU's driver maps the memory of all devices and of the machine.
    has_gpu = given["device"] != "cpu" and probe_cuda().works
    return Limits(
        address_space=None if has_gpu else address_space,
        cpu_seconds=MOST_CPU_HOURS * 3600 * cores,
        is_cut_off=not given["allow_network"],
        is_quiet=given["quiet"],
    )


def run_limited(limits: Limits, arguments: Sequence[str], keeps_secrets: bool = False) -> int:
    """Run the tool in a child and return its exit code; signals go on to the child.

    Raises:
        EngineError, StorageError: A limit ended the child, or a library crashed in it.
    """
    # The parent's own path: the child must find the same geoseg, and nothing else in the current folder.
    begin = f"import sys; sys.path[:] = {sys.path!r}; from geoseg_cli.cli.sandbox import enter; enter()"
    command = [sys.executable, "-P", "-c", begin, json.dumps(asdict(limits)), *arguments]
    environment = dict(os.environ) if keeps_secrets else kept_environment(os.environ)
    # A group of its own: Ctrl-C reaches the child once, through the parent.
    child = subprocess.Popen(command, env=environment, process_group=0)

    seen: list[int] = []

    def relay(number: int, frame: FrameType | None) -> None:
        # A library that hangs never comes back to the child's own handler.
        child.send_signal(signal.SIGKILL if seen else number)
        seen.append(number)

    before = {number: signal.signal(number, relay) for number in _relayed()}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else _explain(seen[0] if seen else -code, limits)


def kept_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a run needs, without whatever else may be secret."""
    kept = {name: value for name, value in environment.items() if _KEPT.fullmatch(name)}
    # Each arena of the allocator takes 64 MiB of address space, and there are eight for each core.
    return {"MALLOC_ARENA_MAX": "4", **kept}


def enter() -> None:
    """What the child runs: take the limits on, then the command."""
    global _is_inside
    _is_inside = True
    limits = Limits(**json.loads(sys.argv[1]))
    arguments = sys.argv[2:]
    # Before any library starts a thread: a process of several threads gets no user namespace.
    trouble = _leave_network() if limits.is_cut_off else "--allow-network was given"
    _set_limits(limits)
    if not limits.is_quiet:
        print(_describe(limits, trouble), file=sys.stderr)
    from geoseg_cli.cli import main

    main(arguments)


def _describe(limits: Limits, trouble: str) -> str:
    memory = "no limit on memory beside a GPU"
    if limits.address_space is not None:
        memory = f"address space of {limits.address_space / GIB:.1f} GiB"
    network = f"CONNECTIONS ARE NOT PREVENTED ({trouble})" if trouble else "no network"
    return f"sandbox: {memory}, {limits.open_files} open files, {network}"


def _set_limits(limits: Limits) -> None:
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_AS: limits.address_space,
    }
    for kind, value in wanted.items():
        if value is not None:
            lowest = min((value, *(one for one in resource.getrlimit(kind) if one != resource.RLIM_INFINITY)))
            # Beyond the soft limit of time comes SIGXCPU, which tells what it was; beyond the hard one SIGKILL.
            hard = lowest + 5 if kind == resource.RLIMIT_CPU and lowest == value else lowest
            resource.setrlimit(kind, (lowest, hard))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _leave_network() -> str:
    """Move into a network namespace with nothing in it; returns why that could not be, ``""`` where it was."""
    if sys.platform != "linux":
        return f"{sys.platform} has no network namespaces"
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    # Who administrates the machine needs no user namespace, in which files of other users would be out of reach.
    if libc.unshare(_CLONE_NEWNET) == 0:
        return ""
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return f"the system refuses a network namespace: {os.strerror(ctypes.get_errno())}"
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError as error:
        return "" if os.geteuid() == user else f"its user could not be mapped: {error.strerror}"
    return ""


def _relayed() -> list[signal.Signals]:
    named = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in named if signal.getsignal(number) != signal.SIG_IGN]


def _explain(number: int, limits: Limits) -> int:
    name = signal.Signals(number).name
    if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        return 128 + number
    if number == signal.SIGXCPU:
        raise EngineError(
            f"the sandbox ended the run: more than {limits.cpu_seconds} seconds of processor time",
            "look at the scene with `geoseg scene info`; if it is only large, leave out --sandbox",
        )
    raise StorageError(
        f"the sandboxed run ended by {name}: its memory ran out, or a library crashed on this input",
        "use a smaller --tile, or a larger --max-memory; if that does not help, do not trust the file",
    )


def _folder_bytes(name: object) -> int:
    """Sizes of the files in a bundle's folder; 0 for a shipped bundle, which the runtime's room holds."""
    try:
        return sum(one.stat().st_size for one in os.scandir(str(name)) if one.is_file()) if name else 0
    except OSError:
        return 0
