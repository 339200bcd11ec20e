"""One network on one engine in one precision: built, warmed up and timed in this process, which does nothing else.

A process of its own keeps peak memory, compilation and crashes of one case away from the others.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Step = Callable[[], None]

ENGINES = ("torch", "compile", "onnx", "openvino")
PRECISIONS = ("fp32", "bf16", "fp16")
MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
LEAST_ROUNDS, MOST_ROUNDS = 3, 200


@dataclass(frozen=True, slots=True)
class Case:
    """What to measure.

    Attributes:
        network: Name of a network, or "matmul" for the machine's peak.
        engine: "torch", "compile", "onnx" or "openvino".
        precision: "fp32", or "bf16" or "fp16" by autocast; "openvino" computes bf16 by itself.
        device: "cpu" or "cuda".
        side_px: Rows and columns of a tile.
        batch: Tiles at once.
        threads: Processor threads.
        seconds: How long to time.
        graph: The exported graph, for "onnx" and "openvino".
        config: Settings of the network.
    """

    network: str
    engine: str = "torch"
    precision: str = "fp32"
    device: str = "cpu"
    side_px: int = 256
    batch: int = 1
    threads: int = 1
    seconds: float = 3.0
    graph: str = ""
    config: dict[str, Any] = field(default_factory=dict)


def measure(case: Case) -> dict[str, Any]:
    """Measure a case; milliseconds per batch, seconds until the first answer, peak memory in MB.

    Core milliseconds are the processor time of all threads in the best round: other programs on the machine add little
    to it, where they add what they like to the time on the wall.
    """
    if case.network == "matmul":
        return measure_matmul(case)
    started = time.perf_counter()
    step = prepare(case)
    step()
    ready = time.perf_counter() - started
    rounds = time_rounds(step, case.seconds)
    walls = [one.wall_s for one in rounds]
    return {
        "ms": 1e3 * statistics.median(walls),
        "ms_best": 1e3 * min(walls),
        "ms_worst": 1e3 * max(walls),
        "core_ms": 1e3 * min(one.core_s for one in rounds),
        "rounds": len(rounds),
        "ready_s": ready,
        "peak_mb": peak_memory_mb(case.device),
    }


class Round(NamedTuple):
    """What one run of a step took: seconds on the wall, and of processor time in all threads of the process."""

    wall_s: float
    core_s: float


def time_rounds(step: Step, seconds: float) -> list[Round]:
    """Run a step for some time after two runs of warm-up; what each run took."""
    for _ in range(2):
        step()
    rounds: list[Round] = []
    until = time.perf_counter() + seconds
    while len(rounds) < LEAST_ROUNDS or (time.perf_counter() < until and len(rounds) < MOST_ROUNDS):
        started, core_started = time.perf_counter(), time.process_time()
        step()
        rounds.append(Round(time.perf_counter() - started, time.process_time() - core_started))
    return rounds


def prepare(case: Case) -> Step:
    """Load what a case needs; give a function that runs one batch to its end."""
    if case.engine == "onnx":
        return prepare_onnx(case)
    if case.engine == "openvino":
        return prepare_openvino(case)
    from geoseg_cli.networks import create_network, published_interface

    interface = published_interface(case.network)
    network = create_network(case.network, interface.bands, interface.classes, **case.config)
    return prepare_torch(network, (case.batch, interface.bands, case.side_px, case.side_px), case)


def prepare_torch(network: Any, shape: tuple[int, ...], case: Case) -> Step:
    """Move a network to its device, channels last, compiled if asked; give a function that runs one batch."""
    import torch

    set_up_torch(case.threads)
    network = network.eval().to(case.device).to(memory_format=torch.channels_last)
    x = torch.rand(shape, device=case.device).contiguous(memory_format=torch.channels_last)
    run = torch.compile(network) if case.engine == "compile" else network

    def step() -> None:
        with torch.inference_mode(), autocast(case):
            run(x)
        if case.device == "cuda":
            torch.cuda.synchronize()

    return step


def set_up_torch(threads: int) -> None:
    """Use some threads; make fp32 mean fp32 on CUDA, where convolutions would round to TF32 by default."""
    import torch

    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def autocast(case: Case) -> AbstractContextManager[Any]:
    """Give the context that a precision needs."""
    import torch

    reduced = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(case.precision)
    return nullcontext() if reduced is None else torch.autocast(case.device, dtype=reduced)


def prepare_onnx(case: Case) -> Step:
    """Open an exported graph; give a function that runs one batch."""
    import numpy as np
    import onnxruntime

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[case.device]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(case.graph, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"ONNX Runtime has no {provider} here")
    (source,) = session.get_inputs()
    x = np.random.default_rng(0).random((case.batch, source.shape[1], case.side_px, case.side_px), np.float32)
    return lambda: session.run(None, {source.name: x})


def prepare_openvino(case: Case) -> Step:
    """Compile an exported graph as the engine does: every tile of a batch alone, one a thread at the same time."""
    import numpy as np

    from geoseg_cli.engines.openvino_graph import compile_for, openvino, read_model, settings_for

    model = read_model(Path(case.graph).read_bytes())
    channels = model.inputs[0].get_partial_shape()[1].get_length()
    settings = settings_for(case.precision, case.threads)
    compiled = compile_for(model, (channels, case.side_px, case.side_px), settings)
    queue = openvino.AsyncInferQueue(compiled, case.threads)
    x = np.random.default_rng(0).random((1, channels, case.side_px, case.side_px), np.float32)

    def step() -> None:
        for _ in range(case.batch):
            queue.start_async({0: x}, share_inputs=True)
        queue.wait_all()

    return step


def measure_matmul(case: Case) -> dict[str, float]:
    """Measure the best rate of a square matrix product in GFLOP/s, and in GFLOP per second of processor time."""
    import torch

    set_up_torch(case.threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[case.precision]
    side = MATMUL_SIDE[case.device]
    one, other = (torch.rand(side, side, device=case.device).to(dtype) for _ in range(2))

    def step() -> None:
        torch.mm(one, other)
        if case.device == "cuda":
            torch.cuda.synchronize()

    rounds, gflop = time_rounds(step, case.seconds), 2e-9 * side**3
    return {
        "gflops": gflop / min(one.wall_s for one in rounds),
        "gflop_core_s": gflop / min(one.core_s for one in rounds),
    }


def peak_memory_mb(device: str) -> float:
    """Tell the most memory that was taken: of the process on a CPU, of torch's allocator on CUDA."""
    if device == "cuda" and "torch" in sys.modules:
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would begin with the peak of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def export_graph(network: str, path: str) -> None:
    """Export a network with random weights."""
    from geoseg_cli.export.onnx_file import write_onnx
    from geoseg_cli.networks import create_network, published_interface

    interface = published_interface(network)
    write_onnx(create_network(network, interface.bands, interface.classes).eval(), Path(path), interface.bands)


def main() -> None:
    """Carry out the one order on the command line and print its result as the last line."""
    order = json.loads(sys.argv[1])
    if "export" in order:
        export_graph(order["export"], order["path"])
        print(json.dumps({}))
    else:
        case = Case(**order)
        print(json.dumps(asdict(case) | measure(case)))


if __name__ == "__main__":
    main()
