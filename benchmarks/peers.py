"""The same scene and network through geoseg and through its peers, interleaved in one run.

    python benchmarks/peers/setup.py all                       # once; every peer gets an environment of its own
    python benchmarks/peers.py [--side 2048] [--rounds 3] [--cores 1] [--bundle NAME] [--contests equal defaults]
                               [--json FILE]

Every tool runs in a process of its own, one round after the other (A, B, C, A, B, C ...); figures are medians, ratios
are medians of the ratios within a round. ``peers/README.md`` says what the columns mean and what the tools do not do.
This process stays small and loads no array: what it starts must not begin with its memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ADAPTERS = HERE / "peers"
CONTESTS = {"equal": ("--tile", "256", "--overlap", "64"), "defaults": ()}
LAYOUTS = ("channels_last", "contiguous")
REFERENCE_TOOL = "geoseg"


@dataclass(frozen=True, slots=True)
class Tool:
    """What takes part.

    Attributes:
        name: In the table.
        script: Its adapter in ``peers/``.
        venv: Its environment; empty is this process's own.
        options: What else the adapter is told.
        contests: Where it takes part: a tool without defaults has none to show.
    """

    name: str
    script: str
    venv: str = ""
    options: tuple[str, ...] = ()
    contests: tuple[str, ...] = ("equal", "defaults")


TOOLS = (
    Tool(REFERENCE_TOOL, "run_ours.py"),
    Tool("geoseg, torch fp32", "run_ours.py", options=("--engine", "torch", "--precision", "fp32")),
    Tool("rasterio loop", "run_plain.py", contests=("equal",)),
    Tool("OmniCloudMask", "run_omnicloudmask.py", "omnicloudmask"),
    Tool("terratorch", "run_terratorch.py", "terratorch"),
    Tool("torchgeo", "run_torchgeo.py", "torchgeo", contests=("equal",)),
    Tool("pytorch-toolbelt", "run_toolbelt.py", "toolbelt", contests=("equal",)),
    Tool("geoai", "run_geoai.py", "geoai"),
    Tool("geo-inference", "run_geo_inference.py", "geo-inference"),
)


def main() -> None:
    """Measure and print."""
    options = parse_options()
    tools = [tool for tool in TOOLS if not options.tools or tool.name in options.tools]
    with tempfile.TemporaryDirectory(prefix="geoseg-peers-") as folder:
        scene, reference = Path(folder) / "scene.tif", Path(folder) / "reference.tif"
        prepare("scene", str(options.side), str(scene), options.bundle)
        prepare("reference", str(scene), str(reference), options.bundle)
        runs = [run for contest in options.contests for run in run_contest(contest, tools, scene, options)]
        add_agreement(runs, reference)
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1), encoding="utf-8")
    loads = [run["load"] for run in runs]
    print(f"{options.bundle}, {options.side} x {options.side} px, {options.cores} core(s), peers' network"
          f" {options.layout}, load average {min(loads):.1f} to {max(loads):.1f}")  # fmt: skip
    for contest in options.contests:
        print(f"\n**{contest}**\n\n{render([run for run in runs if run['contest'] == contest])}")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=2048, help="rows and columns of the scene (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bundle", default="landcover-lale", help="whose network all run (default: %(default)s)")
    parser.add_argument("--cores", type=int, default=1, help="cores that a tool may use (default: %(default)s)")
    parser.add_argument("--contests", nargs="+", choices=CONTESTS, default=list(CONTESTS))
    parser.add_argument("--tools", nargs="+", choices=[tool.name for tool in TOOLS], help="default: all")
    parser.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help="memory layout of the peers' network")
    parser.add_argument("--venvs", type=Path, default=default_venvs(), help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="also write every run to this file")
    return parser.parse_args()


def default_venvs() -> Path:
    """Where ``peers/setup.py`` puts the environments."""
    return Path(tempfile.gettempdir()) / "peers"


def prepare(*arguments: str) -> None:
    """Call ``peers/prepare.py``."""
    subprocess.run([sys.executable, str(ADAPTERS / "prepare.py"), *arguments], check=True, env=environment())


def environment() -> dict[str, str]:
    """That of the tools: the adapters import geoseg from this checkout."""
    return os.environ | {"PYTHONPATH": str(HERE.parent)}


def run_contest(contest: str, tools: Sequence[Tool], scene: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rounds; one report for every tool and round."""
    entered = [tool for tool in tools if contest in tool.contests]
    runs = []
    for number in range(options.rounds):
        for tool in entered:
            output = scene.parent / f"{contest}-{tool.name.replace(' ', '-').replace(',', '')}.tif"
            command = command_of(tool, contest, scene, output, options)
            run = measure(command, options.cores)
            state = run.get("failed") or f"{run['core_s']:.1f} core-s, {run['wall_s']:.1f} s"
            print(f"{contest} {number + 1}/{options.rounds} {tool.name}: {state}", file=sys.stderr, flush=True)
            runs.append(run | {"contest": contest, "round": number, "name": tool.name, "map": str(output),
                               "bundle": options.bundle})  # fmt: skip
    return runs


