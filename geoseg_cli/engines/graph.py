"""The exported graph of a bundle: read, found to be self-contained, and held against the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoseg_cli.bundle import INT8_GRAPH, Bundle
from geoseg_cli.engines.onnx_scan import check_self_contained
from geoseg_cli.errors import ModelError

FLOAT = "tensor(float)"
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """An input or output of a graph as a runtime sees it.

    Attributes:
        name: Its name.
        kind: Type of its elements, ``tensor(float)`` for float32.
        shape: One entry per axis; a number is fixed, all else is free.
    """

    name: str
    kind: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        """For messages."""
        return f"{self.name} {self.kind} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class GraphSize:
    """Tiles, rows and columns that a graph takes at a time; None where it takes any number."""

    batch: int | None
    height: int | None
    width: int | None

    @property
    def is_free(self) -> bool:
        """Whether it takes any number of each."""
        return (self.batch, self.height, self.width) == (None, None, None)

    def fit(self, tile: FloatArray, where: str) -> FloatArray:
        """A tile (1, C, H, W) repeated and mirrored up to what the graph takes.

        Raises:
            ModelError: The tile is larger.
        """
        if self.is_free:
            return tile
        height, width = tile.shape[2:]
        to_height, to_width = self.height or height, self.width or width
        if height > to_height or width > to_width:
            raise ModelError(
                f"{where} takes tiles of {to_height} x {to_width} px, not of {height} x {width} px",
                f"use --tile {min(to_height, to_width)}",
            )
        missing = ((0, (self.batch or 1) - 1), (0, 0), (0, to_height - height), (0, to_width - width))
        return np.pad(tile, missing, mode="symmetric")


def graph_asset(precision: str) -> str:
    """Name of the asset that holds the graph for a precision."""
    return INT8_GRAPH if precision == "int8" else "onnx"


def read_graph(bundle: Bundle, precision: str = "fp32") -> bytes:
    """Read the graph of a bundle before any runtime does.

    Args:
        bundle: Whose graph.
        precision: What is computed in; ``int8`` has a graph of its own.

    Raises:
        ModelError: There is none, it is not the card's, it needs other files or operators from elsewhere.
    """
    path = bundle.file(graph_asset(precision))
    content = path.read_bytes()
    check_self_contained(content, f"bundle {bundle.name}: {path.name}")
    return content


def tensor_names(bundle: Bundle) -> tuple[str, str]:
    """Names of the graph's input and output as the card states them."""
    properties = bundle.card.properties
    return properties.inputs[0].name, properties.outputs[0].name


def check_contract(bundle: Bundle, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]) -> GraphSize:
    """Compare the graph's input and output with the card; returns what the graph takes at a time.

    Raises:
        ModelError: Names, types, channels or classes differ, or the output is fixed to another size than the input.
    """
    wanted_input, wanted_output = tensor_names(bundle)
    sides = (
        ("input", inputs, wanted_input, bundle.input_spec.channels),
        ("output", outputs, wanted_output, len(bundle.legend.classes)),
    )
    for side, found, name, depth in sides:
        fits = len(found) == 1 and (found[0].name, found[0].kind) == (name, FLOAT) and _has(depth, found[0].shape)
        if not fits:
            raise ModelError(
                f"bundle {bundle.name}: the graph's {side} is {', '.join(map(str, found))}, the card wants"
                f" {name} {FLOAT} [any, {depth}, any, any]",
                "export the bundle again, or correct the card",
            )
    taken, given = (_sizes(found[0].shape) for found in (inputs, outputs))
    if any(size not in (None, wanted) for size, wanted in zip(given, taken, strict=True)):
        raise ModelError(
            f"bundle {bundle.name}: the graph turns {inputs[0]} into {outputs[0]}: another size",
            "export the bundle again; logits have the rows and columns of the input",
        )
    return GraphSize(*taken)


def check_answer(bundle: Bundle, answer: FloatArray, shape: tuple[int, ...]) -> None:
    """Refuse logits of another shape, which numpy might repeat over all pixels of a tile.

    Raises:
        ModelError: They are.
    """
    if answer.shape != shape:
        raise ModelError(
            f"bundle {bundle.name}: the graph answers {list(answer.shape)} where {list(shape)} is wanted",
            "export the bundle again; logits have the rows and columns of the input",
        )


def _has(depth: int, shape: tuple[int | str | None, ...]) -> bool:
    return len(shape) == 4 and shape[1] == depth


def _sizes(shape: tuple[int | str | None, ...]) -> tuple[int | None, int | None, int | None]:
    batch, height, width = (size if isinstance(size, int) else None for size in (shape[0], *shape[2:]))
    return batch, height, width
