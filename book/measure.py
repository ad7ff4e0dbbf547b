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
from tqdm import tqdm

BOOK = Path(__file__).parent
TARGET = BOOK.parent / "data" / "benchmarks" / "chapters.json"
PACKAGES = ("torch", "diffusers", "transformers", "spacy", "matplotlib", "jupyter-book")


def measure(page: Path) -> dict[str, float]:
    """Run one chapter in a kernel of its own; return its seconds and peak memory in MiB."""
    client = NotebookClient(
        jupytext.read(page, fmt="md:myst"),
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(BOOK)}},
    )
    with client.setup_kernel():
        started = time.monotonic()
        for index, cell in enumerate(client.nb.cells):
            client.execute_cell(cell, index)
        seconds = time.monotonic() - started
        process = client.km.provisioner.process  # the kernel's
        status = Path(f"/proc/{process.pid}/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    return {"seconds": round(seconds, 1), "peak_mib": round(peak)}


def main() -> None:
    pages = [p for p in sorted(BOOK.glob("*.md")) if "kernelspec:" in p.read_text("utf-8")[:400]]
    pages = [p for p in pages if p.stem != "status"]
    record = {
        "model": os.environ.get("NBHELPERS_MODEL", "shapes"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "chapters": {page.stem: measure(page) for page in tqdm(pages, "chapters")},
    }
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    partial = TARGET.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(TARGET)
    print(TARGET)


if __name__ == "__main__":
    main()
