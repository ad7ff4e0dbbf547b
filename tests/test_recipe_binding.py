"""The prompts of the binding test: what they ask for, and that the repository holds them."""

import json

from recipe.art import COLORS_OF, FOLDER, PEOPLE, UNSEEN
from recipe.binding import COUNTS, write_binding
from recipe.captions import said_of
from recipe.color import COLORS


def test_the_prompts_in_the_repository_are_those_that_are_written(tmp_path):
    write_binding(tmp_path)
    there = (FOLDER.parent / "binding.json").read_bytes()
    assert (tmp_path / "binding.json").read_bytes() == there


def test_every_prompt_asks_for_two_things_in_two_colors():
    record = json.loads((FOLDER.parent / "binding.json").read_text())
    assert {split: len(part) for split, part in record["prompts"].items()} == COUNTS
    asked = [one for part in record["prompts"].values() for one in part]
    assert len({one["text"] for one in asked}) == sum(COUNTS.values())
    for one in asked:
        things = [(thing["noun"], thing["color"]) for thing in one["things"]]
        assert said_of(one["text"]) == things  # a reader written apart from the writer
        assert said_of(one["colorless"]) == [(noun, None) for noun, _ in things]
        (first, one_color), (second, other_color) = things
        assert first != second and one_color != other_color
        for noun, color in things:
            assert color in COLORS_OF[noun] and color in COLORS and (noun, color) not in UNSEEN
            assert noun not in PEOPLE
    assert record["colors"].keys() == COLORS.keys() and len(record["nouns"]) == 30
