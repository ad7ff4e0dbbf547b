"""The referring sets: the shipped one as plain loops have it, every form of a small one alike."""

import inspect
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as cocomask
from pycocotools.coco import COCO
from referring_files import SQUARE, fresh, write_pictures, write_set

from nbhelpers import cli, metrics
from nbhelpers.datasets import check, coco, load_image, published, referring
from nbhelpers.datasets.records import Broken, Record, Shown
from nbhelpers.datasets.regions import Region, read_region, uncompressed

ROOT = Path(__file__).parents[1]
STICKERS = ROOT / "data" / "stickers"
SHARED = ROOT.parent / "shared" / "data"


# The sticker benchmark ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def val():
    return referring("stickers", "val", STICKERS)


def test_the_benchmark_is_what_its_files_say(val):
    refs = json.loads((STICKERS / "refs(stickers).json").read_text(encoding="utf-8"))
    expected = [
        (sentence["sent_id"], sentence["sent"], ref["ref_id"], ref["image_id"], ref["ann_id"])
        for ref in refs
        if ref["split"] == "val"
        for sentence in ref["sentences"]
    ]
    found = [(e.id, e.text, e.ref_id, e.image_id, e.annotation_id) for e in val.expressions]
    assert found == sorted(expected)
    assert val.broken == ()
    assert {e.split for e in val.expressions} == {"val"}
    assert repr(val) == "<Referring: stickers val (stickers), 1,164 expressions, 0 records broken>"


def test_masks_and_categories_are_those_of_pycocotools(val, capsys):
    instances = COCO(STICKERS / "instances.json")
    capsys.readouterr()
    for e in val.expressions[::20]:
        annotation = instances.anns[e.annotation_id]
        assert np.array_equal(val.mask(e), instances.annToMask(annotation) == 1)
        assert val.mask(e).sum() == annotation["area"]
        assert e.category == instances.cats[annotation["category_id"]]["name"]
        assert val.image(e.image_id).shape[:2] == val.mask(e).shape


def test_the_checksum_is_of_the_content_alone(val, tmp_path):
    assert val.sha256() == referring("stickers", "val").sha256()
    assert re.fullmatch(r"[0-9a-f]{64}", val.sha256())
    assert val.sha256() != referring("stickers", "testA", STICKERS).sha256()
    refs, instances = fresh()
    first = referring("refcoco", "val", write_set(tmp_path / "a", refs, instances)).sha256()
    again = referring("refcoco", "val", write_set(tmp_path / "b", refs[::-1], instances)).sha256()
    assert first == again  # neither the folder nor the order of the file
    refs[0]["sentences"][0]["sent"] += "s"
    other = referring("refcoco", "val", write_set(tmp_path / "c", refs, instances)).sha256()
    instances["annotations"][0]["segmentation"][0][0] += 1
    more = referring("refcoco", "val", write_set(tmp_path / "d", refs, instances)).sha256()
    assert len({first, other, more}) == 3


def test_an_expression_of_another_set(val):
    stranger = referring("stickers", "testA", STICKERS).expressions[0]
    with pytest.raises(KeyError, match="stickers val has no expression"):
        val.mask(stranger)


def test_exif_does_not_turn_a_picture_of_a_set(tmp_path):
    found = referring("refcoco", "val", write_set(tmp_path, *fresh()))
    path = found.picture_path(7)
    pixels = load_image(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, format="PNG", exif=exif)
    assert np.array_equal(found.image(7), pixels)
    assert load_image(path).shape == (10, 8, 3)


def test_sets_survive_a_worker(val):
    again = pickle.loads(pickle.dumps(val))
    assert again.expressions == val.expressions
    assert again.sha256() == val.sha256()
    error = Broken("f", "ref 1", "sent", "x\n", "wanted more")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(error) == r"'f', ref 1: sent is 'x\n'; wanted more"


# Regions -----------------------------------------------------------------------------------------


def region(segmentation, size):
    return read_region(Record("f", "annotation 1", {"segmentation": segmentation}), size)


