"""COCO's records one by one: what a flag may be, and what a broken record costs."""

import json

import numpy as np
import pytest
from referring_files import SQUARE, fresh, write_pictures

from nbhelpers import cli
from nbhelpers.datasets import Broken, coco, referring
from nbhelpers.datasets.check import check


def write(root, instances, captions=None, below=""):
    """A split in a folder, its pictures perhaps in a folder of their own below it."""
    (root / "annotations").mkdir(parents=True)
    for name, value in (("instances", instances), ("captions", captions)):
        if value is not None:
            path = root / "annotations" / f"{name}_train2014.json"
            path.write_text(json.dumps(value), encoding="utf-8")
    images = write_pictures(root)
    if below:
        (images / below).mkdir()
        for picture in images.glob("*.jpg"):
            picture.rename(images / below / picture.name)
    return root


@pytest.mark.parametrize(
    ("flag", "ignored"),
    [({}, 0), ({"iscrowd": None}, 0), ({"iscrowd": 0}, 0), ({"iscrowd": False}, 0),
     ({"iscrowd": 1}, 20), ({"iscrowd": True}, 20)],
)  # fmt: skip
def test_a_crowd_says_so(tmp_path, flag, ignored):
    _, instances = fresh()
    thing = {"id": 70, "image_id": 7, "category_id": 18, "segmentation": SQUARE}
    instances["annotations"] = [{**thing, **flag}]
    found = coco(write(tmp_path, instances), "train2014").class_map(7)
    assert (found == 255).sum() == ignored
    assert (found == 2).sum() == 20 - ignored


@pytest.mark.parametrize("flag", ["0", "", "false", 2, -1, 1.0, [], {}])
def test_a_flag_that_is_neither_yes_nor_no_is_broken(tmp_path, flag):
    _, instances = fresh()
    instances["annotations"][0]["iscrowd"] = flag
    found = coco(write(tmp_path, instances), "train2014")
    with pytest.raises(Broken, match="annotation 70: iscrowd is .*; wanted 0, 1, true or false"):
        found.class_map(7)
    assert np.unique(found.class_map(8)).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"id": 1, "image_id": 7, "caption": " "}, "caption is ' '"),
        ({"id": 1, "image_id": 7}, "caption is missing"),
        ({"id": "1", "image_id": 7, "caption": "a dog"}, "id is '1'"),
        ({"id": 1, "image_id": None, "caption": "a dog"}, "image_id is None"),
        ("a dog", "the record is 'a dog'"),
    ],
)
def test_a_broken_caption_costs_itself_alone(tmp_path, record, words):
    _, instances = fresh()
    good = {"id": 2, "image_id": 7, "caption": "a good dog"}
    root = write(tmp_path, instances, {"annotations": [record, good]})
    found = coco(root, "train2014")
    assert found.captions(7) == ("a good dog",)
    assert found.image_ids == (7, 8)
    assert [words in str(error) for error in found.broken] == [True]


@pytest.mark.parametrize("spoil", [{"name": ""}, {"name": 3}, {}])
def test_a_broken_class_costs_its_own_pictures(tmp_path, spoil):
    _, instances = fresh()
    instances["categories"][0] = {"id": 1, **spoil}
    found = coco(write(tmp_path, instances), "train2014")
    assert found.categories == ("background", "dog")
    assert len(found.broken) == 1
    assert (found.class_map(7) == 1).sum() == 20
    crowd = instances["annotations"][1]
    crowd["iscrowd"] = 0
    with pytest.raises(Broken, match="category_id is 1; no category has this number"):
        coco(write(tmp_path / "other", instances), "train2014").class_map(8)


def test_annotations_that_contradict_each_other_cost_the_pictures_that_they_name(tmp_path):
    _, instances = fresh()
    instances["annotations"].append({**instances["annotations"][0], "category_id": 1})
    found = coco(write(tmp_path, instances), "train2014")
    assert found.image_ids == (8,)
    assert "annotation 70: id is 70; several annotations differ" in str(found.broken[0])


def test_the_check_finds_pictures_where_the_reader_does(tmp_path):
    _, instances = fresh()
    for entry in instances["images"]:
        entry["file_name"] = f"part-1/{entry['file_name']}"
    root = write(tmp_path, instances, below="part-1")
    assert coco(root, "train2014").image(7).shape == (8, 10, 3)
    assert not [f for f in check(root) if f.state == "missing" and "pictures" in f.what]
    (root / "train2014" / instances["images"][0]["file_name"]).unlink()
    (lost,) = [f for f in check(root) if f.state == "missing" and "2014 pictures" in f.what]
    assert lost.words.startswith("1 of 2 are missing, such as part-1/COCO")


def test_a_reference_may_leave_its_class_to_the_annotation(tmp_path):
    refs, instances = fresh()
    refs[0]["category_id"] = None
    (tmp_path / "refcoco").mkdir()
    for name, value in (("refs(unc)", refs), ("instances", instances)):
        (tmp_path / "refcoco" / f"{name}.json").write_text(json.dumps(value))
    write_pictures(tmp_path)
    found = referring("refcoco", "val", tmp_path)
    assert {e.category for e in found.expressions} == {"dog", "person"}
    assert not found.broken


@pytest.mark.parametrize("share", [(), ("--shard", "0/2")])
def test_what_was_left_out_is_told_where_results_are_counted(
    tmp_path, models, monkeypatch, capsys, share
):
    from nbhelpers.evaluation import jobs

    monkeypatch.setattr(jobs, "load_models", lambda *a, **k: models)
    _, instances = fresh()
    instances["annotations"][1]["image_id"] = "8"
    root = write(tmp_path, instances)
    out = str(tmp_path / "out")
    more = ["--split", "train2014", "--method", "plain", "--quiet", "--out", out, *share]
    cli.main(["evaluate", "--dataset", "coco", "--root", str(root), *more])
    assert "1 broken records of coco train2014 were left out, the first:" in (
        capsys.readouterr().err
    )
