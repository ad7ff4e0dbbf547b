"""What kernels need that have run a chapter, one and several: `python -m book.tools.memory`.

RSS counts the pages that kernels share (libraries, weights) for each of them, PSS shares them
out. So the PSS of several, added up, is what a server has to have. What is a kernel's own belongs
to no file. Linux only: from /proc.
"""

import argparse
import re
from contextlib import ExitStack
from pathlib import Path

from jupytext import read
from nbclient import NotebookClient

from book.tools.notebooks import instructor_notebook

MIB = 1024  # the kernel of Linux counts in KiB


def measure(page: Path, kernels: int, seconds: int = 900) -> list[dict[str, int]]:
    """Run a page in several kernels, cell by cell in turn, and read what each then holds.

    Args:
        page: Its source in the book's folder.
        kernels: How many, at least 1.
        seconds: The longest that a cell may take.

    Returns:
        For each kernel its peak, RSS, PSS and what is its own, in MiB.

    Raises:
        OSError: This system has no ``/proc/PID/smaps_rollup``.
    """
    notebook = instructor_notebook(page) if "exercise" in page.read_text("utf-8") else read(page)
    found_at = {"metadata": {"path": str(page.parent)}}
    clients = [
        NotebookClient(notebook.copy(), timeout=seconds, kernel_name="python3", resources=found_at)
        for _ in range(kernels)
    ]
    with ExitStack() as running:
        for client in clients:
            running.enter_context(client.setup_kernel())
        for number, cell in enumerate(notebook.cells):
            for client in clients:
                client.execute_cell(cell, number)
        processes = [client.km.provisioner.process for client in clients]  # type: ignore[union-attr]
        return [_held(process.pid) for process in processes]


def _held(process: int) -> dict[str, int]:
    """What a process holds, in MiB."""
    folder = Path(f"/proc/{process}")
    text = (folder / "status").read_text() + (folder / "smaps_rollup").read_text()
    names = {"peak": "VmHWM", "rss": "Rss", "pss": "Pss", "own": "Anonymous"}
    return {k: int(re.search(rf"^{v}:\s+(\d+)", text, re.M)[1]) // MIB for k, v in names.items()}  # type: ignore[index]


def main() -> None:
    """Print one line a kernel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, nargs="?", default=Path("book/05_attention.md"))
    parser.add_argument("--kernels", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    options = parser.parse_args()
    print("kernels  peak MiB  RSS MiB  PSS MiB  own MiB")
    for count in options.kernels:
        for held in measure(options.page.resolve(), count):
            row = f"{count:7}  {held['peak']:8}  {held['rss']:7}  {held['pss']:7}"
            print(f"{row}  {held['own']:7}", flush=True)


if __name__ == "__main__":
    main()