def plain_runs(mask):
    """Run lengths by a loop down the columns."""
    counts, now = [0], False
    for pixel in mask.T.ravel():
        if pixel != now:
            counts.append(0)
            now = pixel
        counts[-1] += 1
    return counts


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_run_lengths_are_those_of_pycocotools(h, w, density, seed):
    mask = np.random.default_rng(seed).random((h, w)) < density
    text = cocomask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode("ascii")
    counts = plain_runs(mask)
    assert list(uncompressed(text)) == counts
    for written in (text, counts):
        assert np.array_equal(region({"size": [h, w], "counts": written}, (h, w)).mask(), mask)


def test_long_run_lengths():
    """Numbers of one to six characters, and differences of either sign."""
    for counts in ([0, 1], [15, 16], [31, 32, 33, 1], [10**6, 5, 1, 2 * 10**6], [7, 10**7, 3, 1]):
        total = sum(counts)
        text = cocomask.frPyObjects({"size": [1, total], "counts": counts}, 1, total)["counts"]
        assert list(uncompressed(text.decode("ascii"))) == counts


def corners(rng, h, w):
    number = int(rng.integers(3, 9))
    points = rng.uniform((-0.5, -0.5), (w + 0.5, h + 0.5), (number, 2))
    return points.round(2).ravel().tolist()


def test_polygons_merge_as_pycocotools_and_as_the_usual_loaders_do():
    rng = np.random.default_rng(0)
    differ = 0
    for _ in range(300):
        h, w = map(int, rng.integers(5, 40, 2))
        polygons = [corners(rng, h, w) for _ in range(rng.integers(1, 4))]
        runs = cocomask.frPyObjects(polygons, h, w)
        union = cocomask.decode(cocomask.merge(runs))
        total = sum(cocomask.decode(run).astype(int) for run in runs)
        found = region(polygons, (h, w))
        assert np.array_equal(found.mask(), union == 1)
        assert np.array_equal(found.mask("xor1"), total == 1)
        differ += bool((total > 1).any())
    assert 50 < differ < 250
    mask = inspect.unwrap(Region.mask)  # as it is where no test looks at its arguments first
    with pytest.raises(ValueError, match="merge is 'union' or 'xor1'; got 'sum'"):
        mask(region(SQUARE, (8, 10)), "sum")


def test_the_references_that_the_merge_changes_are_told(tmp_path):
    refs, instances = fresh()
    beside = [[1, 1, 3, 1, 3, 3, 1, 3], [5, 5, 8, 5, 8, 7, 5, 7]]
    over = [[1, 1, 6, 1, 6, 5, 1, 5], [4, 3, 8, 3, 8, 7, 4, 7]]
    instances["annotations"][0]["segmentation"] = beside
    assert referring("refcoco", "val", write_set(tmp_path, refs, instances)).overlaps() == ()
    instances["annotations"][0]["segmentation"] = over
    found = referring("refcoco", "val", write_set(tmp_path, refs, instances))
    assert found.overlaps() == (1,)
    e = found.expressions[0]
    assert found.mask(e).sum() - found.mask(e, "xor1").sum() == 2 * 2


needs_results = pytest.mark.skipif(
    not (SHARED / "coco-results").is_dir(), reason="needs COCO's fake results in ../shared/data"
)


@needs_results
def test_cocos_own_results_load_and_their_iou_is_pycocotools():
    path = SHARED / "coco-results" / "results" / "instances_val2014_fakesegm100_results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    by_image = {}
    for index, result in enumerate(results):
        size = tuple(result["segmentation"]["size"])
        record = Record(str(path), f"result {index}", result)
        mask = read_region(record, size).mask()
        runs = result["segmentation"]
        assert np.array_equal(mask, cocomask.decode(runs) == 1)
        assert mask.sum() == cocomask.area(runs)
        by_image.setdefault(result["image_id"], []).append((mask, runs))
    compared = 0
    for found in by_image.values():
        masks, runs = zip(*found, strict=True)
        theirs = cocomask.iou(list(runs), list(runs), [0] * len(runs))
        for i, mask in enumerate(masks):
            for j in range(i, len(masks)):
                assert metrics.iou(mask, masks[j]) == theirs[i, j]
                compared += 1
    assert len(results) > 500
    assert compared > 2 * len(results)