def command_of(tool: Tool, contest: str, scene: Path, output: Path, options: argparse.Namespace) -> list[str]:
    """How a tool is started."""
    python = str(options.venvs / tool.venv / "bin" / "python") if tool.venv else sys.executable
    task = ["--scene", str(scene), "--output", str(output), "--bundle", options.bundle, "--layout", options.layout]
    return [python, str(ADAPTERS / tool.script), *task, *CONTESTS[contest], *tool.options]


def measure(command: Sequence[str], cores: int) -> dict[str, Any]:
    """Run an adapter: its report with ``wall_s`` and ``core_s`` of the whole process, or why it ``failed``."""
    allowed = sorted(os.sched_getaffinity(0))[-cores:]
    load = os.getloadavg()[0]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                command,
                stdout=printed,
                stderr=complaints,
                env=environment(),
                preexec_fn=lambda: os.sched_setaffinity(0, allowed),
            )
        except OSError as error:
            return {"failed": f"{error}; see peers/setup.py", "load": load}
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            return {"failed": last_line(complaints), "load": load}
        report: dict[str, Any] = json.loads(last_line(printed))
    return report | {"wall_s": wall, "core_s": usage.ru_utime + usage.ru_stime, "load": load}


def last_line(stream: Any) -> str:
    """What a process said last."""
    stream.seek(0)
    return (stream.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]


def add_agreement(runs: list[dict[str, Any]], reference: Path) -> None:
    """Give each finished run the shares of pixels that are as in the whole-scene answer."""
    finished = [run for run in runs if "failed" not in run]
    command = [sys.executable, str(ADAPTERS / "compare.py"), str(reference)]
    done = subprocess.run(
        command, input=json.dumps(finished), stdout=subprocess.PIPE, text=True, check=True, env=environment()
    )
    for run, agreement in zip(finished, json.loads(done.stdout), strict=True):
        run["agreement"] = agreement


HEADER = (
    "| tool | engine | tile / overlap | core-s | ratio | of them at work | ratio | wall s | ratio | peak MB | ratio "
    "| px computed per px | as the whole scene, near edges | elsewhere |"
)


def render(runs: Sequence[dict[str, Any]]) -> str:
    """The table of one contest; ratios are those to geoseg."""
    names = list(dict.fromkeys(run["name"] for run in runs))
    base = of(runs, REFERENCE_TOOL)
    rows = [render_row(name, of(runs, name), base) for name in names]
    return "\n".join([HEADER, "|---|---|---|" + "---:|" * 11, *rows])


def of(runs: Iterable[dict[str, Any]], name: str) -> dict[int, dict[str, Any]]:
    """Finished runs of a tool by their round."""
    return {run["round"]: run for run in runs if run["name"] == name and "failed" not in run}


def render_row(name: str, own: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]]) -> str:
    """One tool."""
    if not own:
        return f"| {name} | did not run |" + " |" * 12
    any_run = next(iter(own.values()))
    cells = [name, f"{any_run['engine']}", f"{any_run['tile_px']} / {any_run['overlap_px']}"]
    for key, digits in (("core_s", 1), ("work_core_s", 1), ("wall_s", 1), ("peak_rss_mb", 0)):
        cells += [f"{statistics.median(run[key] for run in own.values()):.{digits}f}", ratio(own, base, key)]
    agreement = any_run["agreement"]
    cells += [f"{redundancy(any_run):.2f}", f"{agreement['near']:.2%}", f"{agreement['elsewhere']:.2%}"]
    return f"| {' | '.join(cells)} |"


def ratio(own: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]], key: str) -> str:
    """Median over rounds of a figure by geoseg's in the same round."""
    pairs = [run[key] / base[number][key] for number, run in own.items() if number in base]
    return f"{statistics.median(pairs):.2f}" if pairs else ""


def redundancy(run: dict[str, Any]) -> float:
    """Pixels through the network per pixel of the scene."""
    height, width = run["size_px"]
    return float(run["pixels_computed"]) / (height * width)


if __name__ == "__main__":
    main()
