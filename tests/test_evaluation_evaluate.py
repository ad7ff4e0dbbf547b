"""A dataset by several methods in one call: the figures are those of the masks, one by one."""

import dataclasses
import json

import numpy as np
import pytest
from referring_files import fresh, write_set

import nbhelpers as nb
from nbhelpers.metrics import iou, paired_bootstrap
from nbhelpers.settings import Settings


@pytest.fixture
def data(tmp_path):
    """Two pictures with phrases that the small parser knows, one that names nothing."""
    refs, instances = fresh()
    for ref, texts in zip(refs, (["the dog", "a black dog"], ["the cat"]), strict=True):
        for sentence, words in zip(ref["sentences"], texts, strict=True):
            sentence["sent"] = words
    broken = {**refs[1], "ref_id": 3, "ann_id": 99, "sent_ids": [30]}
    nothing = {"sent_id": 25, "sent": "of the", "raw": "", "tokens": []}
    refs[1]["sentences"].append(nothing)
    return nb.referring("refcoco", "val", write_set(tmp_path, [*refs, broken], instances))


def test_the_figures_are_those_of_the_masks(models, data):
    methods = {"mine": Settings(alpha=0.5), "other": Settings(isolate="every", threshold=0.3)}
    found = nb.evaluate(models, data, methods, progress=False, batch=2)
    assert found.baseline == "mine"
    assert found.thresholds == {"mine": 0.5, "other": 0.3}
    good = [e for e in data.expressions if e.text != "of the"]
    assert sorted(found.expressions) == [e.id for e in good]
    for name, settings in methods.items():
        for number, value in zip(found.expressions, found.ious[name], strict=True):
            (e,) = (e for e in good if e.id == number)
            image = data.image(e.image_id)
            mask = nb.segment(image, e.text, models, settings=settings).mask
            assert value == pytest.approx(iou(mask, data.mask(e)), abs=0.03)
        wanted = float(np.mean(found.ious[name]))
        interval = found.miou[name]
        assert interval.mean == pytest.approx(wanted)
        assert interval.low <= wanted <= interval.high
        assert 0 <= found.oiou[name] <= 1
    assert found.gain["mine"] is None
    pair = found.ious["other"], found.ious["mine"]
    assert found.gain["other"] == paired_bootstrap(*pair, found.pictures)


def test_what_was_left_out_is_told(models, data):
    found = nb.evaluate(models, data, ["plain", "sealed"], progress=False)
    assert list(found.errors) == [25]
    assert "no noun chunk was found in 'of the'" in found.errors[25]
    assert found.broken == 1
    said = "3 expressions of 2 pictures; 1 errors and 1 broken records left out"
    for text in (repr(found), found._repr_mimebundle_()["text/html"]):
        assert said in text
        assert "gain over plain" in text
    assert "sealed" in repr(found)
    json.dumps({k: dataclasses.asdict(v) for k, v in found.miou.items()})


def test_only_the_first_pictures(models, data):
    found = nb.evaluate(models, data, ["plain"], pictures=1, progress=False)
    assert set(found.pictures) == {7}


@pytest.mark.parametrize("methods", [[], "plain", ["best"]])
def test_methods_that_there_are_not(models, data, methods):
    with pytest.raises(ValueError, match="methods is a list|method is one of"):
        nb.evaluate(models, data, methods, progress=False)


def test_nothing_to_read_is_an_error(models, data):
    none = dataclasses.replace(
        data, expressions=tuple(e for e in data.expressions if e.text == "of the")
    )
    with pytest.raises(ValueError, match="none of 1 expressions could be read, the first: Value"):
        nb.evaluate(models, none, ["plain"], progress=False)
