"""One network -> one checked file: the whole export on one screen."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoseg_cli.errors import ModelError, UsageError
from geoseg_cli.export.calibration import measure_magnitudes, read_scene_tiles
from geoseg_cli.export.int8 import quantise
from geoseg_cli.export.onnx_file import (
    DEFAULT_OPSET,
    append_metadata,
    build_graph,
    check_opset,
    external_data_path,
    needs_external_data,
    open_graph,
    require_packages,
    save_graph,
)
from geoseg_cli.export.parity import (
    LEAST_AGREEMENT,
    FloatArray,
    Parity,
    Run,
    Sample,
    Shapes,
    answer,
    compare,
    draw_pixels,
    require_agreement,
    spread_tiles,
)
from geoseg_cli.export.pt2 import open_pt2, write_pt2
from geoseg_cli.printable import counted
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.storage import storage_trouble
from geoseg_cli.scenes import SceneOptions
from geoseg_cli.version import __version__

if TYPE_CHECKING:
    import onnx_ir as ir

    from geoseg_cli.export.source import Source

Format = Literal["onnx", "pt2"]
Precision = Literal["fp32", "fp16", "int8"]

CARD_KEY, EXPORT_KEY = "geoseg", "geoseg_export"
_BYTES_PER_WEIGHT = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a network is exported; the options of ``geoseg export`` map onto these.

    Attributes:
        format: ``onnx``, or ``pt2`` for an archive of torch.export.
        precision: What it computes in; ``pt2`` has ``fp32`` alone.
        opset: Version of ONNX's operators, 18 to 23; None is 20.
        calibration: Scenes to calibrate ``int8`` with; without any the bundle's golden tiles are used.
        scene: How these scenes are read.
        least_agreement: Share of the pixels that must keep their class in ``fp16`` and ``int8``, 0 to 1; None is that
            of ``parity.LEAST_AGREEMENT``.
        overwrite: Whether the file may exist.
    """

    format: Format = "onnx"
    precision: Precision = "fp32"
    opset: int | None = None
    calibration: tuple[Path, ...] = ()
    scene: SceneOptions = field(default_factory=SceneOptions)
    least_agreement: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not go together.

        Raises:
            UsageError: Options contradict each other, or a number is out of range.
        """
        if self.format == "pt2" and self.precision != "fp32":
            raise UsageError(
                f"a pt2 file holds fp32, not {self.precision}",
                "use --to onnx, or run the pt2 file under torch.autocast",
            )
        if self.format == "pt2" and self.opset is not None:
            raise UsageError("--opset belongs to ONNX, pt2 has none", "leave it away, or use --to onnx")
        if self.calibration and self.precision != "int8":
            raise UsageError(f"--calibration belongs to int8, not {self.precision}", "add --precision int8")
        if self.least_agreement is not None and self.precision == "fp32":
            raise UsageError("--accept-agreement belongs to fp16 and int8: fp32 must agree", "leave it away")
        if self.least_agreement is not None and not 0 <= self.least_agreement <= 1:
            raise UsageError(f"--accept-agreement {self.least_agreement:g} is no share", "use a number from 0 to 1")
        if self.opset is not None:
            check_opset(self.opset)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written and measured.

    Attributes:
        files: The file, and for weights over 2 GiB the one that holds them.
        parity: How the file answers beside the network in fp32.
        opset: Version of ONNX's operators; None for ``pt2``.
        shapes: What it was traced at and what the check included.
        calibration: What ``int8`` was calibrated with and judged by, as a sentence; empty otherwise.
        held_out: The tiles of scenes that ``int8`` was judged by and not calibrated with; none otherwise.
    """

    files: tuple[Path, ...]
    parity: Parity
    opset: int | None
    shapes: Shapes
    calibration: str = ""
    held_out: tuple[Sample, ...] = ()