@pytest.mark.skipif(
    not (SHARED / "real-images").is_dir(), reason="needs the photographs in ../shared/data"
)
def test_a_photograph_of_coco(tmp_path):
    source = SHARED / "real-images" / "coco-785"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    content = (source / "instances.json").read_bytes()
    (tmp_path / "annotations" / "instances_val2017.json").write_bytes(content)
    picture = (source / "000000000785.jpg").read_bytes()
    (tmp_path / "val2017" / "000000000785.jpg").write_bytes(picture)
    found = coco(tmp_path, "val2017")
    assert found.image_ids == (785,)
    assert found.image(785).shape == (425, 640, 3)
    annotation = json.loads(content)["annotations"][0]
    runs = cocomask.merge(cocomask.frPyObjects(annotation["segmentation"], 425, 640))
    classes = found.class_map(785)
    assert np.array_equal(classes > 0, cocomask.decode(runs) == 1)
    assert found.categories[classes.max()] == "person"
    with pytest.raises(FileNotFoundError, match="captions_val2017.json is not beside"):
        found.captions(785)


# COCO --------------------------------------------------------------------------------------------


@pytest.fixture
def small_coco(tmp_path):
    """A dog on a large person, a crowd over both, a gap in the numbers, captions out of order."""
    _, instances = fresh()
    person = [[0, 0, 8, 0, 8, 8, 0, 8]]
    instances["annotations"] = [
        {"id": 5, "image_id": 7, "category_id": 18, "segmentation": SQUARE, "iscrowd": 0},
        {"id": 6, "image_id": 7, "category_id": 1, "segmentation": person, "iscrowd": 0},
        {
            "id": 7,
            "image_id": 7,
            "category_id": 1,
            "segmentation": {"size": [8, 10], "counts": [40, 40]},
            "iscrowd": 1,
        },
    ]
    captions = {
        "annotations": [
            {"id": 2, "image_id": 7, "caption": "second"},
            {"id": 1, "image_id": 7, "caption": "first"},
            {"id": 3, "image_id": 99, "caption": "elsewhere"},
        ]
    }
    (tmp_path / "annotations").mkdir()
    for name, value in (("instances", instances), ("captions", captions)):
        path = tmp_path / "annotations" / f"{name}_train2014.json"
        path.write_text(json.dumps(value), encoding="utf-8")
    write_pictures(tmp_path)
    return coco(tmp_path, "train2014")


def test_classes_of_pixels(small_coco):
    assert small_coco.categories == ("background", "person", "dog")
    expected = np.zeros((8, 10), int)
    expected[:, 5:] = 255  # the crowd, where no single thing is
    expected[:, :8] = 1
    expected[1:5, 1:6] = 2  # in front, since it is smaller
    assert small_coco.class_map(7).tolist() == expected.tolist()
    assert not small_coco.class_map(8).any()
    assert small_coco.class_map(7).dtype == np.uint8


def test_captions_and_pictures(small_coco):
    assert small_coco.captions(7) == ("first", "second")
    assert small_coco.captions(8) == ()
    assert small_coco.image(7).shape == (8, 10, 3)
    assert repr(small_coco) == "<Coco: train2014, 2 pictures, 3 classes, 0 records broken>"
    with pytest.raises(KeyError, match="train2014 has no picture 99"):
        small_coco.class_map(99)


def test_cocos_classes_have_their_known_numbers():
    known = published.COCO_CLASSES
    assert len(known) == 80
    assert [known[i] for i in (1, 11, 13, 44, 67, 70, 90)] == [
        "person",
        "fire hydrant",
        "stop sign",
        "bottle",
        "dining table",
        "toilet",
        "toothbrush",
    ]


# Mirrors -----------------------------------------------------------------------------------------


