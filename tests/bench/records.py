"""What a benchmark found, as a file: rows, targets, versions and machine."""

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from nbhelpers.benchmarks import FOLDER, Row
from nbhelpers.files import write_whole
from nbhelpers.versions import versions
from tests.bench.measure import Measured

PACKAGES = ("nbhelpers", "torch", "triton", "diffusers", "transformers", "numpy")


def rows_of(
    found: Mapping[str, Measured],
    case: Mapping[str, Any],
    differences: Mapping[str, float] | None = None,
) -> list[Row]:
    """A row for each way: the case, the way, how far its result is from the base's, its costs."""
    return [
        {**case, "way": name, "difference": (differences or {}).get(name), **measured.row()}
        for name, measured in found.items()
    ]


def target(
    what: str,
    found: float | None,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    unit: str = "x",
) -> Row:
    """A promise and what was found; not met where nothing could be measured."""
    met = found is not None and (
        (at_most is None or found <= at_most) and (at_least is None or found >= at_least)
    )
    wanted = f"<= {at_most:g}" if at_most is not None else f">= {at_least:g}"
    shown = None if found is None else round(found, 4)
    return {"what": what, "wanted": wanted, "unit": unit, "found": shown, "met": met}


def record(
    benchmark: str,
    device: torch.device,
    settings: Mapping[str, Any],
    rows: Sequence[Row],
    targets: Sequence[Row] = (),
) -> dict[str, Any]:
    """Everything about one benchmark, ready for JSON."""
    return {
        "benchmark": benchmark,
        "device": device.type,
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(device),
        "versions": versions(PACKAGES),
        "settings": dict(settings),
        "rows": list(rows),
        "targets": list(targets),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What it ran on, without the machine's name."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 1)  # other work that ran beside it
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        )
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        found |= {"gpu": gpu.name, "gpu_memory_gib": round(gpu.total_memory / 2**30, 1)}
        found |= {"capability": f"{gpu.major}.{gpu.minor}", "cuda": torch.version.cuda}
    return found


def write(found: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """Write a record under its benchmark's and device's name, whole or not at all."""
    name = f"{found['benchmark']}-{found['device']}.json"
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    return write_whole(folder / name, text.encode("utf-8"))


def _processor() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    named = (
        re.search(r"^model name\s*:\s*(.+)$", path.read_text(encoding="utf-8"), re.M)
        if path.exists()
        else None
    )
    return named[1].strip() if named else platform.processor() or platform.machine()
