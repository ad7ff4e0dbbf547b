"""From weights to tables by one command, with a small random model and few variants."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import nbhelpers as nb
from nbhelpers.cli import main
from nbhelpers.evaluation import jobs, load_results, questions
from nbhelpers.evaluation.jobs import ORDERS
from nbhelpers.evaluation.questions import leaks
from nbhelpers.evaluation.tables import methods, weighted
from nbhelpers.segment import SETTINGS

NOUNS = ("ring", "moon", "dog")  # that the tests' parser knows


@pytest.fixture
def world(tmp_path, monkeypatch):
    """The benchmark's first pictures, one or two a split, their things called what is known."""
    home = nb.weights.data_folder() / "stickers"
    there = tmp_path / "data" / "stickers"
    (there / "images").mkdir(parents=True)
    refs = json.loads((home / "refs(stickers).json").read_text())[:12]
    splits = {1: "val", 2: "testA", 3: "testA", 4: "testB"}
    for index, ref in enumerate(refs):
        noun = NOUNS[index % 3]
        ref["split"] = splits[ref["image_id"]]
        said = {"attribute": f"the red {noun}", "noun": noun}
        for sentence in ref["sentences"]:
            sentence["sent"] = said.get(sentence["kind"], f"the {noun} on the left")
    (there / "refs(stickers).json").write_text(json.dumps(refs))
    instances = json.loads((home / "instances.json").read_text())
    instances["images"] = [image for image in instances["images"] if image["id"] in splits]
    instances["annotations"] = [
        annotation for annotation in instances["annotations"] if annotation["image_id"] in splits
    ]
    for category in instances["categories"]:  # no two alike, each ends in a noun that is known
        category["name"] = f"{category['name']} {NOUNS[category['id'] % 3]}"
    (there / "instances.json").write_text(json.dumps(instances))
    for number in splits:
        shutil.copy(home / "images" / f"{number:06d}.png", there / "images")
    monkeypatch.chdir(tmp_path)
    return there


@pytest.fixture
def few(monkeypatch, models):
    """Few variants, so that all parts take seconds."""
    some = {
        row.label: row.settings for row in leaks() if row.settings.isolate in ("none", "every")
    }
    read = {
        "tables": lambda: {**methods(), "half": weighted(0.5), "one": weighted(1.0)},
        "leaks": lambda: dict(list(some.items())[:3]),
        "settings": lambda: {
            "plain": SETTINGS["plain"],
            "half": replace(SETTINGS["chunk"], alpha=0.5),
        },
    }
    for name, variants in read.items():
        part = questions.PARTS[name]
        monkeypatch.setitem(questions.PARTS, name, replace(part, variants=variants))
    monkeypatch.setattr(
        jobs, "code_version", lambda *sources: "as it was"
    )  # whoever edits meanwhile
    loaded = []
    monkeypatch.setattr(jobs, "load_models", lambda *a, **k: loaded.append(a) or models)
    monkeypatch.setattr(nb.models, "load_models", lambda *a, **k: models)
    return loaded


def test_all_by_one_command(world, few, capsys):
    command = ["reproduce", "--root", "data/stickers", "--work", "runs", "--out", "out"]
    assert main([*command, "--parts", "tables", "classes", "--shard", "0/2"]) == 0
    assert "when the other shares are done" in capsys.readouterr().out
    assert not Path("out/tables.json").exists()
    command += ["--parts", *questions.PARTS]  # the family has a test of its own
    assert main(command) == 0
    shown = capsys.readouterr().out.split()
    assert {"out/tables.json", "out/figure-7.png", "out/questions.md"} <= set(shown)
    assert "out/figure-8-loses-most.png" in shown
    results = load_results("out")
    assert [(table["name"], table["split"]) for table in results.tables] == [
        *(("table-1", "testA"), ("table-2", "testA"), ("table-2", "testB")),
        *(("table-2-code", "testA"), ("table-2-code", "testB")),
        *(("table-3", "testA"), ("table-4", "testA"), ("table-4", "testB")),
        *(("figure-8", "testA"), ("figure-8", "testB"), ("leaks", "testA")),
        *(("weight", "testA"), ("into", "testA"), ("completion", "testA")),
        *(("kinds", "testA"), ("gains", "testA"), ("kinds", "testB"), ("gains", "testB")),
    ]
    assert results.row("table-3", alpha=0.5)["gain"]["pictures"] == 2
    assert results.table("table-2", "testB")["pictures"] == 1
    assert {row["order"] for row in results.rows("leaks")} == set(ORDERS)
    assert {row["method"]: row["alpha"] for row in results.rows("weight")} == (
        {"plain": 1.0, "chunk": 0.5}
    )
    runs = len(few)
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    assert main([*command, "--quiet"]) == 0  # all is there: nothing is loaded, the same is written
    assert len(few) == runs
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


def test_errors_are_told_and_the_tables_made(world, few, capsys):
    refs = json.loads((world / "refs(stickers).json").read_text())
    refs[3]["sentences"][0]["sent"] = "of of"
    (world / "refs(stickers).json").write_text(json.dumps(refs))
    command = ["reproduce", "--root", "data/stickers", "--work", "runs", "--out", "out"]
    assert main([*command, "--parts", "tables", "--quiet"]) == 3
    assert "1 items ended in an error and are left out" in capsys.readouterr().err
    assert load_results("out").table("table-2")["errors"] == 1


def test_a_folder_that_takes_no_results_is_refused_first(world, few, capsys):
    Path("file").write_text("")
    assert main(["reproduce", "--root", "data/stickers", "--out", "file/out"]) == 2
    assert "the results can't go to 'file/out'" in capsys.readouterr().err
    assert not Path("build").exists() and few == []


def test_the_parts_that_can_be_named_are_those_that_there_are():
    from nbhelpers.cli.reproduce import PARTS

    assert list(PARTS) == [*questions.PARTS, "family"]
    assert {*questions.OF_TABLES, *questions.OF_QUESTIONS} == set(questions.PARTS)
