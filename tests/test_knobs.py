"""Figures with knobs: the right frame for each setting, words for each, limits that are said."""

import html
import io
import json
import re

import pytest
from PIL import Image

from nbhelpers.display import Drawing
from nbhelpers.knobs import turn


def draw(**setting):
    said = ", ".join(f"{name} {value}" for name, value in setting.items())
    return Drawing(said.encode(), f"seen at {said}", 100)


def test_every_setting_has_its_frame_and_the_last_knob_turns_fastest():
    knobs = turn(draw, step=[1, 2, 3], chunk=[False, True])
    assert [frame.png.decode() for frame in knobs.frames] == [
        f"step {step}, chunk {chunk}" for step in (1, 2, 3) for chunk in (False, True)
    ]


def test_the_first_frame_is_the_one_that_is_asked_for():
    knobs = turn(draw, start={"step": 2}, step=[1, 2, 3], chunk=[False, True])
    assert knobs.still.alt == "seen at step 2, chunk False"
    page = knobs._repr_mimebundle_()["text/html"]
    shown = [tag for tag in re.findall("<img [^>]*>", page) if not tag.endswith(" hidden>")]
    assert len(shown) == 1
    assert 'alt="seen at step 2, chunk False"' in shown[0]
    assert len(re.findall("<img ", page)) == 6


def painted(color, size):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return Drawing(file.getvalue(), f"all {color}.", size[0] // 2)


def test_several_figures_stand_below_each_other_in_one_frame():
    knobs = turn(lambda blue: (painted("red", (4, 2)), painted(blue, (6, 4))), blue=["blue"])
    assert knobs.still.alt == "all red. all blue."
    assert knobs.still.width == 3
    shown = Image.open(io.BytesIO(knobs.still.png))
    assert shown.size == (6, 6)
    places = [(3, 1), (4, 1), (5, 2)]
    assert [shown.getpixel(place) for place in places] == [
        (255, 0, 0),
        (255, 255, 255),
        (0, 0, 255),
    ]


def test_controls_name_their_values():
    page = turn(draw, weight=[0.5, 1.0], is_sealed=[False, True])._repr_mimebundle_()["text/html"]
    slider, box = re.findall("<input [^>]*>", page)
    assert 'type="range"' in slider
    assert 'max="1"' in slider
    assert 'type="checkbox"' in box
    found = [re.search('data-values="([^"]*)"', tag)[1] for tag in (slider, box)]
    assert [json.loads(html.unescape(text)) for text in found] == [["0.5", "1"], ["False", "True"]]
    assert 'aria-valuetext="0.5"' in slider  # a screen reader says the value, not its place
    assert "is sealed" in page
    assert "<output>0.5</output>" in page


def test_words_of_a_value_are_escaped():
    page = turn(draw, phrase=["<b>", 'it\'s "so"'])._repr_mimebundle_()["text/html"]
    assert "<b>" not in page
    assert page.count("<input") == 1


def test_paper_and_terminal_get_a_still():
    bundle = turn(draw, step=[1, 2])._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert bundle["text/plain"] == "<Knobs: step: 2; seen at step 1>"


def test_live_knobs_draw_afresh():
    ipywidgets = pytest.importorskip("ipywidgets", reason="live knobs are ipywidgets")
    seen = []

    def note(step):
        seen.append(step)
        return draw(step=step)

    knobs = turn(note, start={"step": 2}, step=[1, 2])
    live = knobs.live()
    assert isinstance(live.children[0], ipywidgets.SelectionSlider)
    assert live.children[0].value == 2
    assert seen == [1, 2, 2]  # the widget draws its own first figure
    assert live.result.alt == "seen at step 2"


def test_live_knobs_draw_several_figures_as_one():
    pytest.importorskip("ipywidgets", reason="live knobs are ipywidgets")
    live = turn(lambda color: [painted(color, (2, 2))] * 2, color=["red"]).live()
    assert live.result.alt == "all red. all red."


@pytest.mark.parametrize(
    ("knobs", "start", "words"),
    [
        ({}, None, "needs values"),
        ({"step": []}, None, "needs values"),
        ({"step": list(range(65))}, None, "65 settings are too many"),
        ({"step": [1, 2]}, {"step": 3}, "is none of the knob's values"),
        ({"step": [1, 2]}, {"stop": 1}, "is none of the knob's values"),
    ],
)
def test_impossible_knobs_are_refused(knobs, start, words):
    with pytest.raises(ValueError, match=words):
        turn(draw, start=start, **knobs)


@pytest.mark.parametrize(
    ("drawn", "words"),
    [(None, "NoneType"), ((), "nothing"), ([Drawing(b"", "", 1), "ring"], "Drawing, str")],
)
def test_a_figure_that_is_none_is_refused(drawn, words):
    with pytest.raises(TypeError, match=f"must return a Drawing.*got {words}"):
        turn(lambda step: drawn, step=[1, 2])
