"""A picture, a phrase and four sliders: what each change does to the map and its IoU.

`Playground` is the logic, without a widget; `playground` puts sliders on it. Each stage is kept
until something that it depends on changes: the latent of a picture, the recording of a phrase,
alpha and timestep, the maps of a number of steps. A threshold is only a comparison.
"""

from __future__ import annotations

import html
import io
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from nbhelpers.attention import Recording
from nbhelpers.datasets import Expression, Referring
from nbhelpers.denoising import add_noise, encode_image
from nbhelpers.display import Drawing, overlay
from nbhelpers.embeddings import Prompt
from nbhelpers.masks import to_pixels
from nbhelpers.metrics import iou
from nbhelpers.models import Models
from nbhelpers.segment import attend, make_prompt, target_maps
from nbhelpers.settings import SETTINGS, Settings, resolve

# Five colors of matplotlib's scale, in which all other maps of the book are drawn.
VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
KEPT = 32  # recordings, about 2 MB each in the sticker world


@dataclass(frozen=True)
class View:
    """What one setting of the playground shows.

    Attributes:
        phrase: What was asked for.
        prompt: The prompt that it became.
        heat: The map in [0, 1], as large as the picture.
        mask: Where it reaches the threshold.
        truth: The mask of the thing that is asked for.
    """

    phrase: str
    prompt: str
    heat: Float[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]
    truth: Bool[np.ndarray, "h w"]

    @property
    def iou(self) -> float:
        """Of the mask with the true one."""
        return iou(self.mask, self.truth)


