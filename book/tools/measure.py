"""Run every chapter alone and note its seconds and memory: data/benchmarks/chapters.json.

`make status` runs this; the book's status page shows what it wrote.
"""

import json
import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path

import jupytext
import torch
from nbclient import NotebookClient
from nbformat import NotebookNode
from tqdm import tqdm

from book.tools.notebooks import is_notebook
from nbhelpers.files import write_whole

BOOK = Path(__file__).parents[1]
TARGET = BOOK.parent / "data" / "benchmarks" / "chapters.json"
PACKAGES = ("torch", "diffusers", "transformers", "spacy", "matplotlib", "jupyter-book")


def notebooks() -> list[Path]:
    """The pages that run, in the order of their names, without the status page itself."""
    pages = [p for p in sorted(BOOK.glob("*.md")) if is_notebook(p)]
    return [page for page in pages if page.stem != "status"]


def run(page: Path) -> tuple[NotebookNode, dict[str, float]]:
    """Run one page in a kernel of its own; return it with outputs, its seconds and peak MiB."""
    client = NotebookClient(
        jupytext.read(page, fmt="md:myst"),
        timeout=None if "NBHELPERS_MODEL" in os.environ else 300,
        kernel_name="python3",
        resources={"metadata": {"path": str(page.parent)}},
    )
    with client.setup_kernel():
        started = time.monotonic()
        for index, cell in enumerate(client.nb.cells):
            client.execute_cell(cell, index)
        seconds = time.monotonic() - started
        process = client.km.provisioner.process  # type: ignore[union-attr]  # the kernel's
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]
    return client.nb, {"seconds": round(seconds, 1), "peak_mib": round(peak)}


def surroundings() -> dict[str, object]:
    """Model, device, machine and versions that a run rests on."""
    device = os.environ.get("NBHELPERS_DEVICE", "cpu")
    return {
        "model": os.environ.get("NBHELPERS_MODEL", "stickers"),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def main() -> None:
    chapters = {page.stem: run(page)[1] for page in tqdm(notebooks(), "chapters")}
    text = json.dumps(surroundings() | {"chapters": chapters}, indent=1)
    print(write_whole(TARGET, f"{text}\n".encode()))


if __name__ == "__main__":
    main()
