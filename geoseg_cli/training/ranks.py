"""Several processes that train one network, as ``torchrun`` starts them; or one alone.

Every process computes the gradients of its own samples, their mean moves the weights of all. The first process
validates, reports and writes; the others wait for it in their next exchange.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first may read data or validate all this time."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of a run.

    Attributes:
        rank: Its number.
        size: How many there are.
        device: Where it computes, ``cpu`` or ``cuda:N``.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this process validates, reports and writes."""
        return self.rank == 0

    def wrap(self, network: nn.Module, channels: int) -> nn.Module:
        """The network, with weights as in the first process and gradients that are means over all processes."""
        if self.size == 1:
            return network
        number = None if self.device == "cpu" else [torch.device(self.device).index]
        return DistributedDataParallel(
            network, device_ids=number, find_unused_parameters=has_idle_weights(network, channels)
        )

    def total(self, *values: float) -> tuple[float, ...]:
        """Sums over all processes; every process must call it, with as many values."""
        if self.size == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(shared)
        return tuple(shared.tolist())

    def wait(self) -> None:
        """Wait until every process has come here."""
        self.total(0.0)


def has_idle_weights(network: nn.Module, channels: int) -> bool:
    """Whether the network holds weights that no output depends on, as some published ones do."""
    probe = copy.deepcopy(network).train()
    device = next(probe.parameters()).device
    with torch.random.fork_rng(devices=[]):
        outputs = probe(torch.zeros(2, channels, 64, 64, device=device))
    several = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    torch.stack([output.sum() for output in several]).sum().backward()  # type: ignore[no-untyped-call]
    return any(weight.requires_grad and weight.grad is None for weight in probe.parameters())


@contextmanager
def joined(rank: int, size: int, device: str) -> Iterator[Ranks]:
    """Join the processes of a run; the address of the first comes from torchrun.

    Args:
        rank: Number of this process.
        size: How many there are; 1 joins nothing.
        device: Where this process computes, ``cpu`` or ``cuda:N``.
    """
    if device != "cpu":
        torch.cuda.set_device(device)
    if size == 1:
        yield Ranks(device=device)
        return
    backend = "gloo" if device == "cpu" else "nccl"
    dist.init_process_group(backend, init_method="env://", rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield Ranks(rank, size, device)
    finally:
        dist.destroy_process_group()
