"""Forward passes: every network x engine x precision against the machine's own matrix product, and against rivals.

    python benchmarks/networks.py [--quick] [--networks lale-s1 ...] [--engines torch openvino ...]
                                  [--device cpu] [--side 256] [--seconds 3] [--rounds 1] [--json FILE]

Every case runs in a process of its own, channels last, with random weights. Achieved GFLOP/s count two per
multiply-add by the rule of geoseg_cli.networks.counting; the peak is a square matrix product in the same precision,
measured before and after the cases of the same run. The share by core time divides by processor time on both sides:
it holds where other programs share the machine, best with --threads 1, because threads of torch and ONNX Runtime spin
while they wait. Peak memory is the process's on a CPU and torch's on CUDA.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from network_case import ENGINES, PRECISIONS, Case
from network_rivals import CONTESTS

from geoseg_cli.networks import network_names, published_interface

HERE = Path(__file__).resolve().parent
CASE_LIMIT_S = 900
GRAPHS = {"onnx", "openvino"}
QUICK = {"networks": ["lale-s1"], "seconds": 0.3, "side": 64, "contests": ["lale"]}
CUDA_BATCH_PX = 2**20
PEAK_NAMES = {"gflops": "", "gflop_core_s": " by core time"}
HEADER = "| device | network | engine | precision | batch | ms/image | Mpx/s | GFLOP/s | of peak |"
HEADER += " of peak by core time | peak MB | ready s |"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it runs.

    Attributes:
        devices: "cpu", and "cuda" where there is one.
        threads: Processor threads used.
        text: A line for people.
    """

    devices: list[str]
    threads: int
    text: str


def main() -> None:
    """Measure and print."""
    options = parse_options()
    machine = describe_machine(options.device, options.threads)
    print(machine.text + "\n")
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as folder:
        peaks = measure_peaks(machine, options.seconds, {})
        # Round after round: a noisy minute spoils one round of every case, not all of one.
        rounds = [list(run_cases(options, machine, Path(folder))) for _ in range(options.rounds)]
    rows = [best_round(same) for same in zip(*rounds, strict=True)]
    peaks = measure_peaks(machine, options.seconds, peaks)
    print_peaks(peaks)
    print("\n".join([HEADER, "|---" * 4 + "|---:" * 8 + "|", *(render_row(row, peaks) for row in rows)]) + "\n")
    contests = list(run_contests(options, machine))
    print("\n".join(map(render_contest, contests)))
    if options.json:
        report = {"machine": asdict(machine), "peaks_gflops": peaks, "cases": rows, "contests": contests}
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


def parse_options() -> argparse.Namespace:
    """Read the command line; --quick narrows what is not given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest network, tiny tiles, a fraction of a second")
    parser.add_argument("--networks", nargs="*", choices=network_names(), metavar="NAME", help="default: all")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--contests", nargs="*", choices=tuple(CONTESTS), metavar="NAME", help="default: all")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: every one there is")
    parser.add_argument("--side", type=int, help="rows and columns of a tile in pixels (default: 256)")
    parser.add_argument("--seconds", type=float, help="how long each case is timed (default: 3)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="measure all cases so often; the best counts (default: 1)"
    )
    parser.add_argument("--threads", type=int, default=0, help="default: the cores this process may use")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args()
    whole = {"networks": list(network_names()), "seconds": 3.0, "side": 256, "contests": list(CONTESTS)}
    for name, value in (QUICK if options.quick else whole).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def describe_machine(device: str | None, threads: int) -> Machine:
    """Find the devices and what to call them."""
    import torch

    there = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    devices = [device] if device else there
    threads = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    named = [torch.cuda.get_device_name() if one == "cuda" else f"{threads} threads" for one in devices]
    text = f"python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}; {', '.join(named)}"
    return Machine(devices, threads, text)


def order(script: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run a script of this folder as a process; its result, or {"failed": why}."""
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / script), json.dumps(request)],
            capture_output=True, text=True, timeout=CASE_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"took over {CASE_LIMIT_S} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure_peaks(machine: Machine, seconds: float, before: dict[str, float]) -> dict[str, float]:
    """Measure the matrix product of every device and precision; the better of this and an earlier measurement."""
    peaks = dict(before)
    for device, precision in device_precisions(machine.devices, PRECISIONS):
        case = Case("matmul", precision=precision, device=device, threads=machine.threads, seconds=seconds)
        measured = order("network_case.py", asdict(case))
        for field, name in PEAK_NAMES.items():
            key = f"{device} {precision}{name}"
            peaks[key] = max(measured.get(field, 0.0), peaks.get(key, 0.0))
    return peaks


