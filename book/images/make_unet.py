"""Draw `unet.png`: python book/images/make_unet.py, from the project's root."""

from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, SELF, CROSS, TEXT, REST = "#1b1b1b", "#e3e8ee", "#ffd8a8", "#0072B2", "#f4f6f8"
Point = tuple[float, float]
GRIDS = ("20 x 20", "10 x 10", "5 x 5")


def box(axis: Axes, x: float, y: float, words: str, color: str, w: float = 1.25) -> None:
    """Draw a rounded box with words in it, its lower left corner at (x, y)."""
    style = "round,pad=0.02,rounding_size=0.08"
    axis.add_patch(FancyBboxPatch((x, y), w, 0.34, style, facecolor=color, edgecolor=INK, lw=0.8))
    axis.text(x + w / 2, y + 0.17, words, ha="center", va="center", fontsize=9, color=INK)


def arrow(axis: Axes, start: Point, end: Point, **more: object) -> None:
    """Draw an arrow."""
    style = {"arrowstyle": "-|>", "mutation_scale": 10, "color": INK, "lw": 1.0, **more}
    axis.add_patch(FancyArrowPatch(start, end, **style))


def block(axis: Axes, x: float, y: float, name: str, downward: bool = True) -> None:
    """Draw one block of the UNet: its name, self-attention, cross-attention."""
    axis.text(x + 0.62, y + 0.86, name, ha="center", va="bottom", fontsize=9, color=INK)
    first, then = (0.46, 0) if downward else (0, 0.46)  # in the order of the arrows
    box(axis, x, y + first, "self-attention", SELF)
    box(axis, x, y + then, "cross-attention", CROSS)


def main() -> None:
    """Draw blocks along a U, and the prompt in the middle, which enters every one."""
    figure = Figure(figsize=(7.0, 4.9), facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(-0.15, 6.85), ylim=(-1.65, 3.25))
    axis.set_axis_off()
    down = [(0.05, 1.9), (0.55, 0.75), (1.05, -0.4)]
    up = [(5.4, 1.9), (4.9, 0.75), (4.4, -0.4)]
    for i, ((a, y), (b, _)) in enumerate(zip(down, up, strict=True)):
        block(axis, a, y, f"down, {GRIDS[i]}")
        block(axis, b, y, f"up, {GRIDS[i]}", downward=False)
        skip = {"lw": 0.8, "linestyle": ":", "arrowstyle": "-|>"}
        arrow(axis, (a + 1.3, y + 0.06), (b - 0.05, y + 0.06), **skip)
    block(axis, 2.35, -1.5, "middle, 5 x 5")
    for before, after in pairwise(down):
        arrow(axis, (before[0] + 0.3, before[1] - 0.03), (after[0] + 0.1, after[1] + 0.82))
    for after, before in pairwise(up):
        arrow(axis, (before[0] + 1.15, before[1] + 0.82), (after[0] + 0.95, after[1] - 0.03))
    arrow(axis, (1.7, -0.43), (2.31, -0.9))
    arrow(axis, (3.64, -1.4), (4.9, -0.43))
    box(axis, 2.6, 2.75, "prompt's embedding", "#cfe3f3", 1.5)
    line = {"color": TEXT, "lw": 1.1}
    for x, y in down:
        arrow(axis, (2.95, 2.72), (x + 1.3, y + 0.18), **line)
    for x, y in up:
        arrow(axis, (3.75, 2.72), (x - 0.05, y + 0.64), **line)
    arrow(axis, (3.72, 2.72), (3.66, -1.25), **line)
    axis.text(0.05, 3.1, "noised latent, timestep", fontsize=9, color=INK)
    arrow(axis, (0.65, 3.05), (0.65, 2.95))
    axis.text(6.68, 3.1, "predicted noise", fontsize=9, color=INK, ha="right")
    arrow(axis, (6.05, 2.95), (6.05, 3.05))
    axis.text(3.1, -0.24, "skip connection", fontsize=9, color=INK, ha="center")
    target = Path(__file__).with_name("unet.png")
    figure.savefig(target, dpi=192, metadata={"Software": None})


if __name__ == "__main__":
    main()
