"""Figures with sliders: the right frame for each setting, words for each, limits that are said."""

import html
import io
import json
import re

import pytest
from PIL import Image

from nbhelpers.display import Drawing
from nbhelpers.figures.sliders import sliders


def draw(**setting):
    said = ", ".join(f"{name} {value}" for name, value in setting.items())
    return Drawing(said.encode(), f"seen at {said}", 100)


def test_every_setting_has_its_frame_and_the_last_knob_turns_fastest():
    made = sliders(draw, step=[1, 2, 3], chunk=[False, True])
    assert [frame.png.decode() for frame in made.frames] == [
        f"step {step}, chunk {chunk}" for step in (1, 2, 3) for chunk in (False, True)
    ]


def test_the_first_frame_is_the_one_that_is_asked_for():
    made = sliders(draw, start={"step": 2}, step=[1, 2, 3], chunk=[False, True])
    assert made.still.alt == "seen at step 2, chunk False"
    page = made._repr_mimebundle_()["text/html"]
    frames = re.findall('<div class="nb-frame"( hidden)?><img [^>]*alt="([^"]*)"', page)
    assert [alt for hidden, alt in frames if not hidden] == ["seen at step 2, chunk False"]
    assert len(frames) == 6
    assert len(re.findall("<img ", page)) == 6


def painted(color, size):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return Drawing(file.getvalue(), f"all {color}.", size[0] // 2)


def test_several_figures_stand_below_each_other_in_one_frame():
    made = sliders(lambda blue: (painted("red", (4, 2)), painted(blue, (6, 4))), blue=["blue"])
    assert made.still.alt == "all red. all blue."
    assert made.still.width == 3
    assert [len(row) for row in made.still.rows] == [1, 1]
    shown = Image.open(io.BytesIO(made.still.png))
    assert shown.size == (6, 6)
    pixels = [(3, 1), (0, 1), (5, 2)]  # the narrow one is centered
    assert [shown.getpixel(pixel) for pixel in pixels] == [
        (255, 0, 0),
        (255, 255, 255),
        (0, 0, 255),
    ]


def test_controls_name_their_values():
    page = sliders(draw, weight=[0.5, 1.0], is_sealed=[False, True])._repr_mimebundle_()[
        "text/html"
    ]
    slider, box = re.findall("<input [^>]*>", page)
    assert 'type="range"' in slider
    assert 'max="1"' in slider
    assert 'type="checkbox"' in box
    found = [re.search('data-values="([^"]*)"', tag)[1] for tag in (slider, box)]
    assert [json.loads(html.unescape(text)) for text in found] == [["0.5", "1"], ["False", "True"]]
    assert 'aria-valuetext="0.5"' in slider  # a screen reader says the value, not its index
    assert "is sealed" in page
    assert "<output>0.5</output>" in page


def test_words_of_a_value_are_escaped():
    page = sliders(draw, phrase=["<b>", 'it\'s "so"'])._repr_mimebundle_()["text/html"]
    assert "<b>" not in page
    assert page.count("<input") == 1


def test_paper_and_terminal_get_a_still():
    bundle = sliders(draw, step=[1, 2])._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert bundle["text/plain"] == "<Sliders: step: 2; seen at step 1>"


def test_live_sliders_draw_afresh():
    ipywidgets = pytest.importorskip("ipywidgets", reason="live sliders are ipywidgets")
    seen = []

    def note(step):
        seen.append(step)
        return draw(step=step)

    made = sliders(note, start={"step": 2}, step=[1, 2])
    live = made.live()
    assert isinstance(live.children[0], ipywidgets.SelectionSlider)
    assert live.children[0].value == 2
    assert seen == [1, 2, 2]  # the widget draws its own first figure
    assert live.result.alt == "seen at step 2"


def test_live_sliders_draw_several_figures_as_one():
    pytest.importorskip("ipywidgets", reason="live sliders are ipywidgets")
    live = sliders(lambda color: [painted(color, (2, 2))] * 2, color=["red"]).live()
    assert live.result.alt == "all red. all red."


@pytest.mark.parametrize(
    ("values", "start", "words"),
    [
        ({}, None, "needs values"),
        ({"step": []}, None, "needs values"),
        ({"step": list(range(129))}, None, "129 settings are too many"),
        ({"step": [1, 2]}, {"step": 3}, "is none of the slider's values"),
        ({"step": [1, 2]}, {"stop": 1}, "is none of the slider's values"),
    ],
)
def test_impossible_sliders_are_refused(values, start, words):
    with pytest.raises(ValueError, match=words):
        sliders(draw, start=start, **values)


@pytest.mark.parametrize(
    ("drawn", "words"),
    [(None, "NoneType"), ((), "nothing"), ([Drawing(b"", "", 1), "ring"], "Drawing, str")],
)
def test_a_figure_that_is_none_is_refused(drawn, words):
    with pytest.raises(TypeError, match=f"must return a Drawing.*got {words}"):
        sliders(lambda step: drawn, step=[1, 2])
