"""Of what a map is made: two runs of one key write the same pixels, so one may go on with the rows of the other."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import Engine, asset_of
from geoseg_cli.job import Job
from geoseg_cli.version import __version__

FORM = 1
"""Of work rasters and checkpoints; another one is not understood."""

_HASHED_BYTES = 1 << 20
"""Of the beginning and of the end of each input; size and time speak for what lies between."""
_COMPUTING = ("numpy", "onnxruntime", "openvino", "tensorrt", "torch", "rasterio")
_WITHOUT_EFFECT = ("overwrite", "written_at", "resume", "sidecars", "accuracy", "max_memory_bytes")
"""Options that decide no pixel of the work."""


def work_key(job: Job, output: Path, models: Sequence[tuple[Bundle, Engine]]) -> str | None:
    """The key of a job's work; None for a scene whose pixels no file tells, such as an array or an address.

    Args:
        job: Everything that was resolved.
        output: Where the map goes.
        models: What computes it.
    """
    inputs = [*job.scene.identities, *([job.options.area] if job.options.area else [])]
    if not job.scene.identities or not all(path.is_file() for path in inputs):
        return None
    options = {name: value for name, value in asdict(job.options).items() if name not in _WITHOUT_EFFECT}
    content = {
        "form": FORM,
        "geoseg": __version__,
        "output": output.name,
        "inputs": [[str(path.absolute()), *_identity(path)] for path in inputs],
        "models": [_model(bundle, engine) for bundle, engine in models],
        "decisions": job.decisions(),
        "options": options,
        "software": {name: _version(name) for name in _COMPUTING} | {"machine": platform.machine()},
    }
    return hashlib.sha256(json.dumps(content, default=str, sort_keys=True).encode()).hexdigest()


def _identity(path: Path) -> tuple[int, int, str]:
    """Size, time and hash of the ends of a file."""
    status, digest = path.stat(), hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_HASHED_BYTES))
        file.seek(max(0, status.st_size - _HASHED_BYTES))
        digest.update(file.read(_HASHED_BYTES))
    return status.st_size, status.st_mtime_ns, digest.hexdigest()


def _model(bundle: Bundle, engine: Engine) -> list[str]:
    card = hashlib.sha256(bundle.card.model_dump_json().encode()).hexdigest()
    return [
        bundle.name,
        bundle.sha256(asset_of(engine.name, engine.precision)),
        card,
        engine.name,
        engine.device,
        engine.precision,
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
