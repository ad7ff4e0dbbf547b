"""The model card: its figures are those of results.json, its checksums those of the files."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from recipe.__main__ import main
from recipe.card import PIECES, write_card
from recipe.score import machines, training_cost

FOLDER = Path(__file__).parents[1] / "data" / "stickers"
ROW = re.compile(r"^\| `([^`]+)` \| ([\d,]+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def rows(folder):
    """The card's checksums: file, bytes, SHA-256."""
    found = ROW.findall((folder / "MODEL_CARD.md").read_text(encoding="utf-8"))
    return {name: (int(size.replace(",", "")), digest) for name, size, digest in found}


def weights(folder):
    """The same, counted from the files below the pieces' folders."""
    found = {}
    for piece in ("stable-diffusion", "clip", "blip", "parser", "family"):
        for path in (folder / piece).rglob("*"):
            if path.suffix == ".safetensors" or (piece == "parser" and path.name == "model"):
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[path.relative_to(folder).as_posix()] = (path.stat().st_size, digest)
    return found


def test_the_cards_checksums_are_those_of_the_shipped_weights():
    found = rows(FOLDER)
    assert found == weights(FOLDER)
    assert len([name for name in found if not name.startswith("family/")]) == 8


def test_the_shipped_card_is_the_one_that_is_written(tmp_path):
    """The same comes of results.json and the files again, so no table was edited by hand."""
    (tmp_path / "stickers").mkdir()
    for name in (*PIECES, "results.json", "contact-sheet.png"):
        if (FOLDER / name).exists():
            (tmp_path / "stickers" / name).symlink_to((FOLDER / name).resolve())
    (tmp_path / "results").symlink_to(FOLDER.parent / "results")
    models = tmp_path / "stickers"
    write_card(models)
    assert (models / "MODEL_CARD.md").read_text() == (FOLDER / "MODEL_CARD.md").read_text()


def test_the_card_holds_each_goal_against_what_was_measured():
    """The size is summed here from the files, the rest read from the records themselves."""
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    table = card.partition("| what | wanted | measured | tried |")[2].partition("\n\n")[0]
    goals = dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|", table, re.MULTILINE))
    assert len(goals) == 15
    parts = {"family": 0, "parser": 0, "rest": 0}
    for name, (size, _) in weights(FOLDER).items():
        part = name.partition("/")[0]
        parts[part if part in parts else "rest"] += size
    own = parts["rest"] + parts["parser"] / 2
    with_family = (
        f"{own / 1e6:.1f} MB; {(own + parts['family']) / 1e6:.1f} MB with those of `family`"
    )
    assert goals["all weights, spaCy's float32 counted as float16"] == with_family
    tables = json.loads((FOLDER.parent / "results" / "tables.json").read_text())["tables"]
    table = next(t for t in tables if (t["name"], t["split"]) == ("table-2", "testA"))
    sealed = next(row for row in table["rows"] if row["method"] == "sealed")
    miou, oiou = (100 * sealed[key] for key in ("miou", "oiou"))
    low, high = (100 * sealed["oiou_interval"][end] for end in ("low", "high"))
    said = goals["phrases by the sealed prompt"]
    assert said.startswith(f"mIoU {miou:.1f} [")
    assert said.endswith(f"oIoU {oiou:.1f} [{low:.1f}, {high:.1f}]")


@pytest.fixture
def out(tmp_path):
    """Models of a few bytes, and what was measured of them."""
    for name in ("clip/model.safetensors", "parser/tok2vec/model", "parser/tokenizer"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 100_000)
    record = {
        "versions": {"torch": "2.9"},
        "clip": {
            "training styles": {"noun": 0.8125, "color": 0.9375},
            "held-out style": {"noun": 0.4375, "color": 0.875},
        },
        "parser": {"verbs": 0.25, "corners": 0.75},
        "remarks": ["One was trained in two pieces.", "The other wasn't."],
        "machines": [{"device": "cpu", "threads": 1}, {"device": "NVIDIA H100", "threads": 8}],
        "training": {
            "seed-1/unet": {"step": 20, "loss": 0.5, "seconds": 90.0},
            "seed-0/unet": {"step": 12_000, "loss": 0.0625, "seconds": 600.0},
            "autoencoder": {"step": 10, "loss": 0.125, "psnr": 31.5, "seconds": 60.0},
            "parser": {"epochs": 28, "core_seconds": 960, "seed": 0, "words": 5},
        },
    }
    (tmp_path / "results.json").write_text(json.dumps(record))
    return tmp_path


def test_the_card_tells_what_was_measured_and_leaves_out_the_rest(out):
    assert main(["card", "--out", str(out)]) == 0
    card = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert rows(out) == weights(out)
    assert "held-out style | 0.438; color given the noun 0.875 |" in card
    assert "on cpu with 1 thread and on NVIDIA H100 with 8 threads" in card
    assert 'weakest list is "verbs", with an F1 of 0.250' in card
    assert "CLIP names 0.44 of the things in a style of drawing that it never saw, 0.81" in card
    assert "| `clip` | the whole CLIP, with its image encoder | 2.2 |" in card
    table = card.partition("| part | loss |")[2].partition("\n\n")[0].splitlines()[2:]
    assert [line.split(" | ")[0].strip("|` ") for line in table] == [
        *("autoencoder", "parser", "seed-0/unet", "seed-1/unet")
    ]
    assert table[0].endswith("| 10 | 1 | loss 0.125, psnr 31.5 |")
    assert table[1].endswith("| 28 epochs | 16 |  |")
    assert "| 12,000 | 10 | loss 0.0625 |" in table[2]
    assert "\n\nOne was trained in two pieces.\n\nThe other wasn't.\n\n**Why" in card
    for unmeasured in ("BLIP, every noun", "generated", "contact-sheet", "PSNR", "`segment`"):
        assert unmeasured not in card, unmeasured


def test_other_weights_have_another_checksum(out):
    write_card(out)
    before = rows(out)
    (out / "clip" / "model.safetensors").write_bytes(b"other")
    assert rows(out) != weights(out)
    write_card(out)
    assert rows(out) == weights(out) != before


def test_a_card_of_nothing_measured_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m recipe score first"):
        write_card(tmp_path)


def test_the_cost_is_of_the_parts_and_not_of_what_lies_beside(tmp_path):
    (tmp_path / "parser").mkdir()
    (tmp_path / "parser" / "meta.json").write_text('{"training": {"epochs": 28}}')
    for name in ("autoencoder", "seed-0/unet", "seed-0/parser", "tried/unet", "seed-0/old/unet"):
        path = tmp_path / f"{name}.log.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"step": 50, "loss": 2.0}\n{"step": 60, "loss": 1.0}\n{"psnr": 30.0}\n')
    last = {"step": 60, "loss": 1.0, "psnr": 30.0}
    assert training_cost(tmp_path, tmp_path) == {
        **{"parser": {"epochs": 28}, "autoencoder": last, "seed-0/unet": last}
    }
    assert machines(tmp_path) == []
    lines = [
        {"device": "cpu", "threads": n, "finished": f"day {i}"} for i, n in enumerate((1, 1, 2))
    ]
    (tmp_path / "machines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert machines(tmp_path) == [{"device": "cpu", "threads": 1}, {"device": "cpu", "threads": 2}]