class Playground:
    """One referring set, segmented with every setting that a person may change.

    Args:
        models: From `load_models`.
        data: From `referring`; its pictures and true masks.
    """

    def __init__(self, models: Models, data: Referring) -> None:
        self.models, self.data = models, data
        self._picture = lru_cache(KEPT)(self._load)
        self._recording = lru_cache(KEPT)(self._record)
        self._maps = lru_cache(KEPT)(self._complete)

    def view(
        self,
        asked: Expression,
        phrase: str,
        *,
        method: str = "sealed",
        alpha: float = 1.0,
        timestep: int = 200,
        steps: int = 1,
        threshold: float = 0.5,
    ) -> View:
        """Returns the map and the mask of a phrase in the picture of an expression.

        Args:
            asked: Whose picture is shown and whose true mask the IoU is of.
            phrase: What to find there; needn't be the expression's own.
            method: A name in `SETTINGS`.
            alpha: The noun's weight, in [0, 2].
            timestep: How much noise, 0 to 999.
            steps: How often the map is completed; 0 shows the score map.
            threshold: In [0, 1].

        Raises:
            ValueError: No noun in the phrase, or a setting out of range.
        """
        prompt, heat = self._maps(asked.image_id, phrase, method, alpha, timestep, steps)
        return View(phrase, prompt, heat, heat >= threshold, self.data.mask(asked))

    def image(self, asked: Expression) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the picture of an expression."""
        return self._picture(asked.image_id)[0]

    def _load(self, number: int) -> tuple[np.ndarray, Tensor]:
        image = self.data.image(number)
        return image, encode_image(image, self.models)

    def _record(
        self, number: int, phrase: str, method: str, alpha: float, timestep: int
    ) -> tuple[Prompt, Settings, Recording]:
        """Returns the prompt, what it is read with, and its attention."""
        image, latent = self._picture(number)
        settings = replace(SETTINGS[method], alpha=alpha, timesteps=(timestep,))
        chosen = resolve(self.models, method, settings)
        prompt = make_prompt(phrase, self.models, chosen, image=image)
        noised = add_noise(latent, [timestep], self.models)
        return prompt, chosen, attend([noised], [prompt], [timestep], self.models)

    def _complete(
        self, number: int, phrase: str, method: str, alpha: float, timestep: int, steps: int
    ) -> tuple[str, np.ndarray]:
        image, _ = self._picture(number)
        prompt, chosen, attention = self._recording(number, phrase, method, alpha, timestep)
        scores, completed = target_maps(attention, [prompt], replace(chosen, steps=steps or 1))
        maps = completed if steps else scores
        return prompt.text, to_pixels(maps[0], (image.shape[0], image.shape[1]))[0]


def draw(image: UInt8[np.ndarray, "h w 3"], view: View, *, side: int = 220) -> Drawing:
    """Draws mask, map and picture side by side, without matplotlib, which is too slow.

    The mask comes first, so that a phone shows it.

    Args:
        image: The picture.
        view: From `Playground.view`.
        side: The height of a panel in pixels.
    """
    stops = np.linspace(0, 1, len(VIRIDIS))
    channels = [np.interp(view.heat, stops, channel) for channel in zip(*VIRIDIS, strict=True)]
    heat = np.stack(channels, axis=-1).astype(np.uint8)
    row = np.concatenate([overlay(image, view.mask, view.truth), heat, image], axis=1)
    wide, font = round(side * row.shape[1] / row.shape[0]), 14
    sheet, file = Image.new("RGB", (wide, side + font + 6), "white"), io.BytesIO()
    scaled = Image.fromarray(row).resize((wide, side), Image.Resampling.NEAREST)
    sheet.paste(scaled, (0, font + 6))
    for index, word in enumerate((f"mask, IoU {view.iou:.2f}", "map", "picture")):
        at = (wide * (2 * index + 1) // 6, font)
        ImageDraw.Draw(sheet).text(at, word, (27, 27, 27), anchor="ms", font_size=font)
    sheet.save(file, "PNG", compress_level=1)
    words = (
        f"Three panels: the mask, {view.mask.mean():.0%} of the picture, IoU {view.iou:.2f}, blue "
        "where it is right, orange where it is wrong, yellow where it misses the object; the "
        f"map of {view.phrase!r}, bright where attention to it is highest; the picture."
    )
    return Drawing(file.getvalue(), words, wide)


def playground(models: Models, data: Referring, *, first: int = 0) -> Any:
    """Returns the playground as widgets; they need a kernel.

    Args:
        models: From `load_models`.
        data: From `referring`.
        first: The index of the expression that is shown first.

    Returns:
        A box to be displayed as the last line of a cell: the mask, the map and the picture, and
        below them the controls, set as the model was calibrated for "sealed". Choose a thing, type
        a phrase, drag. A method sets alpha to its own.
    """
    import ipywidgets as widgets

    scene, chosen = Playground(models, data), resolve(models, "sealed")
    things = data.expressions[:100]
    named = {"layout": widgets.Layout(width="36em"), "style": {"description_width": "8em"}}
    choices = [(f"picture {e.image_id}: {e.text}", i) for i, e in enumerate(things)]
    thing = widgets.Dropdown(options=choices, value=first, description="what is meant", **named)
    phrase = widgets.Text(
        things[first].text, continuous_update=False, description="phrase", **named
    )
    settings = {
        "method": widgets.Dropdown(options=list(SETTINGS), value="sealed", **named),
        "alpha": widgets.FloatSlider(1.0, min=0, max=1.6, step=0.1, **named),
        "timestep": widgets.IntSlider(
            (chosen.timesteps or (200,))[0], min=0, max=980, step=20, **named
        ),
        "steps": widgets.IntSlider(1, min=0, max=4, **named),
        "threshold": widgets.FloatSlider(chosen.threshold, min=0, max=1, step=0.05, **named),
    }
    for name, control in settings.items():
        control.description = name
    page = widgets.HTML()

    def show(change: Any = None) -> None:
        """Draws what the widgets say."""
        asked = things[thing.value]
        chosen = {name: control.value for name, control in settings.items()}
        try:
            view = scene.view(asked, phrase.value, **chosen)
        except ValueError as error:
            page.value = f"<p><b>{html.escape(str(error)[:300])}</b></p>"
            return
        picture = draw(scene.image(asked), view).as_html()
        words = f"IoU {view.iou:.3f} for {view.prompt!r}"
        page.value = f"<p role='status'>{html.escape(words[:300])}</p>{picture}"

    def turn_to(change: Any) -> None:
        """Shows another thing, asked for by its own phrase."""
        if phrase.value == things[thing.value].text:
            show()
        phrase.value = things[thing.value].text  # shows it, if it is another

    def take_weight(change: Any) -> None:
        """Takes a method's own weight, which the slider then turns."""
        settings["alpha"].value = SETTINGS[change["new"]].alpha

    thing.observe(turn_to, "value")
    settings["method"].observe(take_weight, "value")
    for control in (phrase, *settings.values()):
        control.observe(show, "value")
    show()
    return widgets.VBox([page, thing, phrase, *settings.values()])
