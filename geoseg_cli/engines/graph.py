"""The exported graph of a bundle: read, found to be self-contained, and held against the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.onnx_scan import check_self_contained
from geoseg_cli.errors import ModelError

FLOAT = "tensor(float)"


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


def read_graph(bundle: Bundle) -> bytes:
    """Read the graph of a bundle before any runtime does.

    Raises:
        ModelError: There is none, it is not the card's, it needs other files or operators from elsewhere.
    """
    path = bundle.file("onnx")
    content = path.read_bytes()
    check_self_contained(content, f"bundle {bundle.name}: {path.name}")
    return content


def tensor_names(bundle: Bundle) -> tuple[str, str]:
    """Names of the graph's input and output as the card states them."""
    properties = bundle.card.properties
    return properties.inputs[0].name, properties.outputs[0].name


def check_contract(bundle: Bundle, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]) -> None:
    """Compare the graph's input and output with the card.

    Raises:
        ModelError: Names, types, channels or classes differ, or a size is fixed.
    """
    wanted_input, wanted_output = tensor_names(bundle)
    sides = (
        ("input", inputs, wanted_input, bundle.input_spec.channels),
        ("output", outputs, wanted_output, len(bundle.legend.classes)),
    )
    for side, found, name, depth in sides:
        fits = len(found) == 1 and (found[0].name, found[0].kind) == (name, FLOAT) and _is_free(found[0].shape, depth)
        if not fits:
            raise ModelError(
                f"bundle {bundle.name}: the graph's {side} is {', '.join(map(str, found))}, the card wants"
                f" {name} {FLOAT} [any, {depth}, any, any]",
                "export the bundle again, or correct the card",
            )


def _is_free(shape: tuple[int | str | None, ...], depth: int) -> bool:
    return len(shape) == 4 and shape[1] == depth and not any(isinstance(shape[axis], int) for axis in (0, 2, 3))
