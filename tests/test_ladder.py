"""The import ladder of the architecture, and what a start of the command line loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import geoseg_cli

ROOT = Path(geoseg_cli.__file__).parent

# From the bottom up; a module may import modules of its own step and of lower ones.
LADDER = [
    ["recycling"],
    ["errors", "version", "data", "printable", "shipped", "redaction", "ahead", "memory", "batch_size", "arrays"],
    ["grid", "tiles", "rows"],
    ["orientation", "area", "aoi", "shape_file"],
    ["catalog"],
    ["bundle", "networks"],
    ["metrics", "calibration", "cloud_masking"],
    ["scenes", "batches", "engines", "mosaic", "results"],
    ["job"],
    ["job_run", "work_key"],
    ["masked_run"],
    ["labels", "predict", "export", "map_views", "composite"],
    ["evaluate", "training", "bench", "batch"],
    ["evaluation_page", "matrix_picture"],
    ["__init__"],
    ["cli", "__main__"],
    ["rio_plugin"],
]
STAGES = {"scenes", "batches", "engines", "mosaic", "results"}
ALLOWED_BETWEEN_STAGES: set[tuple[str, str]] = set()

HEAVY = {
    "torch": {"engines.torch_engine", "engines.replayed", "engines.trusted", "networks", "training", "export"},
    "onnxruntime": {
        "engines.onnx_engine",
        "engines.onnx_session",
        "engines.tensorrt_engine",
        "engines.devices",
        "export",
    },
    "openvino": set(),  # engines.openvino_graph alone loads it, by name, without its telemetry
    "rasterio": {
        "scenes",
        "results",
        "grid",
        "aoi",
        "cli.doctor",
        "training.real_ground",
        "training.vectors",
        "bench.plain",
        "bench.synthetic",
    },
    "dask": {"batch.dask_cluster"},
    "distributed": {"batch.dask_cluster", "batch.dask_run", "batch.dask_worker"},
    "dask_jobqueue": {"batch.dask_cluster"},
    "typer": {"cli"},
    "click": {"rio_plugin"},
    "rich": {"cli"},
}


COMMANDS = (
    "classify",
    "cloudmask",
    "composite",
    "evaluate",
    "train",
    "export",
    "scene",
    "bench",
    "verify",
    "polygons",
    "areas",
    "preview",
    "report",
)


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, inside functions too, type-checking blocks left out."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for child in block.body
        for node in ast.walk(child)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def step(module: str) -> int:
    return next(index for index, names in enumerate(LADDER) if module in names)


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_a_module_imports_only_what_stands_below_it(path: Path) -> None:
    own = dotted(path).split(".")[0]
    for name in imports(path):
        if not name.startswith("geoseg_cli."):
            continue
        other = name.split(".")[1]
        if not ((ROOT / f"{other}.py").exists() or (ROOT / other).is_dir()):
            continue
        assert step(other) <= step(own), f"{dotted(path)} imports {name} from above"
        if own in STAGES and other in STAGES and own != other:
            assert (own, other) in ALLOWED_BETWEEN_STAGES, f"stage {own} imports stage {other}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_heavy_packages_are_imported_only_where_they_belong(path: Path) -> None:
    own = dotted(path)
    for name in imports(path):
        homes = HEAVY.get(name.split(".")[0])
        if homes is not None:
            assert any(own == home or own.startswith(home + ".") for home in homes), f"{own} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_only_the_command_line_prints_exits_or_reads_the_environment(path: Path) -> None:
    if dotted(path).split(".")[0] in {"cli", "__main__"}:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "sys.exit", "exit", "os.getenv"}, f"{path}:{node.lineno} {called}"
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "os.environ", f"{path}:{node.lineno} os.environ"


def loaded_by(*arguments: str) -> set[str]:
    code = (
        "import sys\n"
        f"sys.argv = ['geoseg', *{arguments!r}]\n"
        "from geoseg_cli.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sorted(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(out.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), *((name, "--help") for name in COMMANDS)],
)
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by(*arguments)
    assert "typer" in loaded
    assert not loaded & {
        "torch",
        "onnx",
        "onnxruntime",
        "openvino",
        "rasterio",
        "numpy",
        "xarray",
        "rioxarray",
        "pyproj",
        "distributed",
    }


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = "import sys, geoseg_cli; print(*[m for m in sys.modules if m.startswith('geoseg_cli')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(out.split()) == {"geoseg_cli", "geoseg_cli.version"}


def test_nothing_that_breaks_torch_on_a_machine_without_a_gpu_is_installed() -> None:
    """torchvision's wheel does not fit the CPU build of torch, and its mere presence breaks other packages."""
    from importlib.metadata import distributions

    names = {dist.metadata["Name"].lower() for dist in distributions()}
    assert not names & {"torchvision", "timm", "lightning"}
    assert not {"onnxruntime", "onnxruntime-gpu"} <= names
