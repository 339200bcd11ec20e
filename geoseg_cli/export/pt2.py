"""Export a network as a ``.pt2`` archive of torch.export, of any batch, height and width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.errors import ModelError
from geoseg_cli.export.onnx_file import FREE_AXES, quiet_exporter, refuse_fixed_axes
from geoseg_cli.export.parity import FloatArray, Run, Shape, draw_pixels, evaluating, summarise

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

# What a node says of the place in the source where it was made.
_ORIGINS = ("stack_trace", "source_fn_stack", "nn_module_stack", "from_node", "torch_fn")


def write_pt2(module: nn.Module, path: Path, shape: Shape, extra: Mapping[str, str]) -> None:
    """Export a network to a file that ``torch.export.load`` reads.

    Args:
        module: (N, C, H, W) -> (N, K, H, W) float32 in evaluation mode, on the CPU.
        path: File to write; replaced if it exists.
        shape: (N, C, H, W) to trace it at.
        extra: Name -> content of text files to put into the archive.

    Raises:
        ModelError: The network cannot be exported, or only for the traced size.
    """
    import torch

    free = torch.export.Dim.DYNAMIC
    with evaluating(module), quiet_exporter():
        try:
            with _no_special_sizes():
                program = torch.export.export(
                    module,
                    (torch.from_numpy(draw_pixels(shape)),),
                    dynamic_shapes=({0: free, 2: free, 3: free},),
                    prefer_deferred_runtime_asserts_over_guards=True,
                )
        except Exception as error:  # torch.export's errors have no common class below Exception
            raise ModelError(
                f"the network cannot be exported by torch.export: {summarise(error)}",
                "look for a size that the network's code turns into a constant while it is traced",
            ) from error
        _check_axes(program)
        _forget_assumptions(program)
        _forget_origin(program)
        torch.export.save(program, path, extra_files=dict(extra))


def open_pt2(path: Path) -> Run:
    """Open an archive of torch.export on the CPU.

    Such archives are code; open none that comes from elsewhere.
    """
    import torch

    with quiet_exporter():
        module = torch.export.load(path).module()

    def run(pixels: FloatArray) -> FloatArray:
        with torch.inference_mode():
            logits: FloatArray = module(torch.from_numpy(pixels)).numpy()
        return logits

    return run


@contextmanager
def _no_special_sizes() -> Iterator[None]:
    """Keep the tracer from treating sizes 0 and 1 apart, as torch's ONNX exporter does."""
    from torch.fx.experimental import _config

    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]  # put in when it is imported
        yield


def _forget_assumptions(program: ExportedProgram) -> None:
    """Take out the checks of sizes that the tracer adds.

    It notes what held at the traced size, such as that there is more than one attention window, and the program
    would refuse a tile with one. The operators themselves take any size; the comparison with the network shows it.
    """
    import torch
    from torch.utils._sympy.numbers import int_oo
    from torch.utils._sympy.value_ranges import ValueRanges

    checks = {torch.ops.aten._assert_scalar.default, torch.ops.aten.sym_constrain_range_for_size.default}
    for node in list(program.graph.nodes):
        if node.op == "call_function" and node.target in checks:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    sizes = {size.node.expr for size in _shape(program) if isinstance(size, torch.SymInt)}
    ranges = program.range_constraints
    for symbol in list(ranges):
        if symbol in sizes:
            ranges[symbol] = ValueRanges(1, int_oo)
        else:
            del ranges[symbol]


def _forget_origin(program: ExportedProgram) -> None:
    """Take out what tells of the machine that a program was made on."""
    for node in program.graph.nodes:
        for key in _ORIGINS:
            node.meta.pop(key, None)


def _check_axes(program: ExportedProgram) -> None:
    fixed = [name for axis, name in FREE_AXES.items() if isinstance(_shape(program)[axis], int)]
    if fixed:
        raise refuse_fixed_axes(fixed, tuple(_shape(program)))


def _shape(program: ExportedProgram) -> Sequence[Any]:
    """Sizes of the input; those that are free are symbols."""
    name = program.graph_signature.user_inputs[0]
    source = next(node for node in program.graph.nodes if node.name == name)
    shape: Sequence[Any] = source.meta["val"].shape
    return shape
