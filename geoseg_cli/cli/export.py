"""``geoseg export``: a bundle or a bare network as one file that other tools run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from geoseg_cli.cli.console import Messages
from geoseg_cli.cli.logs import LogFile, LogFormat
from geoseg_cli.cli.options import Quiet, Verbose
from geoseg_cli.cli.request import put
from geoseg_cli.errors import BandError, UsageError
from geoseg_cli.printable import counted

if TYPE_CHECKING:
    from geoseg_cli.export.parity import Parity
    from geoseg_cli.export.single_file import ExportOptions, ExportReport
    from geoseg_cli.export.source import Source

REDUCED, BARE = "fp16 and int8", "A bare network"

SourceName = Annotated[
    str,
    typer.Argument(metavar="BUNDLE|NETWORK", help="Bundle, its folder, or the name of a network.", show_default=False),
]
To = Annotated[
    Literal["onnx", "pt2"], typer.Option("--to", help="ONNX graph, or archive of torch.export (fp32 alone).")
]
Precision = Annotated[Literal["fp32", "fp16", "int8"], typer.Option("--precision", help="What the file computes in.")]
Opset = Annotated[
    int | None,
    typer.Option("--opset", metavar="18..23", help="Version of ONNX's operators (default: 20).", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="File to write (default: NAME.onnx, NAME-fp16.onnx ... here).",
        show_default=False,
    ),
]
IntoBundle = Annotated[
    bool,
    typer.Option(
        "--into-bundle",
        help="Put the int8 graph into the bundle itself, measured, for classify --precision int8.",
        rich_help_panel=REDUCED,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")]
Bands = Annotated[
    int | None,
    typer.Option("--bands", metavar="N", min=1, help="Its input channels.", rich_help_panel=BARE, show_default=False),
]
Classes = Annotated[
    int | None,
    typer.Option("--classes", metavar="N", min=1, help="Its classes.", rich_help_panel=BARE, show_default=False),
]
Calibration = Annotated[
    list[Path] | None,
    typer.Option(
        "--calibration",
        metavar="SCENE",
        help="Scene to calibrate int8 with; may be repeated (default: the bundle's golden tiles).",
        rich_help_panel=REDUCED,
        show_default=False,
    ),
]
Radiometry = Annotated[
    Literal["auto", "reflectance", "dn", "dn-1000"],
    typer.Option("--radiometry", help="What the numbers of these scenes mean.", rich_help_panel=REDUCED),
]
CalibrationBands = Annotated[
    str | None,
    typer.Option(
        "--calibration-bands",
        metavar="NAME,NAME,...",
        help="Names of the bands of these scenes in file order (red, B04, ...; - skips one).",
        rich_help_panel=REDUCED,
        show_default=False,
    ),
]
AcceptAgreement = Annotated[
    float | None,
    typer.Option(
        "--accept-agreement",
        metavar="SHARE",
        help="Share of pixels that must keep the class of fp32 (default: 0.999 in fp16, 0.98 in int8).",
        rich_help_panel=REDUCED,
        show_default=False,
    ),
]


def command(
    source: SourceName,
    to: To = "onnx",
    precision: Precision = "fp32",
    opset: Opset = None,
    output: Output = None,
    bands: Bands = None,
    classes: Classes = None,
    calibration: Calibration = None,
    calibration_bands: CalibrationBands = None,
    radiometry: Radiometry = "auto",
    accept_agreement: AcceptAgreement = None,
    into_bundle: IntoBundle = False,
    overwrite: Overwrite = False,
    log_file: LogFile = None,
    log_format: LogFormat = "json",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Export a bundle, or a bare network with random weights, as one file.

    Batch, height and width are free. The file is compared with PyTorch at sizes
    that were not traced.
    Standard output carries its path and nothing else.
    """
    from geoseg_cli.export.single_file import ExportOptions
    from geoseg_cli.export.source import open_source
    from geoseg_cli.scenes import SceneOptions

    _refuse_output(output, to)
    _refuse_contradiction(into_bundle, to, precision, output)
    if calibration_bands is not None and not (calibration and calibration_bands.strip()):
        raise UsageError("--calibration-bands is empty, or there is no --calibration", "give both, or neither")
    names = tuple(name.strip() for name in calibration_bands.split(",")) if calibration_bands else None
    options = ExportOptions(
        to,
        precision,
        opset,
        calibration=tuple(calibration or ()),
        scene=SceneOptions(bands=names, radiometry=radiometry),
        least_agreement=accept_agreement,
        overwrite=overwrite,
    )
    opened = open_source(source, bands, classes)
    target = _target(opened, options, output, into_bundle)
    messages = Messages(quiet, verbose)
    messages.note(_announce(opened, options, target))
    with _calibration_options_named():
        lines, file = _put_into_bundle(opened, options) if into_bundle else _write_file(opened, target, options)
    for line in lines:
        messages.note(f"  {line}")
    put(f"{file}\n")