def mirror_rows():
    """The small set as rows that hold the original records."""
    refs, instances = fresh()
    for ref, annotation, image in zip(
        refs, instances["annotations"], instances["images"], strict=True
    ):
        annotation["bbox"] = [3, 2, 5, 4]
        yield {
            **ref,
            "raw_anns": json.dumps(annotation),
            "raw_image_info": json.dumps(image),
            "image_path": f"coco/train2014/{image['file_name']}",
            "bbox": [3.0, 2.0, 8.0, 6.0],
        }


def write_rows(root, rows, split="val", name="refcoco"):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    write_pictures(root)
    return root


def test_a_mirrors_rows_are_the_original_set(tmp_path):
    plain = referring("refcoco", "val", write_set(tmp_path / "plain", *fresh()))
    found = referring("refcoco", "val", write_rows(tmp_path / "rows", mirror_rows()))
    assert found.expressions == plain.expressions
    assert found.broken == ()
    assert found.sha256() == plain.sha256()


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"bbox": [3, 2, 5, 4]}, "bbox", "wanted [left, top, right, bottom] of the box"),
        ({"bbox": "here"}, "bbox", "wanted [left, top, right, bottom] of the box"),
        ({"raw_anns": "{"}, "raw_anns", "wanted JSON in a text"),
        ({"raw_anns": {"id": 70}}, "raw_anns", "wanted a text that isn't blank"),
        ({"raw_image_info": "[]"}, "the record", "is []; wanted an object"),
        ({"raw_image_info": None}, "raw_image_info", "is None; wanted a text"),
    ],
)
def test_broken_rows_are_left_out(tmp_path, change, field, words):
    first, second = mirror_rows()
    found = referring("refcoco", "val", write_rows(tmp_path, [{**first, **change}, second]))
    assert [e.text for e in found.expressions] == ["people"]
    (error,) = found.broken
    assert error.field == field
    assert error.record.startswith("line 1")
    assert words in str(error)


@pytest.mark.parametrize("line", ["{\n", "[]\n", "\x00\n", '{"a": 1, "a": 2}\n'])
def test_broken_lines_are_left_out(tmp_path, line):
    found = referring("refcoco", "val", write_rows(tmp_path, [line, *list(mirror_rows())[1:]]))
    assert len(found.expressions) == 1
    assert found.broken[0].record == "line 1"


def short_row(image=7, **changes):
    return {
        "question_id": "1",
        "question": "Please carefully observe the area",
        "answer": ["the brown dog", "dog on left"],
        "segmentation": SQUARE[0],
        "bbox": [1.0, 1.0, 5.0, 4.0],
        "iscrowd": 0,
        "file_name": f"COCO_train2014_{image:012d}_3.jpg",
        **changes,
    }


def test_the_other_mirrors_rows(tmp_path):
    rows = [short_row(), short_row(8, answer=["people"])]
    found = referring("refcoco", "val", write_rows(tmp_path, rows))
    assert [(e.id, e.text, e.image_id) for e in found.expressions] == [
        (0, "the brown dog", 7),
        (1, "dog on left", 7),
        (2, "people", 8),
    ]
    assert found.mask(found.expressions[0]).sum() == 20
    assert found.expressions[0].category == "unknown"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file_name": "../../x.jpg"}, "wanted COCO_train2014_ and twelve digits"),
        ({"file_name": "COCO_train2014_000000000009_1.jpg"}, "doesn't exist"),
        ({"answer": []}, "wanted a list that isn't empty"),
        ({"answer": "dog"}, "wanted a list that isn't empty"),
        ({"segmentation": [1, 1, 5, 5]}, "3 corners or more"),
    ],
)
def test_broken_rows_of_the_other_mirror(tmp_path, changes, words):
    rows = [short_row(8, answer=["people"]), short_row(**changes)]
    found = referring("refcoco", "val", write_rows(tmp_path, rows))
    assert len(found.expressions) == 1
    (error,) = found.broken
    assert words in str(error)


