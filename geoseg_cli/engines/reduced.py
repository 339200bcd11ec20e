"""Reduced precisions on a CPU: which of them may be chosen unasked, and what is said of one that was asked for."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from geoseg_cli.bundle import INT8_GRAPH, Bundle
from geoseg_cli.engines import fidelity
from geoseg_cli.engines.fidelity import Fidelity, floor_percent
from geoseg_cli.engines.prepared import NotPreparedError
from geoseg_cli.errors import EngineError, ModelError

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine
    from geoseg_cli.engines.onnx_engine import OnnxEngine
    from geoseg_cli.engines.openvino_engine import OpenVinoEngine

# In LALE bf16 is ahead of int8 wherever a processor has it, because attention and norms stay fp32 in int8.
_FASTER_THAN_FP32 = {"openvino": ("bf16", "int8"), "onnx": ("int8",)}


def precisions_to_try(bundle: Bundle, engine: str) -> tuple[str, ...]:
    """Precisions that may be faster than fp32 in an engine on a CPU, in the order to try; int8 where it has a file."""
    found = _FASTER_THAN_FP32.get(engine, ())
    return tuple(one for one in found if one != "int8" or INT8_GRAPH in bundle.card.assets)


def open_if_shown(
    bundle: Bundle, engine: str, precision: str, threads: int, only_prepared: bool = False
) -> tuple[Engine, str]:
    """Open an engine in a reduced precision if that is shown to give the classes of fp32, and to be faster.

    Args:
        bundle: Whose network to run.
        engine: ``openvino`` or ``onnx``.
        precision: One of :func:`precisions_to_try`.
        threads: As :attr:`geoseg_cli.engines.EngineOptions.threads`.
        only_prepared: Whether not to be opened where something must be compiled or measured first.

    Returns:
        The engine, and what the golden tiles show, to stand behind its name.

    Raises:
        EngineError: It is not shown, or the precision does not run here.
        NotPreparedError: Something would have to be compiled or measured.
    """
    held_out = fidelity.held_out_fidelity(bundle, engine, precision)
    if held_out is None or "golden" not in bundle.card.assets:
        raise EngineError("its agreement with fp32 was not measured")
    if held_out.trouble:
        raise EngineError(f"on held-out tiles {held_out.trouble}")
    if precision == "int8":
        _require_gain(bundle, engine)
    opened = _open(bundle, engine, precision, threads, only_prepared)
    try:
        golden = _golden(opened, bundle, only_prepared)
        if golden.trouble:
            raise EngineError(f"on the golden tiles {golden.trouble}")
    except BaseException:
        opened.close()
        raise
    return opened, f" in {precision}: {floor_percent(golden.same)} of the golden tiles' pixels as in fp32"


def describe_asked(bundle: Bundle, engine: Engine, only_prepared: bool = False) -> str:
    """What is known of a reduced precision that was asked for by name, to stand behind the engine's name.

    The golden tiles run for it where this machine has no answer yet. Empty for fp32 and where nobody measured.
    """
    if engine.precision not in _FASTER_THAN_FP32.get(engine.name, ()):
        return ""
    held_out = fidelity.held_out_fidelity(bundle, engine.name, engine.precision)
    golden = None
    if "golden" in bundle.card.assets:
        with suppress(EngineError, ModelError):  # no reason to refuse what was asked for
            golden = _golden(engine, bundle, only_prepared)  # type: ignore[arg-type]  # engines of the table
    shown = [(golden, "the golden"), (held_out, "held-out")]
    parts = [f"{floor_percent(one.same)} of {tiles} tiles' pixels" for one, tiles in shown if one]
    said = f"{' and '.join(parts)} as in fp32" if parts else "its agreement with fp32 was not measured"
    return f" in {engine.precision}: {said}{_doubt(held_out, golden)}"


def _golden(engine: OpenVinoEngine | OnnxEngine, bundle: Bundle, only_prepared: bool) -> Fidelity:
    if not only_prepared:
        return fidelity.golden_fidelity(engine, bundle)
    kept = fidelity.kept_fidelity(engine, bundle)
    if kept is None:
        raise NotPreparedError
    return kept


def _doubt(held_out: Fidelity | None, golden: Fidelity | None) -> str:
    """What keeps ``auto`` from this precision; empty where its classes are those of fp32."""
    if any(one is not None and one.trouble for one in (held_out, golden)):
        least = f"{100 * fidelity.LEAST_SAME:g} % of the pixels and an IoU of {fidelity.LEAST_IOU:g} in every class"
        return f"; auto would not choose it, which wants {least}"
    missing = "held-out" if held_out is None else "" if golden else "golden"
    return f"; auto would not choose it: {missing} tiles were not measured" if missing else ""


def _require_gain(bundle: Bundle, engine: str) -> None:
    speed = fidelity.held_out_speed(bundle, engine, "int8")
    # Not `speed <= 1`: NaN is no gain either.
    if speed is None or not speed > 1:
        measured = "was not measured" if speed is None else f"is {speed:.2f} times that of fp32"
        raise EngineError(f"its speed {measured}")


def _open(
    bundle: Bundle, engine: str, precision: str, threads: int, only_prepared: bool
) -> OpenVinoEngine | OnnxEngine:
    if engine == "openvino":
        from geoseg_cli.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(bundle, "cpu", precision, threads, only_prepared)
    from geoseg_cli.engines.onnx_engine import OnnxEngine

    return OnnxEngine(bundle, "cpu", precision, threads)