def _refuse_output(output: Path | None, to: str) -> None:
    if output is None:
        return
    if not output.name:
        raise UsageError("--output names no file", f"for example -o network.{to}, or leave it out")
    if output.suffix.lower() != f".{to}":
        raise UsageError(
            f"--output {output} does not end in .{to}, which --to {to} writes",
            f"name it {output.with_suffix(f'.{to}')}",
        )


def _refuse_contradiction(into_bundle: bool, to: str, precision: str, output: Path | None) -> None:
    if into_bundle and (to, precision) != ("onnx", "int8"):
        raise UsageError(f"--into-bundle is for int8 graphs, not for {to} in {precision}", "add --precision int8")
    if into_bundle and output is not None:
        raise UsageError("--into-bundle and -o both say where the graph goes", "leave out one of them")


def _target(source: Source, options: ExportOptions, output: Path | None, into_bundle: bool) -> Path:
    from geoseg_cli.export.into_bundle import GRAPH_FILE

    if into_bundle and source.bundle is not None:
        return source.bundle.folder / GRAPH_FILE
    return output or _default_output(source.name, options)


def _write_file(source: Source, target: Path, options: ExportOptions) -> tuple[list[str], Path]:
    """What to tell of the export, and the file."""
    from geoseg_cli.export.single_file import export_file

    report = export_file(source, target, options)
    return _describe(source, report), report.files[0]


def _put_into_bundle(source: Source, options: ExportOptions) -> tuple[list[str], Path]:
    """What to tell of the graph, and where it lies in the bundle."""
    from geoseg_cli.engines.fidelity import floor_percent
    from geoseg_cli.export.into_bundle import put_int8_into

    report = put_int8_into(source, options)
    lines = _describe(source, report.export)
    for one in report.figures:
        doubt = one.fidelity.trouble or ("" if one.speed > 1 else "it is no faster")
        lines.append(
            f"{one.engine}: {floor_percent(one.fidelity.same)} of {one.tiles} held-out tiles' pixels as in fp32,"
            f" {one.speed:.2f} times as fast" + (f"; auto will not choose it: {doubt}" if doubt else "")
        )
    lines += [f"{name}: {reason}" for name, reason in report.obstacles.items()]
    if not report.figures:
        lines.append("auto will not choose it: no tiles were held out; give --calibration SCENE")
    return lines, report.export.files[0]


@contextmanager
def _calibration_options_named() -> Iterator[None]:
    """Name the options of a calibration scene in errors about it."""
    try:
        yield
    except BandError as error:  # of a calibration scene; --bands is a number here
        message, hint = (text.replace("--bands", "--calibration-bands") for text in (error.message, error.hint))
        raise BandError(message, hint) from error


def _default_output(name: str, options: ExportOptions) -> Path:
    suffix = "" if options.precision == "fp32" else f"-{options.precision}"
    return Path(f"{name}{suffix}.{options.format}")


def _announce(source: Source, options: ExportOptions, target: Path) -> str:
    weights = "" if source.bundle else " with random weights"
    kind = "ONNX" if options.format == "onnx" else "torch.export"
    channels, classes = counted(source.channels, "channel"), counted(len(source.classes), "class", "classes")
    return f"{source.name}{weights}, {channels}, {classes} -> {target} ({kind}, {options.precision})"


def _describe(source: Source, report: ExportReport) -> list[str]:
    """What was written and measured, a line each."""
    shapes, parity = report.shapes, report.parity
    opset = f"opset {report.opset}, " if report.opset else ""
    own_tiles = len(parity.shapes) - len(shapes.checked)
    places = [_size(shape) for shape in shapes.checked]
    places += [f"{counted(own_tiles, 'tile')} as given"] if own_tiles else []
    return [
        f"{opset}any batch, height and width{_multiples(source)}",
        f"compared with PyTorch at {', '.join(places)} (traced at {_size(shapes.traced)}): {_agreement(parity)}",
        *([f"{report.calibration}; {_worst_class(source, parity)}"] if report.calibration else []),
        *(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB" for file in report.files),
    ]


def _multiples(source: Source) -> str:
    return "" if source.size_multiple == 1 else f" (these in multiples of {source.size_multiple})"


def _size(shape: tuple[int, ...]) -> str:
    batch, _, height, width = shape
    return f"{batch} x {height} x {width}"


def _agreement(parity: Parity) -> str:
    return (
        f"{parity.labels:.3%} of {parity.pixels:,} pixels keep their class, logits differ by up to"
        f" {parity.largest_difference:.2g}"
    )


def _worst_class(source: Source, parity: Parity) -> str:
    rows = zip(parity.classes, parity.class_pixels, source.classes, strict=True)
    share, pixels, name = min((share, pixels, name) for share, pixels, name in rows if share is not None)
    return f"worst class {name}: {share:.2%} of {pixels:,} pixels"