def device_precisions(devices: list[str], precisions: tuple[str, ...] | list[str]) -> Iterator[tuple[str, str]]:
    """Pair devices with the precisions that they have fast arithmetic for."""
    return (pair for pair in product(devices, precisions) if pair != ("cpu", "fp16"))


def run_cases(options: argparse.Namespace, machine: Machine, folder: Path) -> Iterator[dict[str, Any]]:
    """Measure every network on every engine, device and precision."""
    from geoseg_cli.networks.counting import measure_size

    for name in options.networks:
        interface = published_interface(name)
        macs = measure_size(name, interface.bands, interface.classes, (options.side,)).macs[options.side]
        graph = folder / f"{name}.onnx"
        exported = order("network_case.py", {"export": name, "path": str(graph)}) if GRAPHS & {*options.engines} else {}
        for engine, (device, precision) in product(
            options.engines, device_precisions(machine.devices, options.precisions)
        ):
            if not runs(engine, device, precision):
                continue
            batch = max(1, CUDA_BATCH_PX // options.side**2) if device == "cuda" else 1
            batch = machine.threads if engine == "openvino" else batch
            case = Case(
                name, engine, precision, device, options.side, batch, machine.threads, options.seconds, str(graph)
            )
            failed = engine in GRAPHS and "failed" in exported
            yield asdict(case) | {"macs": macs} | (exported if failed else order("network_case.py", asdict(case)))
            print(f"  {name} {engine} {device} {precision}", file=sys.stderr)
        graph.unlink(missing_ok=True)


def runs(engine: str, device: str, precision: str) -> bool:
    """Whether an engine runs a network there: exported graphs are fp32, and OpenVINO runs on a CPU alone."""
    if engine == "openvino":
        return device == "cpu" and precision in ("fp32", "bf16")
    return engine != "onnx" or precision == "fp32"


def best_round(rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """The round of a case that took the least processor time; a failed one only where all failed."""
    return min(rows, key=lambda row: row.get("core_ms", float("inf")))


def run_contests(options: argparse.Namespace, machine: Machine) -> Iterator[dict[str, Any]]:
    """Hold every contest on every device; in fp32 on a CPU, in fp32 and fp16 on CUDA."""
    for name, device in product(options.contests, machine.devices):
        for precision in ("fp32", "fp16") if device == "cuda" else ("fp32",):
            request = {
                "contest": name, "device": device, "precision": precision, "threads": machine.threads,
                "seconds": 4 * options.seconds, "batch": 1 if options.quick else 0,
            }  # fmt: skip
            yield {"title": CONTESTS[name].title, "device": device} | order("network_rivals.py", request)


def print_peaks(peaks: dict[str, float]) -> None:
    """Print the peaks."""
    print("matrix product: " + ", ".join(f"{name} {rate:,.0f} GFLOP/s" for name, rate in peaks.items()) + "\n")


def render_row(row: dict[str, Any], peaks: dict[str, float]) -> str:
    """Write one case as a row."""
    head = f"| {row['device']} | {row['network']} | {row['engine']} | {row['precision']} | {row['batch']} "
    if "failed" in row:
        return head + f"| {row['failed'][:100]} | | | | | | |"
    ms = row["ms"] / row["batch"]
    gflops = 2 * row["macs"] / ms / 1e6
    peak, core_peak = (peaks[f"{row['device']} {row['precision']}{name}"] for name in PEAK_NAMES.values())
    share = f"{gflops / peak:.0%}" if peak else "-"
    # On CUDA the processor only waits.
    is_told = core_peak and row["device"] == "cpu"
    core_share = f"{2e-6 * row['macs'] * row['batch'] / row['core_ms'] / core_peak:.0%}" if is_told else "-"
    rate = row["side_px"] ** 2 / ms / 1e3
    end = f"| {core_share} | {row['peak_mb']:,.0f} | {row['ready_s']:.1f} |"
    return head + f"| {ms:.2f} | {rate:.2f} | {gflops:,.0f} | {share} {end}"


def render_contest(contest: dict[str, Any]) -> str:
    """Write one contest as a table."""
    title = f"**{contest['title']}**, {contest['device']}"
    if "failed" in contest:
        return f"{title}: {contest['failed']}\n"
    about = (
        f"{title} {contest['precision']}, batch {contest['batch']}, {contest['side_px']} px, {contest['rounds']} rounds"
    )
    rows = [
        f"| {label} | {ms:.2f} | {1e3 / ms:.1f} | {contest['speed'][label]:.2f} |"
        for label, ms in contest["ms_per_image"].items()
    ]
    return "\n".join([about, "", "| network | ms/image | images/s | speed |", "|---|---:|---:|---:|", *rows, ""])


if __name__ == "__main__":
    main()
