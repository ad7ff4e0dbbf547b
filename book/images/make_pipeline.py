"""Draw `pipeline.png`: python book/images/make_pipeline.py, from the project's root."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import nbhelpers as nb

PICTURE, PHRASE = "data/shapes/images/000053.png", "the white ball"
INK, MARK = "#1b1b1b", "#ffd8a8"
ROOT = Path(__file__).resolve().parents[2]


def arrow(axis: Axes) -> None:
    """Draw an arrow to the next panel."""
    axis.annotate(
        "",
        xy=(1.17, 0.5),
        xytext=(1.02, 0.5),
        xycoords="axes fraction",
        arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.4},
    )


def main() -> None:
    """Segment one picture and draw what every stage makes of it."""
    image = nb.load_image(ROOT / PICTURE)
    result = nb.segment(image, PHRASE, nb.load_models("shapes"))
    figure, axes = plt.subplots(1, 5, figsize=(11, 2.35), width_ratios=(1, 1.15, 1, 1, 1))
    titles = ("picture", "caption and chunks", "score map", "completed map", "mask")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, color=INK, fontsize=11)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_box_aspect(1 if title != "caption and chunks" else 1 / 1.15)
        for spine in axis.spines.values():
            spine.set_color("#c8ced6")
    axes[0].imshow(image)
    words = axes[1]
    opening, phrase = result.prompt.text.split(" the ", 1)
    words.text(0.5, 0.68, opening, ha="center", va="center", fontsize=10, color=INK)
    words.text(
        0.5,
        0.42,
        f"the {phrase}",
        ha="center",
        va="center",
        fontsize=10.5,
        color=INK,
        bbox={"boxstyle": "round,pad=0.35", "facecolor": MARK, "edgecolor": "none"},
    )
    size = (0, image.shape[1], image.shape[0], 0)
    axes[2].imshow(result.score, cmap="viridis", extent=size, interpolation="nearest")
    axes[3].imshow(result.map, cmap="viridis")
    axes[4].imshow(nb.overlay(image, result.mask))
    for axis in axes[:-1]:
        arrow(axis)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.9, wspace=0.22)
    figure.savefig(Path(__file__).with_name("pipeline.png"), dpi=160)


if __name__ == "__main__":
    main()
