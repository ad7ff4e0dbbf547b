"""Figures that a reader turns: every setting drawn beforehand, stepped through with no kernel."""

from __future__ import annotations

import html
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbhelpers.display import Drawing, stack

MOST = 128  # frames; a page has to stay light
# Reads every control of the figure, shows the one frame that they name, and says its setting.
_STEP = (
    "(function(f){var n=0;"
    "f.querySelectorAll('input').forEach(function(i){"
    "var v=i.type=='checkbox'?+i.checked:+i.value;"
    "n=n*(+i.dataset.count)+v;"
    "var o=i.parentNode.querySelector('output');"
    "if(o){o.textContent=JSON.parse(i.dataset.values)[v];"
    "i.setAttribute('aria-valuetext',o.textContent)}});"
    "f.querySelectorAll('.nb-frame').forEach(function(p,k){p.hidden=k!=n})"
    "})(this.closest('.nb-sliders'))"
)


@dataclass(frozen=True)
class Sliders:
    """A figure for every setting of some sliders.

    Attributes:
        draw: Makes the figure of one setting, by the sliders' names.
        values: Each slider's values, by name; the last slider changes fastest in `frames`.
        frames: One figure a setting.
        start: The setting that is shown first, and printed.
    """

    draw: Callable[..., Drawing]
    values: Mapping[str, Sequence[Any]]
    frames: tuple[Drawing, ...]
    start: Mapping[str, Any]

    @property
    def still(self) -> Drawing:
        """The figure that is shown first."""
        return self.frames[self._first]

    def live(self) -> Any:
        """Makes the same sliders as ipywidgets, which draw every change afresh; needs a kernel."""
        from ipywidgets import SelectionSlider, interactive

        controls = {
            name: SelectionSlider(
                options=[(_word(value), value) for value in values],
                value=self.start[name],
                description=name.replace("_", " "),
                continuous_update=False,
            )
            for name, values in self.values.items()
        }
        return interactive(self.draw, **controls)

    @property
    def _first(self) -> int:
        index = 0
        for name, values in self.values.items():
            index = index * len(values) + list(values).index(self.start[name])
        return index

    def __repr__(self) -> str:
        turns = ", ".join(f"{name}: {len(values)}" for name, values in self.values.items())
        return f"<Sliders: {turns}; {self.still.alt}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Returns frames and controls for a page; the first frame for paper and terminals."""
        pictures = "".join(
            f'<div class="nb-frame"{" hidden" * (index != self._first)}>{frame.as_html()}</div>'
            for index, frame in enumerate(self.frames)
        )
        controls = "".join(
            _control(name, values, list(values).index(self.start[name]))
            for name, values in self.values.items()
        )
        below = f'<div class="nb-controls">{controls}</div>'
        page = f'<div class="nb-sliders" role="group">{pictures}{below}</div>'
        return {**self.still._repr_mimebundle_(), "text/html": page, "text/plain": repr(self)}


def sliders(
    draw: Callable[..., Drawing | Sequence[Drawing]],
    *,
    start: Mapping[str, Any] | None = None,
    **values: Sequence[Any],
) -> Sliders:
    """Draws a figure at every setting of its sliders, for a reader to step through.

    A slider whose values are False and True is a box to tick, any other one is dragged. Nothing
    is computed while a reader turns, so it works in a page that was saved. In a live notebook
    ``nb.sliders(...).live()`` gives the same sliders as ipywidgets, and draws each change afresh.

    Args:
        draw: Called with each slider's value by name; returns a `Drawing`, or several, which are
            shown one below the other.
        start: The setting shown first; each slider's first value where none is given.
        **values: Each slider's values, in order.

    Returns:
        The figures, to be displayed as the last line of a cell.

    Raises:
        ValueError: No slider, one with no value, a start that is none of its values, or more
            than 128 settings.
        TypeError: Something other than drawings came from `draw`.
    """
    if not values or not all(map(len, values.values())):
        raise ValueError(f"each slider needs values to step through (got {values})")
    count = math.prod(len(each) for each in values.values())
    if count > MOST:
        raise ValueError(f"{count} settings are too many for a page; give {MOST} at the most")
    first = {name: each[0] for name, each in values.items()} | dict(start or {})
    for name, value in first.items():
        if value not in list(values.get(name, [])):
            raise ValueError(f"start={{{name!r}: {value!r}}} is none of the slider's values")

    def frame(**setting: Any) -> Drawing:
        """Returns the figure of one setting."""
        return _as_one(draw(**setting))

    settings = itertools.product(*values.values())
    frames = [frame(**dict(zip(values, setting, strict=True))) for setting in settings]
    return Sliders(frame, values, tuple(frames), first)


def _as_one(drawn: Any) -> Drawing:
    """Returns what was drawn as one figure: of several, each below the one before."""
    parts: list[Any] = [*drawn] if isinstance(drawn, tuple | list) else [drawn]
    if not parts or not all(isinstance(part, Drawing) for part in parts):
        got = ", ".join(type(part).__name__ for part in parts) or "nothing"
        raise TypeError(f"draw must return a Drawing, as nb.show_maps does, or several; got {got}")
    if len(parts) == 1:
        return parts[0]
    rows = [row for part in parts for row in part.rows or ((part,),)]
    return stack(rows, " ".join(part.alt for part in parts))


def _word(value: Any) -> str:
    """Returns a value as a reader sees it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _control(name: str, values: Sequence[Any], index: int) -> str:
    """Returns one slider's label and input."""
    label = html.escape(name.replace("_", " "))
    words = html.escape(json.dumps([_word(value) for value in values]), quote=True)
    shared = f'data-count="{len(values)}" data-values="{words}" oninput="{_STEP}"'
    if list(values) == [False, True]:
        ticked = " checked" if index else ""
        return f'<label><input type="checkbox"{ticked} {shared}> {label}</label>'
    said = html.escape(_word(values[index]), quote=True)
    return (
        f'<label>{label} <input type="range" min="0" max="{len(values) - 1}" value="{index}" '
        f'step="1" aria-valuetext="{said}" {shared}> <output>{said}</output></label>'
    )
