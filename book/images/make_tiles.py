"""Draw images/tiles.png: which tiles of the attention matrix one program of the kernel visits."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

INK, REST, MARK, HEAT = "#1b1b1b", "#e3e8ee", "#ffd8a8", "#21918c"
TILES = 6


def main() -> None:
    figure = Figure(figsize=(7.0, 4.2), facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(-3.6, 10.2), ylim=(8.3, -0.3), aspect="equal")
    axis.set_axis_off()

    def tile(x, y, color, width=1.0, height=1.0):
        axis.add_patch(
            Rectangle((x, y), width, height, facecolor=color, edgecolor="white", linewidth=2)
        )

    def say(x, y, words, size=10, **more):
        axis.text(x, y, words, fontsize=size, color=INK, va="center", **more)

    for row in range(TILES):
        for column in range(TILES):
            tile(column, row, MARK if row == 2 else REST)
        tile(-1.4, row, MARK if row == 2 else REST, 0.9)
        tile(row, TILES + 0.4, HEAT, 1.0, 0.5)
    axis.add_patch(Rectangle((0, 2), TILES, 1, fill=False, edgecolor=INK, linewidth=1.5))
    arrow = FancyArrowPatch((0.3, 2.5), (5.8, 2.5), arrowstyle="-|>", mutation_scale=14, color=INK)
    axis.add_patch(arrow)
    say(-1.6, 2.5, "a tile of\nqueries stays", ha="right")
    say(3, -0.15, "tiles of keys come by, one after the other", ha="center")
    say(-0.2, TILES + 0.65, "score map", ha="right")
    say(3, TILES + 1.35, "each tile of weights meets its tile of scores", ha="center", size=9)
    for index, words in enumerate(
        ("largest logit  μ", "sum of exponentials  ℓ", "weighted sum  o")
    ):
        tile(6.6, 1.55 + 0.7 * index, MARK, 0.35, 0.55)
        say(7.1, 1.83 + 0.7 * index, words, size=9)
    say(6.6, 4.1, "kept in registers;\no / ℓ leaves at the end", size=9, ha="left")
    figure.savefig(Path(__file__).with_name("tiles.png"), dpi=200, metadata={"Software": None})


if __name__ == "__main__":
    main()