@pytest.mark.parametrize(("name", "by", "rows", "refs"), [
    ("refcoco", "unc", 8_811, "3,811"),
    ("refcocog", "umd", 7_573, "2,573"),
])  # fmt: skip
def test_merged_splits_are_refused_with_the_reason(tmp_path, name, by, rows, refs):
    root = write_rows(tmp_path, ["{}\n"] * rows, name=name)
    mixed = f"it mixes {by}'s {refs} references and the 5,000 of Google's val, unmarked"
    with pytest.raises(ValueError, match=mixed):
        referring(name, "val", root)


def test_rows_of_too_many_references(tmp_path):
    root = write_rows(tmp_path, ["{}\n"] * 1_811, split="testB")
    with pytest.raises(ValueError, match="has 1,811 rows, but .* has 1,810 references"):
        referring("refcoco", "testB", root)


# What is there -----------------------------------------------------------------------------------


def run(capsys, *arguments):
    code = cli.main(["data", "check", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_the_shipped_data_is_right(capsys):
    code, out, _ = run(capsys, STICKERS)
    assert code == 0
    assert "ok       stickers val (stickers): 600 references, 1,164 expressions" in out
    assert "ok       stickers testB (stickers) pictures: all 200" in out
    assert "missing  refcoco (unc): refcoco.zip holds refs(unc).p, officially at https://" in out
    assert "often down: then the Internet Archive's copy" in out
    assert out.endswith("6 parts are right, 0 missing or wrong\n")


def test_counts_that_are_not_the_published_ones(tmp_path, capsys):
    root = write_set(tmp_path, *fresh())
    code, out, _ = run(capsys, root, "--quiet")
    assert code == 3
    assert (
        "WRONG    refcoco val (unc): 2 references, 3 expressions; "
        "published: 3,811 references and 10,834 expressions" in out
    )
    assert "WRONG    refcoco testA (unc): " in out


def test_the_published_counts_are_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(published.SPLITS, ("refcoco", "unc"), {"val": (2, 3)})
    root = write_set(tmp_path, *fresh())
    code, out, _ = run(capsys, root)
    assert code == 0
    assert "ok       refcoco val (unc): 2 references, 3 expressions, as published" in out
    (root / "train2014" / "COCO_train2014_000000000007.jpg").unlink()
    code, out, _ = run(capsys, root)
    assert code == 3
    assert "1 of 2 are not in" in out
    assert "such as COCO_train2014_000000000007.jpg; train2014.zip holds the pictures, " in out
    refs, instances = fresh()
    refs[0]["sentences"][0]["sent"] = ""
    code, out, _ = run(capsys, write_set(tmp_path, refs, instances))
    assert code == 3
    assert "1 records broken, first: " in out


def test_a_damaged_set_is_told_in_a_line(tmp_path, capsys):
    root = write_set(tmp_path, b"<html>", fresh()[1])
    code, out, _ = run(capsys, root)
    assert code == 3
    assert "WRONG    refcoco val (unc): " in out
    assert "is not JSON: expecting value at line 1" in out


def test_checksums(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(published.SPLITS, ("refcoco", "unc"), {"val": (2, 3)})
    root = write_set(tmp_path, *fresh())
    code, out, _ = run(capsys, root, "--write-sums")
    assert code == 0
    assert "ok       checksums: 2 of 2 files are as SHA256SUMS says" in out
    path = root / "refcoco" / "instances.json"
    path.write_bytes(path.read_bytes() + b" ")
    code, out, _ = run(capsys, root)
    assert code == 3
    assert "WRONG    checksums: 'refcoco/instances.json' isn't the file" in out
    (root / check.SUMS).write_text(f"{'0' * 64}  ../../etc/passwd\nrubbish\n", encoding="utf-8")
    code, out, _ = run(capsys, root)
    assert code == 3
    assert "'../../etc/passwd' leads out of the folder" in out


@pytest.mark.parametrize("split", ["val2017", "train2014"])
def test_cocos_splits_are_looked_at(tmp_path, capsys, split):
    _, instances = fresh()
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(instances), encoding="utf-8")
    code, out, _ = run(capsys, tmp_path)
    assert code == 3
    assert f"missing  coco {split}: the pictures of {split} are in none of" in out
    (tmp_path / split).mkdir()
    code, out, _ = run(capsys, tmp_path)
    assert code == 3
    assert f"WRONG    coco {split}: 2 pictures, 3 classes with background; published: " in out
    assert "2 of 2 are missing, such as COCO_train2014_000000000007.jpg" in out
    assert f"missing  coco {split} captions: annotations_trainval" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "'nowhere' is no folder; give the one that holds the data"),
        ([""], "'' can't be a folder's name"),
        (["a\0b"], r"'a\x00b' can't be a folder's name"),
        ([], "the following arguments are required: DIR"),
        (["x", "--deep"], "unrecognized arguments: --deep"),
    ],
)
def test_folders_that_cannot_be_looked_through(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_an_empty_folder_holds_nothing(tmp_path, capsys):
    code, out, _ = run(capsys, tmp_path)
    assert code == 3
    assert out.endswith("0 parts are right, 0 missing or wrong\n")


def test_the_help_names_the_exit_codes(capsys):
    with pytest.raises(SystemExit):
        cli.main(["data", "--help"])
    out = capsys.readouterr().out
    for words in ("exit codes:", "  0   at least one set", "  3   nothing is there", "  2   the"):
        assert words in out


def test_the_help_says_what_counts_and_checksums_are_worth(capsys):
    with pytest.raises(SystemExit):
        cli.main(["data", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "right counts don't prove that a file is the published one" in out
    assert "The makers publish no checksums; files are compared with those of a SHA256SUMS" in out


def test_where_a_set_is_looked_for(tmp_path):
    root = write_set(tmp_path, *fresh())
    inside = referring("refcoco", "val", root / "refcoco")
    assert inside.expressions == referring("refcoco", "val", root).expressions
    with pytest.raises(FileNotFoundError, match="refcoco. is not in .* none of refs.unc..json"):
        referring("refcoco+", "val", root / "refcoco")  # the same names, another set
    with pytest.raises(ValueError, match="doesn't come with the package"):
        referring("refcoco", "val")
    (root / "train2014").rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match="the pictures are not beside"):
        referring("refcoco", "val", root)


def test_values_are_shown_short_and_safe():
    deep = []
    for _ in range(900):
        deep = [deep]
    for value in (deep, "x\x1b[31m" * 99, ["\u202e" * 99] * 99, {"k" * 999: 1}, 2**9999):
        shown = Shown(value)
        assert shown.isprintable()
        assert len(shown) < 200


def test_a_drawn_polygon_covers_what_it_should():
    """An outline drawn by Pillow, as a person would look at it: within a pixel along the edge."""
    polygon = [2.0, 3.0, 25.0, 6.0, 20.0, 28.0, 8.0, 22.0]
    canvas = Image.new("1", (30, 32))
    ImageDraw.Draw(canvas).polygon(polygon, fill=1)
    drawn = np.array(canvas)
    mask = region([polygon], (32, 30)).mask()
    assert (drawn != mask).sum() < 0.12 * drawn.sum()


def test_exif_does_not_turn_a_picture_of_coco(small_coco):
    path = small_coco.folder / small_coco.pictures[7].file_name
    stored, exif = load_image(path), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(path, format="PNG", exif=exif)
    assert np.array_equal(small_coco.image(7), stored)


def test_rows_of_as_many_references_are_read(tmp_path):
    root = write_rows(tmp_path, [short_row(), *["{}\n"] * 1_809], split="testB")
    found = referring("refcoco", "testB", root)
    assert (len(found.expressions), len(found.broken)) == (2, 1_809)


def test_the_checksum_knows_the_categories(tmp_path):
    refs, instances = fresh()
    first = referring("refcoco", "val", write_set(tmp_path / "a", refs, instances)).sha256()
    instances["categories"][1]["name"] = "wolf"
    again = referring("refcoco", "val", write_set(tmp_path / "b", refs, instances)).sha256()
    assert first != again
