"""What a system costs: seconds and memory for a picture, in a process of its own."""

import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nbhelpers.datasets.coco import IGNORED
from nbhelpers.evaluation.batched import one_thread
from nbhelpers.evaluation.jobs import Job
from nbhelpers.evaluation.journal import canonical
from nbhelpers.files import write_whole

FILE = "costs.json"
PICTURES = 5  # after a first one, which isn't counted
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure_costs(jobs: Mapping[str, Job], folder: Path) -> None:
    """Measures what each method costs, and keeps it in the folder.

    Nothing is measured twice with the same code, weights and settings.

    Args:
        jobs: One of each method.
        folder: Gets ``costs.json``.

    Raises:
        OSError: The folder can't be written to.
        ValueError: The file is damaged.
    """
    known = read_costs(folder)
    for name, job in jobs.items():
        settings = job.settings()
        of = hashlib.sha256(canonical([settings[k] for k in ("variants", "model", "code")]))
        if known.get(name, {}).get("of") != of.hexdigest():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                known[name] = pool.submit(measure, job).result() | {"of": of.hexdigest()}
            write_whole(folder / FILE, (json.dumps(known, indent=1) + "\n").encode())


def read_costs(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns what was measured of each method; nothing where nothing was.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / FILE
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_bytes()) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and run again") from error
    return found


def measure(job: Job, pictures: int = PICTURES) -> dict[str, Any]:
    """Reads the first pictures of a job, each with the names of all its things in one call.

    A system's own choices, which all are read, cost alike: the seconds are those of one. What a
    call reads of a system's weights is timed with it.

    Args:
        job: Says which method; the model is loaded, and a picture read, before the clock starts.
        pictures: How many.

    Returns:
        The `seconds` of one core, or of the clock on a GPU, and the largest `mib` that the process
        held (on a GPU, that PyTorch had allocated there); None where the system doesn't tell.
    """
    reader = job.reader()
    scenes, asked = replace(job, prompts="classes").scenes, []
    for number in scenes.image_ids[: pictures + 1]:
        present = [int(c) for c in np.unique(scenes.class_map(number)) if c not in (0, IGNORED)]
        asked.append((scenes.image(number), [scenes.categories[c] for c in present]))
    on_gpu = job.device.startswith("cuda")
    clock = time.perf_counter if on_gpu else time.process_time
    with one_thread():
        reader.together(*asked[0])
        _reset_peak(job.device)
        before = clock()
        for image, texts in asked[1:]:
            reader.together(image, texts)
        if on_gpu:
            torch.cuda.synchronize(job.device)
        seconds = (clock() - before) / (len(asked) - 1) / len(reader.names)
    return {"seconds": seconds, "mib": _peak(job.device), "device": job.device}


def _reset_peak(device: str) -> None:
    """Forgets the largest amount of memory held so far."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR.exists():
        CLEAR.write_text("5")


def _peak(device: str) -> float | None:
    """Returns the largest amount of memory held since, in MiB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    if not STATUS.exists():
        return None
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
