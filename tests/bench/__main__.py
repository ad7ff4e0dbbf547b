"""``python -m tests.bench``: measure, write to ``data/benchmarks``, show."""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from nbhelpers import benchmarks
from nbhelpers.cli import Parser, guarded
from nbhelpers.cli.evaluate import whole
from nbhelpers.models import find_device
from tests.bench import records, report

ROOT = Path(__file__).parents[2]
TESTS = (
    "kernels",
    "kernels_sweep",
    "kernels_triton",
    "attention",
    "scores",
    "completion",
    "bench",
)
LIMIT = 600  # seconds for everything
EPILOG = """
complete   one layer's completion against the number of locations
capture    one pass of a UNet of Stable Diffusion 1.5's shape, random weights
sweep      intersections and unions at all thresholds
segment    the whole way, pictures and phrases to masks
profile    where the time of capture and completion goes
report     what was measured: tables, targets, and the figures with --out
all        the tests, then everything above, in under ten minutes on a GPU
"""
Found = tuple[list[benchmarks.Row], list[benchmarks.Row]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark; the exit code is 0, 1 where a part of `all` failed, 2 for bad input."""
    parser = Parser(
        prog="python -m tests.bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog=EPILOG,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("what", choices=(*benchmarks.BENCHMARKS, "report", "all"), metavar="WHAT")
    add("--device", default="cpu", help="cpu (one thread) or cuda; default cpu")
    add("--rounds", type=whole, help="how often each way runs; default 3 or 5, on a GPU 10")
    add("--batches", type=whole, nargs="+", help="capture: sizes of the batch")
    add("--sides", type=whole, nargs="+", help="complete: sides of the square grids")
    add(
        "--latent", type=whole, default=64, help="capture, profile: side of the latent; default 64"
    )
    add("--model", help="segment: a model of load_models, or sd15 for random weights of its shape")
    add("--pictures", type=whole, default=4, help="segment: pictures, two phrases each; default 4")
    add("--folder", type=Path, default=benchmarks.FOLDER, help="where the records lie")
    add("--out", type=Path, help="report: a folder for the figures")

    def command() -> int:
        options = parser.parse_args(arguments)
        if options.what == "report":
            return show(options)
        device = usable(options.device)
        return everything(options) if options.what == "all" else one(options, device)

    return guarded("bench", command)


def usable(name: str) -> torch.device:
    """The device, made ready: on a CPU one thread, so that ratios don't depend on the cores."""
    device = find_device(name)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"benchmarks are for cpu and cuda; got {name!r}")
    if device.type == "cpu":
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(device)  # on whose stream events and graphs then are
    return device


def one(options: Any, device: torch.device) -> int:
    """One benchmark: run it with a progress bar, write its record, print its table."""
    cuda = device.type == "cuda"
    rounds = options.rounds or (10 if cuda else {"capture": 3, "segment": 3}.get(options.what, 5))
    with tqdm(desc=options.what, unit=" runs") as bar:

        def tell(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        settings, run = prepare(options, device)
        if options.what != "profile":
            settings |= {"rounds": rounds}
            rows, targets = run(rounds=rounds, tell=tell)
        else:
            rows, targets = run(tell=tell)
    found = records.record(options.what, device, settings, rows, targets)
    path = records.write(found, options.folder)
    print(report.lay_out(found))
    if targets:
        print(f"\n{report.verdicts(found)}")
    print(f"\nwritten to {path}")
    return 0


def prepare(options: Any, device: torch.device) -> tuple[dict[str, Any], Callable[..., Found]]:
    """A benchmark's settings, and the function that runs it with them."""
    from functools import partial

    from tests.bench import capture, operators, profiling, random_sd15

    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    kind = str(dtype).removeprefix("torch.")
    if options.what == "complete":
        sides = options.sides or [16, 24, 32, 48, 64, *([96, 128] if cuda else [])]
        shape: dict[str, Any] = {"heads": 8, "d": 40, "batch": 8 if cuda else 1}
        run = partial(operators.bench_completion, device, sides=sides, **shape)
        return {**shape, "dtype": kind}, run
    if options.what == "sweep":
        return {"dtype": "float32"}, partial(operators.bench_sweep, device)
    latent = (options.latent, options.latent)
    settings: dict[str, Any] = {"unet": "Stable Diffusion 1.5's shape, random weights"}
    settings |= {"latent": list(latent), "dtype": kind}
    if options.what == "capture":
        batches = options.batches or ([1, 2, 4, 8, 16] if cuda else [1, 2])
        unet = random_sd15.make_unet(device, dtype)
        return settings, partial(capture.bench_capture, unet, batches=batches, latent=latent)
    if options.what == "profile":
        batch = 8 if cuda else 1
        unet = random_sd15.make_unet(device, dtype)
        return {**settings, "batch": batch}, partial(
            profiling.bench_profile, unet, batch=batch, latent=latent
        )
    return prepare_segment(options, device, dtype)


def prepare_segment(
    options: Any, device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Any], Callable[..., Found]]:
    """The whole way's model, pictures and phrases."""
    from functools import partial

    from nbhelpers.datasets import referring
    from nbhelpers.models import load_models
    from tests.bench import end_to_end, random_sd15

    name = options.model or ("sd15" if device.type == "cuda" else "stickers")
    if name == "sd15":
        models = random_sd15.make_models(device, dtype)
    else:
        models = load_models(name, device=device, dtype=dtype)
    world = referring("stickers", "val")
    asked: dict[int, list[str]] = {}
    for expression in world.expressions:
        if len(asked) < options.pictures or expression.image_id in asked:
            asked.setdefault(expression.image_id, []).append(expression.text)
    phrases = [texts[:2] for texts in asked.values()]
    images = [world.image(image_id) for image_id in asked]
    settings: dict[str, Any] = {
        "model": models.name,
        "method": end_to_end.METHOD,
        "pictures": len(images),
    }
    settings |= {"timesteps": [100], "dtype": str(dtype).removeprefix("torch.")}
    return settings, partial(end_to_end.bench_segment, models, images, phrases)


def show(options: Any) -> int:
    """Every table and target of a device; with --out the figures, too."""
    kind = torch.device(options.device).type  # as the records are named
    there = benchmarks.measured(kind, options.folder)
    for name in there:
        print(report.table(name, kind, options.folder), end="\n\n")
    print(report.promises(kind, options.folder))
    if options.out:
        for path in report.save_figures(kind, options.out, options.folder):
            print(path)
    return 0


def everything(options: Any) -> int:
    """The tests and every benchmark, each in a process of its own, within `LIMIT` together."""
    deadline = time.monotonic() + LIMIT
    tests = [str(ROOT / "tests" / f"test_{name}.py") for name in TESTS]
    steps = {"tests": ["-m", "pytest", "-q", *tests]}
    for name in benchmarks.BENCHMARKS:
        steps[name] = ["-m", "tests.bench", name, "--device", options.device]
        steps[name] += ["--folder", str(options.folder)]
    outcome = {}
    for name, arguments in steps.items():
        print(f"== {name}", flush=True)
        started = time.monotonic()
        try:
            left = max(1.0, deadline - started)
            code = subprocess.run([sys.executable, *arguments], cwd=ROOT, timeout=left).returncode
            outcome[name] = "ok" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            outcome[name] = f"stopped: {LIMIT} s were over"
        outcome[name] += f", {time.monotonic() - started:.0f} s"
    print(report.promises(torch.device(options.device).type, options.folder))
    for name, said in outcome.items():
        print(f"{name:10} {said}")
    return int(not all(said.startswith("ok") for said in outcome.values()))


if __name__ == "__main__":
    sys.exit(main())
