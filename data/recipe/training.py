"""One training loop for every part: progress, a log, and checkpoints that a run resumes from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm


class Stateful(Protocol):
    """Anything a checkpoint can hold: a module, an optimizer, an average of weights."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state_dict: dict, /) -> object: ...


def average_of(module: nn.Module, decay: float = 0.9995) -> EMAModel:
    """Return an exponential moving average of a module's parameters, warmed up."""
    return EMAModel(
        module.parameters(), decay=decay, use_ema_warmup=True, power=0.75, foreach=True
    )


def fit(
    name: str,
    take_step: Callable[[int, torch.Generator], Tensor],
    *,
    parameters: Iterable[nn.Parameter],
    kept: dict[str, Stateful],
    folder: Path,
    steps: int,
    rate: float,
    seed: int,
    weight_decay: float = 0.01,
    warmup: int = 100,
    average: EMAModel | None = None,
    watch: Callable[[int], dict[str, float]] | None = None,
    watch_every: int = 500,
    save_every_seconds: float = 120,
    device: str = "cpu",
    progress: bool = True,
) -> None:
    """Train by AdamW with a cosine rate, resuming from `folder` if it holds a checkpoint.

    The chance of step n comes from (seed, n) alone, so a run that was broken off and resumed
    sees the same batches as one that was not.

    Args:
        name: of the part, for the bar, the log and the checkpoint's file.
        take_step: (step, generator) -> the loss of one batch.
        parameters: what is trained.
        kept: what a checkpoint holds, by name; the optimizer is added.
        folder: for `{name}.ckpt` and `{name}.log.jsonl`.
        steps: in all.
        rate: peak learning rate.
        seed: of the batches.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up.
        average: of the parameters, updated after each step and kept with the rest.
        watch: returns figures to log every `watch_every` steps, and at the end.
        watch_every: steps between two calls of `watch`.
        save_every_seconds: between two checkpoints.
        device: of the generator that `take_step` gets.
        progress: whether to show a bar.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ckpt"
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(
        parameters, rate, (0.9, 0.99), weight_decay=weight_decay, fused=True
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, min(warmup, steps // 10 + 1), steps)
    kept = {**kept, "optimizer": optimizer, "schedule": schedule}
    if average is not None:
        kept["average"] = average
    done, spent = 0, 0.0
    if path.exists():
        # A run that began on another device goes on here.
        state = torch.load(path, weights_only=True, map_location=parameters[0].device)
        done, spent = state["step"], state["seconds"]
        for key, part in kept.items():
            part.load_state_dict(state[key])

    def save(step: int) -> None:
        partial = path.with_suffix(".partial")
        parts = {key: part.state_dict() for key, part in kept.items()}
        torch.save({"step": step, "seconds": seconds(), **parts}, partial)
        os.replace(partial, path)

    def log(**record: float) -> None:
        with (folder / f"{name}.log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    started = saved = time.monotonic()

    def seconds() -> float:
        return spent + time.monotonic() - started

    bar = tqdm(range(done, steps), name, steps, initial=done, disable=not progress, mininterval=10)
    mean: Tensor | None = None  # it stays on its device, for reading it stops a GPU's queue
    for step in bar:
        loss = take_step(step, torch.Generator(device).manual_seed(seed * 1_000_003 + step))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.step(parameters)
        mean = loss.detach() if mean is None else mean.lerp(loss.detach(), 0.02)
        last = step + 1 == steps
        if (step + 1) % 50 == 0 or last:
            bar.set_postfix(loss=f"{mean.item():.4f}")
            log(step=step + 1, loss=mean.item(), seconds=round(seconds(), 1))
        if watch is not None and ((step + 1) % watch_every == 0 or last):
            log(step=step + 1, **watch(step + 1))
        if last or time.monotonic() - saved > save_every_seconds:
            save(step + 1)
            saved = time.monotonic()


def half_precision(device: torch.device | str) -> torch.autocast:
    """Return the context that computes in bfloat16, which does nothing where that doesn't pay.

    A CPU without instructions for it emulates it: a step then takes twenty times as long.
    """
    kind = torch.device(device).type
    able = kind != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(kind, torch.bfloat16, enabled=able)


def publish(folder: Path) -> None:
    """Make saved models ready to ship: floats as float16, and no folder that they came from.

    diffusers writes the folder that a model was loaded from into its configuration.
    """
    from safetensors.torch import load_file, save_file

    for path in sorted(folder.rglob("*.safetensors")):
        tensors = {
            key: value.half() if value.is_floating_point() else value
            for key, value in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
    for path in sorted(folder.rglob("*.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