def export_file(source: Source, output: Path, options: ExportOptions | None = None) -> ExportReport:
    """Export a network to one file that was compared with it before it takes its place.

    Args:
        source: The network.
        output: The file; its folder must exist. Weights over 2 GiB go into ``<output>.data`` beside it.
        options: How; defaults when None.

    Returns:
        What was written and measured.

    Raises:
        OutputError: The file exists.
        EngineError: A package that the export needs is not installed.
        ModelError: The network cannot be exported, or the file answers otherwise; there is then no new file.
        GeosegError: A calibration scene cannot be read, or the disk does not take the file.
    """
    options = options or ExportOptions()
    if options.format == "onnx":
        require_packages()
        options = replace(options, opset=options.opset or DEFAULT_OPSET)
    has_data = options.format == "onnx" and needs_external_data(source.module, _BYTES_PER_WEIGHT[options.precision])
    targets = [output, external_data_path(output)] if has_data else [output]
    inputs = [*source.files, *options.calibration]
    with OutputTransaction(targets, options.overwrite, inputs) as transaction:
        staged = transaction.path(output)
        job = _Job(source, options, Shapes.choose(source.channels, source.size_multiple))
        with storage_trouble(output):
            report = job.write_pt2(staged) if options.format == "pt2" else job.write_onnx(staged, has_data)
        transaction.commit()
    return replace(report, files=tuple(targets))


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Tiles (C, H, W) to calibrate with, tiles to judge by, what they are, and whether the latter are other ones."""

    calibration: Sequence[FloatArray] = ()
    judged: Sequence[FloatArray] = ()
    origin: str = ""
    is_held_out: bool = False


@dataclass(frozen=True, slots=True)
class _Job:
    """One export on its way into one staged file."""

    source: Source
    options: ExportOptions
    shapes: Shapes

    def write_pt2(self, path: Path) -> ExportReport:
        """Write an archive of torch.export and compare it with the network."""
        extra = {f"{EXPORT_KEY}.json": json.dumps(self._facts())}
        if self.source.card:
            extra[f"{CARD_KEY}.json"] = self.source.card
        write_pt2(self.source.module, path, self.shapes.traced, extra)
        return ExportReport((path,), self._check(open_pt2(path), self._samples(self.source.tiles)), None, self.shapes)

    def write_onnx(self, path: Path, has_data: bool) -> ExportReport:
        """Write an ONNX graph, reduced if asked, and compare it with the network."""
        from geoseg_cli.export.graph import average_channels_by_product

        tiles = self._choose_tiles()
        model = build_graph(self.source.module, self.shapes.traced, self.options.opset or DEFAULT_OPSET)
        samples = self._samples(tiles.judged)
        if self.options.precision != "fp32":
            model = self._reduce(model, path, tiles.calibration, samples)
        if self.options.precision != "fp16":  # which is for other devices than the CPU
            average_channels_by_product(model)
        save_graph(model, path, has_data)
        parity = self._check(open_graph(path), samples)
        append_metadata(path, self._metadata(parity, tiles.origin))
        held_out = tuple(samples[-len(tiles.judged) :]) if tiles.is_held_out else ()
        return ExportReport((path,), parity, self.options.opset, self.shapes, tiles.origin, held_out)

    def _choose_tiles(self) -> _Tiles:
        source, options = self.source, self.options
        if options.precision != "int8":
            return _Tiles(judged=source.tiles)
        if source.bundle is None:
            raise UsageError(
                f"int8 needs real tiles and trained weights; {source.name} is a bare network", "export a bundle"
            )
        if not options.calibration:
            return _use_golden_tiles(source)
        found = read_scene_tiles(options.calibration, source.bundle, options.scene)
        if len(found) < 2:
            raise UsageError(
                f"the calibration scenes give {counted(len(found), 'tile')} with valid pixels, at least 2 are needed",
                "give more scenes, or larger ones",
            )
        tiles = [*found, *source.tiles]
        origin = (
            f"calibrated with every other of {len(found)} tiles of the scenes and {len(source.tiles)} golden tiles,"
            " judged by the rest"
        )
        return _Tiles(tiles[::2], tiles[1::2], origin, is_held_out=True)

    def _reduce(self, model: ir.Model, path: Path, tiles: Sequence[FloatArray], samples: Sequence[Sample]) -> ir.Model:
        """The graph in less than fp32; ``path`` lends its folder to files on the way.

        It is compared in fp32 first: rounding would hide a size that was baked in.
        """
        with tempfile.TemporaryDirectory(prefix=".fp32-", dir=path.parent) as folder:
            exact = Path(folder) / "fp32.onnx"
            has_data = needs_external_data(self.source.module)
            save_graph(model, exact, has_data)
            compare(open_graph(exact), samples)
            if self.options.precision == "fp16":
                from geoseg_cli.export.half import compute_in_half

                pixels = [tile for sample in samples for tile in sample.pixels]
                compute_in_half(model, measure_magnitudes(exact, pixels, has_data))
                return model
            return quantise(exact, tiles, has_data)

    def _check(self, run: Run, samples: Sequence[Sample]) -> Parity:
        precision = self.options.precision
        parity = compare(run, samples, precision)
        least = self.options.least_agreement
        require_agreement(parity, precision, LEAST_AGREEMENT[precision] if least is None else least)
        return parity

    def _samples(self, tiles: Sequence[FloatArray]) -> list[Sample]:
        """What the network answers at the shapes to check, and for the tiles as they are."""
        batches = [spread_tiles(tiles, shape) if tiles else draw_pixels(shape) for shape in self.shapes.checked]
        return answer(self.source.module, [*batches, *(tile[None] for tile in tiles)])

    def _metadata(self, parity: Parity, calibration: str) -> dict[str, str]:
        """What an ONNX file says of itself: the card of a bundle, and how the file came about."""
        classes = self.source.classes
        facts = self._facts() | {
            "compared_pixels": parity.pixels,
            "label_agreement": parity.labels,
            "largest_logit_difference": parity.largest_difference,
            "class_agreement": dict(zip(classes, parity.classes, strict=True)),
            "class_pixels": dict(zip(classes, parity.class_pixels, strict=True)),
            "calibration": calibration,
        }
        card = {CARD_KEY: self.source.card} if self.source.card else {}
        return card | {EXPORT_KEY: json.dumps(facts)}

    def _facts(self) -> dict[str, Any]:
        """What is known of the export before it is measured, for the file itself."""
        import torch

        return {
            "geoseg_version": __version__,
            "torch_version": torch.__version__.split("+")[0],
            "source": self.source.name,
            "weights": "trained" if self.source.bundle else "random",
            "channels": self.source.channels,
            "classes": list(self.source.classes),
            "size_multiple": self.source.size_multiple,
            "precision": self.options.precision,
        }


def _use_golden_tiles(source: Source) -> _Tiles:
    if not source.tiles:
        raise ModelError(f"bundle {source.name} has no golden tiles to calibrate int8 with", "give --calibration SCENE")
    origin = (
        f"calibrated with and judged by the same {len(source.tiles)} golden tiles of the bundle, which flatters the"
        " share; --calibration SCENE gives a fair one"
    )
    return _Tiles(source.tiles, source.tiles, origin)
