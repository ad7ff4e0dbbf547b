"""Draw `pipeline.png`: python book/images/make_pipeline.py, from the project's root.

The picture and its maps are those of the first chapter, by whatever weights are installed.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import nbhelpers as nb
from nbhelpers.denoising import add_noise
from nbhelpers.tokens import tokenize

PICTURE, PHRASE = "stickers/images/000285.png", "a white dog"
CAPTION = ("a photograph", "of", "a brown dog", "and", PHRASE)
INK, MARK, REST, TEXT = "#1b1b1b", "#ffd8a8", "#e3e8ee", "#0072B2"
SIDE, STEP = 1.0, 1.38  # of a panel, and from one panel to the next, in inches
WIDTH = 7.25  # of the figure, likewise


def stages(models: nb.Models) -> dict[str, np.ndarray]:
    """Run the first chapter's picture through every stage."""
    image = nb.load_image(nb.data_folder() / PICTURE)
    found = nb.segment(image, PHRASE, models, caption=" ".join(CAPTION))
    noised = add_noise(nb.encode_image(image, models), [300], models)[0, :3]
    low, high = noised.min(), noised.max()
    seen = ((noised - low) / (high - low)).permute(1, 2, 0).cpu().numpy()
    return {
        "picture": image,
        "noised latent": seen,
        "score map": found.score,
        "completed map": found.map,
        "mask": nb.overlay(image, found.mask),
    }


def arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    """Draw an arrow."""
    style = {"arrowstyle": "-|>", "mutation_scale": 11, "color": color, "lw": 1.2}
    axis.add_patch(FancyArrowPatch(start, end, **style))


def main() -> None:
    """Draw the text's way above, the picture's way below, and the UNet where they meet."""
    figure = Figure(figsize=(WIDTH, 3.05), facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, 3.05))
    axis.set_axis_off()
    models = nb.load_models("stickers")
    font = {"fontsize": 9, "color": INK, "va": "center"}
    for index, (name, values) in enumerate(stages(models).items()):
        x = 0.05 + STEP * index + (0.6 if index > 1 else 0)
        panel = figure.add_axes((x / WIDTH, 0.32 / 3.05, SIDE / WIDTH, SIDE / 3.05))
        panel.imshow(values, cmap="viridis", aspect="auto", interpolation="nearest")
        panel.set_axis_off()
        axis.text(x + SIDE / 2, 0.17, name, ha="center", **font)
        if index in (0, 2, 3):
            arrow(axis, (x + SIDE + 0.03, 0.82), (x + STEP - 0.03, 0.82), INK)
    box = FancyBboxPatch((2.59, 0.5), 0.35, 0.64, "round,pad=0.03", facecolor=REST, edgecolor=INK)
    axis.add_patch(box)
    axis.text(2.765, 0.82, "UNet", ha="center", rotation=90, **font)
    arrow(axis, (2.99, 0.82), (3.37, 0.82), INK)
    text = " ".join(CAPTION)
    chunks = [chunk.text for chunk in nb.noun_chunks(text, models.parser)]
    x = 0.1
    for words in CAPTION:
        chunk = words in chunks
        back = {"facecolor": MARK if words == PHRASE else REST, "edgecolor": "none", "pad": 3}
        drawn = axis.text(x, 2.75, words, bbox=back if chunk else None, ha="left", **font)
        x += drawn.get_window_extent(canvas.get_renderer()).width / figure.dpi + 0.16
    axis.text(x + 0.1, 2.75, "caption and noun chunks", ha="left", style="italic", **font)
    count = len(tokenize(text, models.text)) + 2  # the start and the end
    keys = nb.embed(text, (), models.text).keys[0, :count, :6].T
    low, high = keys.quantile(0.05), keys.quantile(0.95)
    colors = 0.25 + 0.7 * ((keys - low) / (high - low)).clamp(0, 1).cpu().numpy()
    grid = figure.add_axes((1.4 / WIDTH, 1.68 / 3.05, 2.5 / WIDTH, 0.62 / 3.05))
    grid.imshow(colors, cmap="Blues", aspect="auto", vmin=0, vmax=1.4)
    grid.set(xticks=np.arange(count) - 0.5, yticks=[], xticklabels=[])
    grid.grid(color="white", linewidth=2)
    grid.tick_params(length=0)
    for side in grid.spines.values():
        side.set_visible(False)
    axis.text(4.02, 1.99, "embedding, one column per token", ha="left", style="italic", **font)
    arrow(axis, (2.765, 2.6), (2.765, 2.34), TEXT)
    arrow(axis, (2.765, 1.65), (2.765, 1.2), TEXT)
    target = Path(__file__).with_name("pipeline.png")
    figure.savefig(target, dpi=192, metadata={"Software": None})


if __name__ == "__main__":
    main()
