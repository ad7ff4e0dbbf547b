"""Where the time of capture and completion goes, operator by operator."""

import torch
from torch import nn
from torch.autograd import DeviceType

from nbhelpers.benchmarks import Row
from tests.bench.capture import Pass
from tests.bench.operators import Tell

SHOWN = 20  # operators


@torch.no_grad()
def bench_profile(
    unet: nn.Module,
    *,
    batch: int = 1,
    latent: tuple[int, int] = (64, 64),
    rounds: int = 1,
    tell: Tell = lambda name: None,
) -> tuple[list[Row], list[Row]]:
    """Capture and completion under PyTorch's profiler.

    Returns:
        The operators that take most, with their share of the whole; no targets.
    """
    from torch.profiler import ProfilerActivity, profile

    one = Pass(unet, batch, latent)
    cuda = one.latent.device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    tell("warm-up")
    one.ours()
    with profile(activities=activities) as watched:
        for _ in range(rounds):
            tell("capture + A S")
            one.ours()
        if cuda:
            torch.cuda.synchronize()

    def spent(event: object) -> float:
        name = "self_device_time_total" if cuda else "self_cpu_time_total"
        return float(getattr(event, name)) / 1e6 / rounds

    events = watched.key_averages()
    if cuda:  # the kernels alone; the operators that launched them would count twice
        events = [event for event in events if event.device_type == DeviceType.CUDA]
    whole = sum(map(spent, events))
    order = sorted(events, key=spent, reverse=True)[:SHOWN]
    rows = [
        {
            "operator": event.key[:80],
            "calls": event.count // rounds,
            "seconds": round(spent(event), 6),
            "share": round(spent(event) / whole, 4) if whole else None,
        }
        for event in order
    ]
    return rows, []
