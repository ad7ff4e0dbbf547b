"""`python -m nbhelpers.shapes`: draw the shapes world, train its models, measure them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from nbhelpers.shapes import recipe
from nbhelpers.shapes.score import PARTS as SCORED
from nbhelpers.shapes.score import score as run_score

ROOT = Path(__file__).resolve().parents[2]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser("python -m nbhelpers.shapes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser(
        "train",
        help="draw the pictures and train every model; go on where an earlier run stopped",
        description="Draw the training pictures and train the CLIP, autoencoder, UNet, BLIP and "
        "parser. Stop it whenever you like: the same command goes on. Finished parts are kept.",
    )
    train.add_argument(
        "--parts",
        nargs="+",
        choices=recipe.PARTS,
        default=list(recipe.PARTS),
        help="which models to train (the UNet needs clip and autoencoder)",
    )
    train.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    train.add_argument("--seed", type=int, default=0, help="of weights and batches (default: 0)")
    train.add_argument(
        "--scale", type=float, default=1.0, help="multiplies every part's steps (default: 1)"
    )
    train.add_argument(
        "--treebanks",
        type=Path,
        help="folder of Universal Dependencies .conllu files, for the parser (not shipped: get "
        "English EWT, PUD and ATIS from universaldependencies.org)",
    )
    train.add_argument(
        "--autoencoder",
        type=Path,
        metavar="DIR",
        help="use this trained autoencoder, such as data/shapes/stable-diffusion/vae, for another "
        "seed's UNet (default: train one)",
    )

    commands.add_parser("draw", help="write the benchmark's pictures, masks and expressions")

    score = commands.add_parser(
        "score", help="measure the models on the held-out scenes; write results.json and the cards"
    )
    score.add_argument(
        "--parts",
        nargs="+",
        choices=SCORED,
        default=list(SCORED),
        help="measure only these, keep the rest of results.json",
    )
    score.add_argument("--second-seed", type=int, help="also measure the models of this seed")
    score.add_argument("--scenes", type=int, help="only the first so many scenes of each split")
    score.add_argument("--treebanks", type=Path, help="as in train, to score the parser")

    score.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: the cores)"
    )

    for command in (train, score):
        command.add_argument(
            "--work",
            type=Path,
            default=ROOT / "build" / "shapes",
            help="pictures, checkpoints and logs (default: build/shapes)",
        )
    for command in commands.choices.values():
        command.add_argument(
            "--out", type=Path, default=ROOT / "data" / "shapes", help="default: data/shapes"
        )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = parse(arguments)
    if options.command == "train":
        recipe.train(
            options.work,
            options.out,
            parts=options.parts,
            seed=options.seed,
            device=options.device,
            scale=options.scale,
            treebanks=options.treebanks,
            autoencoder=options.autoencoder,
        )
    elif options.command == "draw":
        from nbhelpers.shapes.benchmark import write_benchmark

        write_benchmark(options.out)
    else:
        run_score(
            options.work,
            options.out,
            parts=options.parts,
            second_seed=options.second_seed,
            scenes=options.scenes,
            treebanks=options.treebanks,
            workers=options.workers,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
