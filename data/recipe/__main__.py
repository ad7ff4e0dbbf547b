"""`python -m recipe`: cut out the art, draw the sticker world, train and calibrate its models."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    from recipe import calibrate
    from recipe.chain import PARTS

    parser = argparse.ArgumentParser("python -m recipe", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "art", help="cut out the art anew from its packages (needs npm and resvg-py)"
    )
    sheet = commands.add_parser("art-sheet", help="draw every sprite in every color on one sheet")
    sheet.add_argument("path", type=Path)
    commands.add_parser("draw", help="write the benchmark and the pictures of the paper's prompts")
    commands.add_parser("binding", help="write the prompts of the attribute-binding test")
    train = commands.add_parser(
        "train",
        help="draw the pictures and train the models; go on where an earlier run stopped",
        description="Draw the training pictures and train the autoencoder, CLIP, UNet, BLIP, "
        "judge and parser. Stop it whenever you like: the same command goes on. Finished parts "
        "are kept.",
    )
    train.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        help="which models to train: the UNet needs autoencoder and clip, BLIP needs clip "
        "(default: all, the parser only where --treebanks is given)",
    )
    train.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    train.add_argument(
        "--treebanks",
        type=Path,
        metavar="DIR",
        help="folder of Universal Dependencies .conllu files, for the parser (not shipped: get "
        "English EWT dev and test, PUD and ATIS from universaldependencies.org)",
    )
    train.add_argument("--seed", type=int, default=0, help="of weights and batches (default: 0)")
    train.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    train.add_argument(
        "--quick", action="store_true", help="a few steps of everything, to try the chain"
    )
    train.add_argument(
        "--autoencoder",
        type=Path,
        metavar="DIR",
        help="use this trained autoencoder, such as data/stickers/stable-diffusion/vae, for "
        "another seed's UNet (default: train one)",
    )
    train.add_argument(
        "--clip",
        type=Path,
        metavar="DIR",
        help="use this trained CLIP, such as data/stickers/clip (default: train one)",
    )
    train.add_argument(
        "--work",
        type=Path,
        default=ROOT / "build" / "stickers",
        help="pictures, checkpoints and logs (default: build/stickers)",
    )
    train.add_argument(
        "--out",
        type=Path,
        help="the models (default: models in --work; data/stickers replaces the shipped ones)",
    )
    family = commands.add_parser(
        "family",
        help="train the other systems that the paper names; go on where an earlier run stopped",
        description="Train small versions of the systems that the paper names, on the shipped "
        "models. Stop it whenever you like: the same command goes on.",
    )
    family.add_argument(
        "--systems",
        nargs="+",
        required=True,
        metavar="NAME",
        help="of tcl, clippy, viewco, segclip, ovsegmentor, segdiff, odise, ovdiff, diffumask, "
        "reco; or all",
    )
    family.add_argument(
        "--terms",
        action="store_true",
        help="train each with and without its own term, a fifth as long, and measure both",
    )
    family.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    family.add_argument("--seed", type=int, default=0, help="of weights and batches (default: 0)")
    family.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    family.add_argument(
        "--work", type=Path, default=ROOT / "build" / "stickers", help="as in train"
    )
    calibrate.describe(
        commands.add_parser(
            "calibrate",
            help="choose each method's timesteps, layers, weights and threshold on val",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
    )
    score = commands.add_parser(
        "score", help="measure the models on held-out scenes; write results.json and the card"
    )
    score.add_argument("--parts", nargs="+", help="measure only these, keep the rest")
    score.add_argument("--treebanks", type=Path, metavar="DIR", help="as in train")
    score.add_argument(
        "--work", type=Path, default=ROOT / "build" / "stickers", help="as in train"
    )
    commands.add_parser("card", help="write MODEL_CARD.md from results.json and the files")
    for name in ("draw", "binding", "family", "score", "card"):
        command = commands.choices[name]
        command.add_argument(
            "--out", type=Path, default=ROOT / "data" / "stickers", help="default: data/stickers"
        )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = parse(arguments)
    if options.command == "art":
        from recipe.art import make_cut_outs

        make_cut_outs()
    elif options.command == "art-sheet":
        from recipe.sheets import art_sheet

        art_sheet().save(options.path)
    elif options.command == "draw":
        from recipe.benchmark import write_benchmark
        from recipe.paper import write_prompts

        write_benchmark(options.out)
        write_prompts(options.out)
    elif options.command == "binding":
        from recipe.binding import write_binding

        write_binding(options.out)
    elif options.command == "calibrate":
        from nbhelpers.cli import guarded
        from recipe import calibrate

        return guarded("recipe", lambda: calibrate.run(options))
    elif options.command == "score":
        from recipe.score import score

        score(options.work, options.out, parts=options.parts, treebanks=options.treebanks)
    elif options.command == "card":
        from recipe.card import write_card

        write_card(options.out)
    elif options.command == "family":
        import torch

        from recipe.family import MADE, NAMES, measure_terms, train

        if options.threads:
            torch.set_num_threads(options.threads)
        run, every = (measure_terms, NAMES) if options.terms else (train, (*NAMES, *MADE))
        names = every if options.systems == ["all"] else options.systems
        run(names, options.work, options.out, seed=options.seed, device=options.device)
    else:
        import torch

        from recipe import chain

        if options.threads:
            torch.set_num_threads(options.threads)
        parts = options.parts or list(chain.PARTS)
        if not options.parts and options.treebanks is None:
            parts.remove("parser")
            print("the parser is left out: it needs --treebanks", file=sys.stderr)
        chain.train(
            options.work,
            options.out or options.work / "models",
            parts=parts,
            seed=options.seed,
            device=options.device,
            budget=chain.QUICK if options.quick else None,
            treebanks=options.treebanks,
            autoencoder=options.autoencoder,
            clip_folder=options.clip,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
