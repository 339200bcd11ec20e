"""A QGIS Processing algorithm that runs geoseg: a scene in, a class map with its names and colours out.

QGIS has a Python of its own in which geoseg is not installed, so ``geoseg`` runs as a process beside it. This file
needs nothing but QGIS. ``README.md`` beside it says how to install it.
"""

from __future__ import annotations

import os
import queue
import shlex
import shutil
import subprocess
import threading
from pathlib import Path
from typing import IO, Any, ClassVar

from qgis.core import (
    QgsMapLayer,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFile,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

Parameters = dict[str, Any]
Lines = queue.Queue  # of (name of the stream, line)

COMMANDS = (("classify", "Land cover (geoseg classify)"), ("cloudmask", "Clouds and shadows (geoseg cloudmask)"))

PROGRAM_VARIABLE = "GEOSEG_PROGRAM"
"""Environment variable that names the program; QGIS sets such under Settings > Options > System > Environment."""

QGIS_ONLY = ("PYTHONHOME", "PYTHONPATH", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA")
"""Variables that QGIS sets for its own Python, GDAL and PROJ; geoseg has others."""

POLL_SECONDS = 0.1
GRACE_SECONDS = 30.0
"""How long a run that was told to stop may take to remove what is unfinished."""
LAST_WORDS_SECONDS = 5.0
"""How long to read on when the program has ended; a child of it may hold its streams open."""


class GeosegAlgorithm(QgsProcessingAlgorithm):
    """``geoseg classify`` and ``geoseg cloudmask`` in the Processing toolbox."""

    SCENE, PRODUCT, COMMAND, MODEL, EXTRA, PROGRAM, OUTPUT = (
        "SCENE", "PRODUCT", "COMMAND", "MODEL", "EXTRA", "PROGRAM", "OUTPUT",
    )  # fmt: skip

    def createInstance(self) -> GeosegAlgorithm:
        return GeosegAlgorithm()

    def name(self) -> str:
        return "geoseg"

    def displayName(self) -> str:
        return "Map land cover or clouds (geoseg)"

    def shortHelpString(self) -> str:
        return (
            "Runs geoseg on a scene and loads the map with the names and colours of its classes.\n\n"
            "Scene: a layer of the project that lies in a file, such as a Sentinel-2 GeoTIFF.\n"
            "Product file: instead of a layer, such as MTD_MSIL2A.xml, a Landsat MTL file, a zipped SAFE.\n"
            "Model: a bundle; what `geoseg models list` tells, or a folder.\n"
            'Further options: as on the command line, such as --radiometry dn-1000 --bounds "L B R T".\n'
            "Program: the geoseg program; by default what the environment variable "
            f"{PROGRAM_VARIABLE} names, or geoseg on the PATH.\n\n"
            "What geoseg decides and why stands in the log. Cancelling stops geoseg, which removes what is unfinished."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        self.addParameter(QgsProcessingParameterRasterLayer(self.SCENE, "Scene", optional=True))
        self.addParameter(
            QgsProcessingParameterFile(self.PRODUCT, "Product file, instead of a scene layer", optional=True)
        )
        self.addParameter(
            QgsProcessingParameterEnum(self.COMMAND, "Map", [title for _, title in COMMANDS], defaultValue=0)
        )
        self.addParameter(QgsProcessingParameterString(self.MODEL, "Model (empty for the usual one)", optional=True))
        self.addParameter(QgsProcessingParameterString(self.EXTRA, "Further options", optional=True))
        program = QgsProcessingParameterString(
            self.PROGRAM, "Program", defaultValue=os.environ.get(PROGRAM_VARIABLE) or "geoseg"
        )
        program.setFlags(program.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
        self.addParameter(program)
        self.addParameter(QgsProcessingParameterRasterDestination(self.OUTPUT, "Class map"))

    def checkParameterValues(self, parameters: Parameters, context: QgsProcessingContext) -> tuple[bool, str]:
        """Refuse what cannot run before it is started."""
        layer, product = (parameters.get(name) for name in (self.SCENE, self.PRODUCT))
        if bool(layer) == bool(product):
            return False, "Give either a scene layer or a product file."
        output = self.parameterAsOutputLayer(parameters, self.OUTPUT, context)
        if Path(output).suffix.lower() not in (".tif", ".tiff"):
            return False, "The class map is a GeoTIFF: its name must end with .tif."
        try:
            shlex.split(self.parameterAsString(parameters, self.EXTRA, context))
        except ValueError as error:
            return False, f"The further options cannot be understood: {error}."
        return super().checkParameterValues(parameters, context)

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, str]:
        output = self.parameterAsOutputLayer(parameters, self.OUTPUT, context)
        arguments = self._arguments(parameters, context, output)
        feedback.pushCommandInfo(shlex.join(arguments))
        code, said = run(arguments, feedback)
        if feedback.isCanceled():
            return {}
        if code != 0:
            raise QgsProcessingException(f"geoseg ended with exit code {code}:\n" + "\n".join(trouble(said)))
        style = Path(output).with_suffix(".qml")
        if style.exists() and context.willLoadLayerOnCompletion(output):
            context.layerToLoadOnCompletionDetails(output).setPostProcessor(Styling.of(style))
        return {self.OUTPUT: output}

    def _arguments(self, parameters: Parameters, context: QgsProcessingContext, output: str) -> list[str]:
        command = COMMANDS[self.parameterAsEnum(parameters, self.COMMAND, context)][0]
        model = self.parameterAsString(parameters, self.MODEL, context).strip()
        extra = shlex.split(self.parameterAsString(parameters, self.EXTRA, context))
        return [
            find_program(self.parameterAsString(parameters, self.PROGRAM, context).strip()),
            command,
            self._scene(parameters, context),
            # QGIS has asked whether an older file may be replaced.
            *("--output", output, "--overwrite"),
            *(("--model", model) if model else ()),
            *extra,
        ]

    def _scene(self, parameters: Parameters, context: QgsProcessingContext) -> str:
        """Path of the scene: the product's, or that of the file in which a layer lies."""
        product = self.parameterAsFile(parameters, self.PRODUCT, context)
        if product:
            return product
        layer = self.parameterAsRasterLayer(parameters, self.SCENE, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, self.SCENE))
        source = layer.source().partition("|")[0]
        if layer.providerType() != "gdal" or not os.path.exists(source):
            raise QgsProcessingException(
                f"The layer {layer.name()} does not lie in a file of its own. Save it as a GeoTIFF, or give the"
                " product file."
            )
        return source


class Styling(QgsProcessingLayerPostProcessorInterface):
    """Gives the loaded map the style that geoseg wrote beside it."""

    # QGIS keeps a bare pointer, and the algorithm is gone before the layer is loaded.
    alive: ClassVar[list[Styling]] = []

    @classmethod
    def of(cls, style: Path) -> Styling:
        made = cls()
        made.style = style
        cls.alive.append(made)
        return made

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        message, is_loaded = layer.loadNamedStyle(str(self.style))
        if not is_loaded:
            feedback.reportError(f"{self.style}: {message}")
        layer.triggerRepaint()


def find_program(name: str) -> str:
    """Path of the geoseg program.

    Raises:
        QgsProcessingException: There is none.
    """
    found = shutil.which(os.path.expanduser(name))
    if found is None:
        raise QgsProcessingException(
            f"There is no program {name}. Install geoseg, and give the path of its program under Advanced Parameters or"
            f" in the environment variable {PROGRAM_VARIABLE}."
        )
    return found


def run(arguments: list[str], feedback: QgsProcessingFeedback) -> tuple[int, list[str]]:
    """Run a program; what it says goes to the log line by line.

    Args:
        arguments: The program and its arguments.
        feedback: Where messages go, and who says whether to stop.

    Returns:
        The exit code, and the lines of standard error.
    """
    # Without a window of its own on Windows.
    hidden = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {}
    process = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        encoding="utf-8", errors="replace", **hidden,
    )  # fmt: skip
    lines: Lines = queue.Queue()
    readers = [
        threading.Thread(target=_collect, args=(stream, name, lines), daemon=True)
        for name, stream in (("out", process.stdout), ("err", process.stderr))
    ]
    for reader in readers:
        reader.start()
    said: list[str] = []
    while process.poll() is None:
        if feedback.isCanceled():
            _stop(process)
        _pass_on(lines, said, feedback, POLL_SECONDS)
    for reader in readers:
        reader.join(LAST_WORDS_SECONDS)
    while not lines.empty():
        _pass_on(lines, said, feedback, 0)
    return process.returncode, said


def environment() -> dict[str, str]:
    """The environment of QGIS without what is for its own libraries alone."""
    kept = {name: value for name, value in os.environ.items() if name not in QGIS_ONLY}
    return {**kept, "PYTHONIOENCODING": "utf-8"}


def trouble(said: list[str]) -> list[str]:
    """The lines in which geoseg says what is wrong and what to do; all of the last ones if it died without."""
    first = next((number for number, line in enumerate(said) if line.startswith("geoseg: ")), max(0, len(said) - 5))
    return said[first:]


def _collect(stream: IO[str], name: str, lines: Lines) -> None:
    with stream:
        for line in stream:
            lines.put((name, line.rstrip()))


def _pass_on(lines: Lines, said: list[str], feedback: QgsProcessingFeedback, seconds: float) -> None:
    """Wait for one line and tell it; what stands on standard output is the path that QGIS knows already."""
    try:
        name, line = lines.get(timeout=seconds) if seconds else lines.get_nowait()
    except queue.Empty:
        return
    if name == "out":
        return
    said.append(line)
    if line.lstrip().startswith("warning:"):
        feedback.pushWarning(line)
    else:
        feedback.pushConsoleInfo(line)


def _stop(process: subprocess.Popen[str]) -> None:
    """End the run; geoseg removes what is unfinished first."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
