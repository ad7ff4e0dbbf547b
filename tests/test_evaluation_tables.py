"""Tables and answers from made-up runs, against plain loops over the same counts."""

import hashlib
import json
import re
from argparse import Namespace
from dataclasses import asdict, replace
from itertools import product

import numpy as np
import pytest
from evaluated_runs import KINDS, ORDERS, made_counts, made_items, made_run

from nbhelpers.cli import main
from nbhelpers.evaluation import load_results, markdown, side_by_side
from nbhelpers.evaluation.jobs import Job
from nbhelpers.evaluation.questions import (
    PARTS,
    QUESTIONS,
    answer_gains,
    answer_kinds,
    answer_leaks,
    answers,
    leak_variants,
    leaks,
    leaks_into,
    make_jobs,
    phrase_variants,
)
from nbhelpers.evaluation.results import Results, save_tables
from nbhelpers.evaluation.runs import (
    compare,
    ious_of,
    load,
    load_class_runs,
    load_runs,
    part_by_split,
)
from nbhelpers.evaluation.store import Store
from nbhelpers.evaluation.tables import (
    TABLES,
    class_tables,
    examples,
    make_tables,
    methods,
    paper_tables,
    variants,
)
from nbhelpers.metrics import paired_bootstrap_classes
from nbhelpers.segment import SETTINGS

PLAIN, PAPER = SETTINGS["plain"], SETTINGS["paper"]
TWO = {"plain": PLAIN, "paper": PAPER}


def loop_iou(split, names, item, t):
    """The mean over seeds of one item's IoU at a threshold."""
    values = []
    for name in names:
        shared, either = made_counts(split, name, item)
        values.append(shared[t] / either[t])
    return sum(values) / len(values)


def loop_miou(split, names, items, t):
    values = [loop_iou(split, names, item, t) for item in items]
    return sum(values) / len(values)


def loop_best(split, names, items):
    curve = [loop_miou(split, names, items, t) for t in range(101)]
    return curve.index(max(curve))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of val and one of testA, with all that the tables need."""
    folder = tmp_path_factory.mktemp("runs")
    for split, pictures in (("val", 4), ("testA", 6)):
        made_run(folder / split, split, variants(), pictures=pictures)
    return folder


@pytest.fixture(scope="module")
def both(runs):
    val, (test,) = load_runs(runs)
    return val, test


def exact_ends(above, below, pictures):
    """The 2.5th and 97.5th percentile of a ratio of sums over all draws of the pictures."""
    known = sorted(set(pictures))
    sums = np.array(
        [
            [sum(v for v, p in zip(part, pictures, strict=True) if p == k) for k in known]
            for part in (above, below)
        ]
    )
    draws = np.array(list(product(range(len(known)), repeat=len(known))))
    return np.percentile(sums[0][draws].sum(axis=1) / sums[1][draws].sum(axis=1), [2.5, 97.5])


def test_worth_is_what_loops_say(both):
    val, test = both
    found = compare(val, test, PAPER, PLAIN, seeds=[0])
    index = loop_best("val", ["paper"], made_items(4))
    base = loop_best("val", ["plain"], made_items(4))
    items = made_items(6)
    assert found.threshold == index / 100
    assert index != loop_best("testA", ["paper"], items)  # else the next line says little
    assert found.miou == pytest.approx(loop_miou("testA", ["paper"], items, index), abs=1e-12)
    assert found.half == pytest.approx(loop_miou("testA", ["paper"], items, 50), abs=1e-12)
    top = loop_best("testA", ["paper"], items)
    assert found.oracle_threshold == top / 100
    assert found.oracle == pytest.approx(loop_miou("testA", ["paper"], items, top), abs=1e-12)
    gain = found.miou - loop_miou("testA", ["plain"], items, base)
    assert found.gain.mean == pytest.approx(gain, abs=1e-9)
    assert found.gain.low < found.gain.mean < found.gain.high
    assert found.gain.pictures == 6
    counts = [made_counts("testA", "paper", item) for item in items]
    whole = sum(c[0][index] for c in counts) / sum(c[1][index] for c in counts)
    theirs = [made_counts("testA", "plain", item) for item in items]
    other = sum(c[0][base] for c in theirs) / sum(c[1][base] for c in theirs)
    assert found.oiou == pytest.approx(whole, abs=1e-12)
    assert found.overall_gain.mean == pytest.approx(whole - other, abs=1e-9)
    assert found.oiou_interval.mean == pytest.approx(whole, abs=1e-9)
    assert found.miou_interval.mean == pytest.approx(found.miou, abs=1e-9)
    ious = [loop_iou("testA", ["paper"], item, index) for item in items]
    over, under = zip(*((c[0][index], c[1][index]) for c in counts), strict=True)
    for interval, parts in (
        (found.miou_interval, (ious, np.ones(len(items)))),
        (found.oiou_interval, (over, under)),
    ):
        ends = exact_ends(*parts, [item["image"] for item in items])
        assert (interval.low, interval.high) == pytest.approx(ends, abs=0.01)
        assert interval.high - interval.low > 0.1  # ten times the tolerance
    reached = [loop_iou("testA", ["paper"], item, index) >= 0.5 for item in items]
    assert found.precision[0.5] == sum(reached) / len(reached)
    assert 0 < found.precision[0.5] < 1


def test_seeds_are_averaged_before_anything_else(both):
    val, test = both
    found = compare(val, test, PAPER)
    names = ["paper", "paper, seed 1"]
    index = loop_best("val", names, made_items(4))
    assert found.threshold == index / 100
    assert found.miou == pytest.approx(loop_miou("testA", names, made_items(6), index), abs=1e-12)
    assert list(found.seeds) == ["0", "1"]
    for name, seed in zip(names, "01", strict=True):
        alone = loop_miou("testA", [name], made_items(6), index)
        assert found.seeds[seed] == pytest.approx(alone, abs=1e-12)
    assert found.gain is None


def test_only_seeds_that_both_have_are_compared(both):
    val, test = both
    weak = next(s for name, s in variants().items() if name == "paper, alpha 0.5")
    found = compare(val, test, weak, PLAIN)
    assert list(found.seeds) == ["0"]
    base = loop_best("val", ["plain"], made_items(4))
    gain = found.miou - loop_miou("testA", ["plain"], made_items(6), base)
    assert found.gain.mean == pytest.approx(gain, abs=1e-9)


def test_what_was_not_read_is_left_out(both):
    val, test = both
    assert compare(val, test, replace(PLAIN, steps=3)) is None
    assert compare(val, test, PAPER, replace(PLAIN, steps=3)).gain is None
    assert ious_of(val, test, replace(PLAIN, seed=7)) is None


def test_the_papers_tables_have_the_papers_numbers(both):
    val, test = both
    found = {table["name"]: table for table in make_tables(val, [test])}
    assert list(found) == ["table-2", "table-2-code", "table-3", "table-4"]
    theirs = [
        (r["alpha"], r["paper"]["threshold"], r["paper"]["miou"]) for r in found["table-3"]["rows"]
    ]
    assert [f"{100 * miou:.1f}" for *_, miou in theirs] == (
        "17.6 19.1 20.2 21.9 22.5 22.6 23.0 22.8 22.6".split()
    )
    assert [alpha for alpha, threshold, _ in theirs if threshold == 0.55] == [0.5, 1]
    assert [r["paper"] and r["paper"]["miou"] for r in found["table-2"]["rows"]] == (
        [0.224, None, 0.23, None]
    )
    assert [r["paper"]["miou"] for r in found["table-4"]["rows"]] == [0.224, 0.226, 0.23]
    assert [r["gain"] is None for r in found["table-4"]["rows"]] == [True, False, False]
    # One seed for all of Table 3, since most of its weights were read from one alone.
    assert {tuple(r["seeds"]) for r in found["table-3"]["rows"]} == {("0",)}
    assert {tuple(r["seeds"]) for r in found["table-2"]["rows"]} == {("0", "1")}
    assert found["table-3"]["rows"][-1]["gain"] is None
    (nine,) = (r for r in found["table-3"]["rows"] if r["alpha"] == 0.9)
    assert nine["miou"] == compare(val, test, PAPER, seeds=[0]).miou
    curve = found["table-2"]["rows"][2]["curve"]
    names = ["paper", "paper, seed 1"]
    assert curve[30] == pytest.approx(loop_miou("testA", names, made_items(6), 30), abs=1e-12)


def test_table_2_is_told_over_both_baselines(both):
    val, test = both
    (table,) = make_tables(val, [test], {"table-2-code": TABLES["table-2-code"]})
    assert [row["method"] for row in table["rows"]] == ["diffsegmenter", "paper", "sealed"]
    assert table["rows"][0]["gain"] is None
    code = SETTINGS["diffsegmenter"]
    for row in table["rows"][1:]:
        value = compare(val, test, SETTINGS[row["method"]], code, seeds=[0, 1])
        assert row["gain"] == asdict(value.gain)
        assert row["overall_gain"] == asdict(value.overall_gain)


def test_gains_over_what_was_not_read_make_no_table(tmp_path):
    made_run(tmp_path / "val", "val", methods(), pictures=2)
    made_run(tmp_path / "testA", "testA", TWO, pictures=2)
    val, tests = load_runs(tmp_path)
    assert "table-2-code" not in [table["name"] for table in make_tables(val, tests)]


def test_every_setting_of_the_tables_is_read():
    read = list(variants().values())
    for table in TABLES.values():
        assert all(row.settings in read for row in table.rows)
    assert len(read) == len({repr(s) for s in read}) == 2 * len(SETTINGS) + 8
    assert [s.seed for s in methods().values()] == [0] * len(SETTINGS) + [1] * len(SETTINGS)


def test_a_piece_of_an_axis_makes_no_table(tmp_path):
    """As testB, of which the named methods alone are read: of Table 3 that is 0.9 and 1."""
    read = {"val": variants(), "testA": variants(), "testB": SETTINGS}
    for split, some in read.items():
        made_run(tmp_path / split, split, some, pictures=2)
    val, tests = load_runs(tmp_path)
    found = [(table["name"], table["split"]) for table in make_tables(val, tests)]
    assert ("table-3", "testA") in found and ("table-3", "testB") not in found
    assert ("table-2", "testB") in found and ("table-4", "testB") in found


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        (["val"], "are of val; evaluate one run of val and one of a test split"),
        (["testA"], "are of testA;"),
        (["val", "val", "testA"], "are of val, val, testA"),
        ([], "are of no split"),
    ],
)
def test_runs_that_make_no_table(tmp_path, splits, words):
    loaded = [load(made_run(tmp_path / str(i), s, TWO)) for i, s in enumerate(splits)]
    with pytest.raises(ValueError, match=re.escape(words)):
        part_by_split(loaded, tmp_path)


def test_runs_that_differ_are_not_mixed(tmp_path):
    val = load(made_run(tmp_path / "val", "val", TWO))
    other = load(
        made_run(tmp_path / "testA", "testA", TWO, model={"name": "another", "revision": None})
    )
    with pytest.raises(ValueError, match="differ in model, so that a threshold"):
        part_by_split([val, other], tmp_path)


def test_runs_of_classes_that_differ_are_not_mixed(tmp_path):
    def counts(split, name, item):
        return {"0": made_counts(split, name, item)}

    plain = {"plain": PLAIN}
    one = {"prompts": "classes", "pictures": 1, "counts": counts}
    made_run(tmp_path / "val", "val", plain, **one)
    made_run(
        tmp_path / "testA", "testA", plain, model={"name": "another", "revision": None}, **one
    )
    with pytest.raises(ValueError, match="differ in model, so that a threshold"):
        paper_tables(tmp_path)


def test_a_curve_is_of_the_seeds_of_its_row(tmp_path):
    """Where val was read from one seed and the test split from two."""
    made_run(tmp_path / "val", "val", TWO, pictures=4)
    made_run(tmp_path / "testA", "testA", methods(), pictures=6)
    val, tests = load_runs(tmp_path)
    (table,) = make_tables(val, tests, {"table-2": TABLES["table-2"]})
    for row in table["rows"]:
        assert row["curve"][round(100 * row["threshold"])] == pytest.approx(row["miou"])


def test_errors_are_left_out_and_counted(tmp_path):
    def refuse(split, name, item):
        if item["id"] == "2-1":
            raise ValueError("a map is all equal")
        return made_counts(split, name, item)

    made_run(tmp_path / "val", "val", TWO)
    made_run(tmp_path / "testA", "testA", TWO, counts=refuse)
    val, (test,) = load_runs(tmp_path)
    assert (test.errors, len(test.items)) == (1, 14)
    items = [item for item in made_items(5) if item["id"] != "2-1"]
    index = loop_best("val", ["paper"], made_items(5))
    found = compare(val, test, PAPER)
    assert found.miou == pytest.approx(loop_miou("testA", ["paper"], items, index), abs=1e-12)
    assert "1 errors and 0 broken records left out" in markdown(make_tables(val, [test])[0])


def test_figure_8_shows_the_best_the_middle_and_the_worst(both):
    val, test = both
    table = examples(val, test)
    told = [item for item in made_items(6) if item["kind"] == "attribute"]
    cuts = {name: loop_best("val", [name], made_items(4)) for name in ("plain", "chunk", "paper")}
    gains = {
        item["id"]: loop_iou("testA", ["paper"], item, cuts["paper"])
        - loop_iou("testA", ["plain"], item, cuts["plain"])
        for item in told
    }
    order = sorted(gains, key=gains.get)
    assert [row["id"] for row in table["rows"]] == [order[-1], order[len(order) // 2], order[0]]
    row = table["rows"][0]
    assert row["iou"]["paper"] - row["iou"]["plain"] == pytest.approx(gains[order[-1]], abs=1e-12)
    assert row["threshold"] == {name: cut / 100 for name, cut in cuts.items()}


# The questions ---------------------------------------------------------------------------------


def test_every_way_of_closing_leaks_is_asked():
    rows = leaks()
    assert len({repr(row.settings) for row in rows}) == (7 * 2 + 2) * 2
    for method in ("sealed", "chunk"):  # all on the calibration of settings without a name
        wanted = replace(SETTINGS[method], softmax_over="all", calibrated_for=None)
        assert wanted in [row.settings for row in rows]
    for row in rows:
        assert all(getattr(row.settings, key) == value for key, value in row.facts.items())


def test_the_questions_variants():
    weights = {row.facts["alpha"] for row in QUESTIONS["weight"].rows}
    assert {0, 0.9, 1, 1.21, 1.6} < weights
    compel = [row for row in QUESTIONS["weight"].rows if row.facts["method"] == "compel"]
    assert {row.settings.unconditional for row in compel} == {"masked"}
    assert {row.facts["alpha"] for row in compel} == {w for w in weights if w < 1}
    assert {row.facts["into"] for row in QUESTIONS["into"].rows} == {"keys", "values", "both"}
    assert len({repr(s) for s in phrase_variants().values()}) == len(phrase_variants())
    for table in QUESTIONS.values():
        assert table.baseline in [row.settings for row in table.rows]
        for row in table.rows:
            changed = {key: v for key, v in row.facts.items() if key != "method"}
            assert all(getattr(row.settings, key) == value for key, value in changed.items())


def test_orders_are_compared_with_plain_in_the_same_order(tmp_path):
    read = {row.label: row.settings for row in leaks()[::3]}
    for split in ("val", "testA"):
        made_run(tmp_path / split, split, read, prompts="orders", pictures=3)
    val, (test,) = load_runs(tmp_path, "orders")
    table = answer_leaks(val, test)
    assert len(table["rows"]) == len(read) * len(ORDERS)
    facts = {"isolate": "target", "by": "encoding", "tail": "empty", "softmax_over": "all"}
    row = Results((table,)).row("leaks", order="2 of 2", **facts)
    items = made_items(3, "orders")
    here = [item for item in items if item["order"] == "2 of 2"]
    name, plain = row["label"], "isolate none, tail prompt, softmax over all"
    mine = loop_miou("testA", [name], here, loop_best("val", [name], items))
    base = loop_miou("testA", [plain], here, loop_best("val", [plain], items))
    assert row["miou"] == pytest.approx(mine, abs=1e-12)
    assert row["gain"]["mean"] == pytest.approx(mine - base, abs=1e-9)
    page = markdown(table)
    assert page.count("\n| isolate ") == len(read)
    assert "| alone | 1 of 2 | 2 of 2 |" in page


def test_closed_leaks_are_asked_for_keys_and_values_apart(tmp_path):
    """In a table of their own, so that a way of closing leaks stays one row an order."""
    read = leak_variants()
    apart = {repr(settings) for settings in read.values()}
    assert len(read) == len(apart) == (7 * 2 + 2) * 2 + 3 * 2
    few = {row.label: row.settings for row in leaks()[:2]}  # plain, over all and over words
    few |= {n: s for n, s in read.items() if s in [row.settings for row in leaks_into()]}
    for split in ("val", "testA"):
        made_run(tmp_path / split, split, few, prompts="orders", pictures=2)
    made = Results(tuple(answers(tmp_path)))
    assert [table["name"] for table in made.tables] == ["leaks", "leaks-into"]
    assert len(made.rows("leaks-into")) == 9 * len(ORDERS)
    items = made_items(2, "orders")
    here = [item for item in items if item["order"] == "2 of 2"]
    ious = []
    for label in (
        "isolate none, tail empty, into keys",
        "isolate none, tail prompt, softmax over all",
    ):
        ious.append(loop_miou("testA", [label], here, loop_best("val", [label], items)))
    facts = {"isolate": "none", "tail": "empty", "order": "2 of 2"}
    row = made.row("leaks-into", into="keys", **facts)
    assert row["miou"] == pytest.approx(ious[0], abs=1e-12)
    assert row["gain"]["mean"] == pytest.approx(ious[0] - ious[1], abs=1e-9)
    whole = made.row("leaks", softmax_over="all", by="encoding", **facts)
    assert made.row("leaks-into", into="both", **facts)["miou"] == whole["miou"]
    assert {row["tail"] for row in made.rows("leaks", isolate="every")} == {"empty"}
    assert len(side_by_side(made, made, "leaks")) == len(ORDERS) * 3
    page = made.markdown("leaks-into")
    assert "| isolate every by masking, tail empty, into values | " in page
    assert f"|  | {' | '.join(ORDERS)} |" in page


def test_a_run_without_keys_and_values_apart_has_the_leaks_alone(tmp_path):
    both = [row.settings for row in leaks_into() if row.facts["into"] == "both"]
    read = {row.label: row.settings for row in leaks() if row.settings in both}
    for split in ("val", "testA"):
        made_run(tmp_path / split, split, read, prompts="orders", pictures=1)
    assert [table["name"] for table in answers(tmp_path)] == ["leaks"]


def test_kinds_part_the_expressions(both):
    val, test = both
    rows = answer_kinds(val, test)["rows"]
    assert [row["kind"] for row in rows] == [k for k in KINDS for _ in SETTINGS]
    (row,) = (r for r in rows if (r["kind"], r["method"]) == ("noun", "paper"))
    here = [item for item in made_items(6) if item["kind"] == "noun"]
    names = ["paper", "paper, seed 1"]
    index = loop_best("val", names, made_items(4))
    assert row["miou"] == pytest.approx(loop_miou("testA", names, here, index), abs=1e-12)
    assert row["expressions"] == 6


def test_gains_go_by_plains_own_iou(both):
    val, test = both
    table = answer_gains(val, test)
    base = loop_best("val", ["plain"], made_items(4))
    groups = {}
    for item in made_items(6):
        groups.setdefault(int(loop_iou("testA", ["plain"], item, base) / 0.2), []).append(item)
    assert len(groups) > 1
    names = {row["method"] for row in table["rows"]}
    assert names == {*SETTINGS, "plain, other noise"} - {"plain"}
    index = loop_best("val", ["paper"], made_items(4))
    for number, items in groups.items():
        (row,) = (
            r for r in table["rows"] if r["method"] == "paper" and round(r["low"] / 0.2) == number
        )
        assert row["expressions"] == len(items)
        gain = loop_miou("testA", ["paper"], items, index) - loop_miou(
            "testA", ["plain"], items, base
        )
        assert row["gain"]["mean"] == pytest.approx(gain, abs=1e-9)
    assert len(table["points"]["sealed"]) == 18


def test_classes_are_pooled(tmp_path):
    """Two pictures of one class each: the sums count, not the pictures' means."""
    pairs = {
        "val": {"1-0": {"0": (9, 10), "1": (1, 2)}, "2-0": {"0": (1, 2)}},
        "testA": {"1-0": {"0": (9, 10), "1": (1, 2)}, "2-0": {"0": (1, 10), "1": (0, 8)}},
    }

    def counts(split, name, item):
        found = {}
        for c, (shared, either) in pairs[split].get(item["id"], {"0": (0, 1)}).items():
            found[c] = [[0] * 101, [either] * 101]
            found[c][0][40 if split == "val" else 60] = shared
            found[c][0][70] = shared if split == "testA" else 0
        return found

    for split in pairs:
        made_run(
            tmp_path / split, split, {"plain": PLAIN}, prompts="classes", pictures=1, counts=counts
        )
    (table,) = class_tables(*load_class_runs(tmp_path))
    (row,) = table["rows"]
    assert (row["threshold"], row["miou"]) == (0.4, 0)
    assert row["oracle_threshold"] == 0.6
    expected = (9 / 12 + 1 / 2) / 2  # 1-0 with its class; two items of background alone
    assert row["oracle"] == pytest.approx(expected)
    assert list(row["classes"]) == ["background", "cat"]
    assert table["cited"]["OVDiff"] == 0.348
    assert "| OVDiff, on COCO, as the paper cites it |  | 34.8 |" in markdown(table)


def test_classes_have_gains_over_plain_at_its_own_threshold(tmp_path):
    """Of two seeds, one of them without its plain."""
    read = {"plain": PLAIN, "paper": PAPER, "paper, seed 1": replace(PAPER, seed=1)}

    def counts(split, name, item):
        return {c: made_counts(split, f"{name} {c}", item) for c in ("0", "1")}

    for split in ("val", "testA"):
        made_run(tmp_path / split, split, read, prompts="classes", pictures=3, counts=counts)
    table, again = (paper_tables(tmp_path, seed=seed)[0] for seed in (0, 1))
    rows = {row["label"]: row for row in table["rows"]}
    assert [rows[name]["gain"] is None for name in read] == [True, False, True]
    pairs = []
    for name in ("paper", "plain"):
        index = round(100 * rows[name]["threshold"])
        found = [counts("testA", name, item) for item in made_items(3)]
        pairs.append(
            tuple(
                np.array([[c[k][which][index] for k in "01"] + [0] for c in found])
                for which in (0, 1)
            )
        )
    assert rows["plain"]["threshold"] != rows["paper"]["threshold"]
    gain = rows["paper"]["gain"]
    assert gain == asdict(paired_bootstrap_classes(*pairs))
    between = rows["paper"]["miou"] - rows["plain"]["miou"]
    assert gain["mean"] == pytest.approx(between, abs=1e-12)
    assert gain["low"] < gain["mean"] < gain["high"]
    (other,) = (row["gain"] for row in again["rows"] if row["label"] == "paper")
    assert other["mean"] == gain["mean"] and other != gain
    page = markdown(table)
    shown = f"{100 * gain['mean']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
    assert f"| paper | {rows['paper']['threshold']:.2f} | " in page and f" | {shown} | " in page
    assert {line.count("|") for line in page.splitlines() if line.startswith("|")} == {8}


# What was kept before ---------------------------------------------------------------------------


def written_then(now, folder, version):
    """The same run as an earlier version wrote it.

    Before format 4, an order was a place; before format 3, all was gathered alike; in the first,
    calibration was a reading, and two names were others.
    """
    store = Store.of(now)
    manifest = json.loads(json.dumps(store.manifest))
    settings, items = manifest["settings"], manifest["items"]
    assert settings.pop("format") == 4
    if version == 1:
        settings["reading"] = settings.pop("calibration")
    else:
        settings["format"] = version
    if settings["prompts"] == "orders":
        settings["prompts"] = "places"
        for item in items:
            item["place"] = item.pop("order")
    for variant in settings["variants"].values() if version < 3 else ():
        variant["softmax_over"] = variant["softmax_over"] or "all"
        for new in ("layers", "normalize", "calibrated_for"):
            del variant[new]
        if version == 1:
            variant["keys"] = variant.pop("softmax_over")
            variant["caption"] = variant.pop("prompt_from")
    old = Store(folder, settings, items)
    with old.writer() as writer:
        for record in store.results().values():
            writer.append(record)
    return old


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_run_of_an_older_format_is_read_as_one_of_today(tmp_path, version):
    read = {**TWO, "words": replace(PAPER, softmax_over="words")}
    for split in ("val", "testA"):
        made_run(tmp_path / "now" / split, split, read)
        written_then(tmp_path / "now" / split, tmp_path / "then" / split, version)
    now, then = (load_runs(tmp_path / when) for when in ("now", "then"))
    for settings in read.values():
        assert compare(then[0], then[1][0], settings, PLAIN) == (
            compare(now[0], now[1][0], settings, PLAIN)
        )
        assert then[0].like(settings) == now[0].like(settings) != []


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_run_in_which_orders_were_places_gives_the_tables_of_today(tmp_path, version):
    read = {row.label: row.settings for row in [*leaks(), *leaks_into()]}
    for split in ("val", "testA"):
        made_run(tmp_path / "now" / split, split, read, prompts="orders", pictures=2)
        old = written_then(tmp_path / "now" / split, tmp_path / "then" / split, version)
        manifest = json.loads((old.folder / "manifest.json").read_bytes())
        assert manifest == old.manifest and manifest["settings"]["prompts"] == "places"
        run = load(old.folder)
        assert run.fingerprint == old.fingerprint == fingerprint_of(manifest)
        assert run.settings["prompts"] == "orders"
        assert [item["order"] for item in run.items] == [*ORDERS] * 2
        assert not any("place" in item for item in run.items)
    now, then = (answers(tmp_path / when) for when in ("now", "then"))
    assert [table["name"] for table in now] == ["leaks", "leaks-into"]
    for ours, theirs in zip(now, then, strict=True):
        assert ours.pop("fingerprint") != theirs.pop("fingerprint")
        assert ours == theirs and {row["order"] for row in ours["rows"]} == set(ORDERS)


def fingerprint_of(manifest):
    """Of the text as it is written, whatever it is called today."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def test_tables_of_the_second_format_are_read_in_todays_words(tmp_path):
    rows = [
        {"label": "sealed", "place": place, "gain": {"mean": mean}}
        for place, mean in zip(ORDERS, (0.1, 0.2, 0.3), strict=True)
    ]
    title = "Three leaks, at every place of the target's phrase"
    tables = [{"name": "leaks", "title": title, "split": "testA", "rows": rows}]
    path = tmp_path / "questions.json"
    path.write_text(json.dumps({"format": 2, "tables": tables}))
    found = load_results(tmp_path)
    assert found.table("leaks")["title"] == title
    assert found.row("leaks", order="2 of 2") == {
        "label": "sealed",
        "order": "2 of 2",
        "gain": {"mean": 0.3},
    }
    save_tables(tmp_path / "now", "questions", "Questions", [])
    now = json.loads((tmp_path / "now" / "questions.json").read_text())
    assert now == {"format": 3, "tables": []}
    now["tables"] = [{**tables[0], "rows": [dict(row) for row in found.rows("leaks")]}]
    (tmp_path / "now" / "questions.json").write_text(json.dumps(now))
    pairs = side_by_side(found, load_results(tmp_path / "now"), "leaks")
    assert [(pair["order"], pair["gains"]) for pair in pairs] == [
        (row["place"], [row["gain"]] * 2) for row in rows
    ]


def test_tables_of_the_first_format_are_read_in_todays_words(tmp_path):
    row = {"label": "isolate none, tail prompt, keys words", "keys": "words", "miou": 0.5}
    other = {"label": "chunk into keys", "into": "keys"}
    tables = [{"name": "leaks", "split": "testA", "rows": [row, other]}]
    path = tmp_path / "questions.json"
    path.write_text(json.dumps({"format": 1, "tables": tables}))
    first, second = load_results(tmp_path).table("leaks")["rows"]
    assert second == other
    assert first == {
        "label": "isolate none, tail prompt, softmax over words",
        "softmax_over": "words",
        "miou": 0.5,
    }
    path.write_text(json.dumps({"format": 2, "tables": tables}))
    assert load_results(tmp_path).rows("leaks")[0] == row


# What is written -------------------------------------------------------------------------------


def test_results_are_found_by_their_facts(tmp_path, both):
    val, test = both
    save_tables(tmp_path, "tables", "Tables", make_tables(val, [test]))
    results = load_results(tmp_path)
    assert results.row("table-3", alpha=0.9)["label"] == "α = 0.9"
    assert len(results.rows("table-4")) == 3
    with pytest.raises(KeyError, match="there is no 'leaks' of 'testA'; there are table-2 of"):
        results.table("leaks")
    with pytest.raises(KeyError, match="no row of 'table-3'"):
        results.rows("table-3", alpha=0.2)
    with pytest.raises(KeyError, match="9 rows"):
        results.row("table-3")
    pairs = side_by_side(results, results, "table-2")
    assert [pair["label"] for pair in pairs][-1] == "sealed (ours)"
    assert pairs[0]["gains"][0] == pairs[0]["gains"][1]


@pytest.mark.parametrize("content", ["{", "[]", '{"tables": 1}', "{}"])
def test_results_that_are_none(tmp_path, content):
    with pytest.raises(ValueError, match="holds neither tables.json nor questions.json"):
        load_results(tmp_path)
    (tmp_path / "tables.json").write_text(content)
    with pytest.raises(ValueError, match="is damaged"):
        load_results(tmp_path)


def test_markdown_shows_per_cent_and_escapes(both):
    val, test = both
    tables = {table["name"]: table for table in make_tables(val, [test])}
    row = tables["table-2"]["rows"][2]
    page = markdown(tables["table-2"])
    gain = row["gain"]
    shown = f"{100 * gain['mean']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
    line = next(line for line in page.splitlines() if line.startswith("| paper"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    low, high = (100 * row["miou_interval"][end] for end in ("low", "high"))
    own = f"{100 * row['miou']:.1f} [{low:.1f}, {high:.1f}]"
    assert cells[1:4] == [f"{row['threshold']:.2f}", own, shown]
    old = {k: v for k, v in row.items() if not k.endswith("_interval")}  # of an older record
    before = markdown({**tables["table-2"], "rows": [old]})
    assert f"| {100 * row['miou']:.1f} | {shown} |" in before
    assert cells[-2:] == ["0.5", "23.0"]
    assert "noise of seed 0, 1" in page
    table = examples(val, test)
    table["rows"][0]["phrase"] = "<script>alert(1)</script> | a | `b` [x](y)\u202e\x1b"
    table["model"] = "a|b<c>"
    page = markdown(table)
    assert "<" not in page and "`" not in page and "\u202e" not in page and "\x1b" not in page
    assert {line.count("|") for line in page.splitlines() if line.startswith("|")} == {7}
    assert "&#60;script&#62;" in page


def test_every_run_belongs_to_a_part():
    found = make_jobs(Job("stickers", "val", {}), PARTS)
    assert list(found) == [
        *("tables-val", "tables-testA", "tables-testB", "classes-val", "classes-testA"),
        *("leaks-val", "leaks-testA", "settings-val", "settings-testA"),
    ]
    assert found["tables-testB"].variants == methods()
    seven = make_jobs(Job("stickers", "val", {}), PARTS, 7)
    assert {job.pictures for job in seven.values()} == {7}
    others = make_jobs(Job("refcocog", "val", {}, by="umd"), PARTS)
    assert list(others) == [
        *("tables-val", "tables-test", "leaks-val", "leaks-test"),
        *("settings-val", "settings-test"),
    ]


def test_one_phrase_a_picture():
    items = Job("stickers", "val", {}, prompts="first", pictures=5).items()
    assert [item["image"] for item in items] == [1, 2, 3, 4, 5]
    assert {(item["kind"], item["before"], item["after"]) for item in items} == {
        ("attribute", "", "")
    }


# The commands ----------------------------------------------------------------------------------


def test_the_tables_command(runs, tmp_path, capsys):
    assert main(["tables", str(runs), "--out", str(tmp_path), "--no-maps"]) == 0
    shown = capsys.readouterr().out.split()
    assert [path.rpartition("/")[2] for path in shown] == (
        ["tables.json", "tables.md", "figure-7.png"]
    )
    assert (tmp_path / "figure-7.png").read_bytes().startswith(b"\x89PNG")
    made = json.loads((tmp_path / "tables.json").read_text())
    assert made["tables"] == json.loads(json.dumps(paper_tables(runs)))
    assert main(["questions", str(runs), "--out", str(tmp_path), "--quiet"]) == 0
    names = [table["name"] for table in load_results(tmp_path).tables]
    tables = ["table-2", "table-2-code", "table-3", "table-4", "figure-8"]
    assert names == [*tables, "kinds", "gains"]


def test_tables_without_the_weight_one_have_no_figure_7(tmp_path, capsys):
    """What `evaluate --method plain paper --alpha 0.5 0.9` reads."""
    read = {f"paper alpha={a}": replace(PAPER, alpha=a) for a in (0.5, 0.9)}
    for split in ("val", "testA"):
        made_run(tmp_path / split, split, read)
    assert main(["tables", str(tmp_path), "--no-maps"]) == 0
    assert "figure-7" not in capsys.readouterr().out


def test_figure_8_is_drawn_from_the_model(both, models, image, monkeypatch):
    """With a small random model, which knows none of the benchmark's nouns but this one."""
    import nbhelpers.models
    from nbhelpers.cli import tables
    from nbhelpers.datasets import Referring

    table = examples(*both)
    for row in table["rows"]:
        row["phrase"] = "a striped ring"
    asked = []
    monkeypatch.setattr(
        nbhelpers.models, "load_models", lambda *a, **k: asked.append(k["revision"]) or models
    )
    table["revision"] = 40 * "a"
    monkeypatch.setattr(Referring, "image", lambda self, number: image)
    options = Namespace(**dict.fromkeys(("root", "splits_by", "model", "revision", "parser")))
    options.device, options.no_maps = "cpu", False
    found = tables.drawings([table], options)
    assert list(found) == ["figure-8-gains-most", "figure-8-in-the-middle", "figure-8-loses-most"]
    assert f"paper IoU {table['rows'][0]['iou']['paper']:.2f}" in found["figure-8-gains-most"].alt
    assert asked == [40 * "a"]  # the commit that the run was of
    options.no_maps = True
    assert tables.drawings([table], options) == {}
    table["model"], options.no_maps = "my-model", False
    with pytest.raises(ValueError, match="give its folder with --model"):
        tables.drawings([table], options)


@pytest.mark.parametrize("command", ["tables", "questions"])
@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("nowhere", "'nowhere' is no folder; give one that holds runs"),
        ("a\0b", "is no folder"),
        (".", "are of no split; evaluate one run of val and one of a test split"),
    ],
)
def test_folders_without_runs(tmp_path, monkeypatch, capsys, command, folder, words):
    monkeypatch.chdir(tmp_path)
    assert main([command, folder]) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1


def test_incomplete_runs_make_no_table(tmp_path, capsys):
    made_run(tmp_path / "val", "val", TWO)
    made_run(tmp_path / "testA", "testA", TWO)
    for part in (tmp_path / "testA" / "parts").iterdir():
        lines = part.read_bytes().splitlines(keepends=True)
        part.write_bytes(b"".join(lines[:-2]))
    assert main(["tables", str(tmp_path)]) == 2
    assert "is not complete: 2 of 15 items are missing" in capsys.readouterr().err
    assert not (tmp_path / "tables.json").exists()
    assert len(Store.of(tmp_path / "val").results()) == 15


def test_answers_name_what_is_there(runs):
    assert [table["name"] for table in answers(runs)] == ["kinds", "gains"]


def test_the_overall_gain_pools_all_seeds(both):
    val, test = both
    found = compare(val, test, PAPER, PLAIN)
    items, sums = made_items(6), {}
    for method in ("paper", "plain"):
        names = [method, f"{method}, seed 1"]
        index = loop_best("val", names, made_items(4))
        counts = [made_counts("testA", n, item) for n in names for item in items]
        sums[method] = sum(c[0][index] for c in counts) / sum(c[1][index] for c in counts)
    assert list(found.seeds) == ["0", "1"]
    assert found.oiou == pytest.approx(sums["paper"], abs=1e-12)
    assert found.overall_gain.mean == pytest.approx(sums["paper"] - sums["plain"], abs=1e-9)


def test_the_bootstrap_has_a_seed(both):
    val, test = both
    one, two = (compare(val, test, PAPER, PLAIN, seed=seed) for seed in (0, 1))
    assert one.gain.mean == two.gain.mean and one.gain != two.gain
    assert one.overall_gain != two.overall_gain


@pytest.mark.parametrize(
    "key", ["model", "calibration", "code", "packages", "device", "dtype", "parser"]
)
def test_runs_that_differ_in_anything_are_not_mixed(tmp_path, key):
    val = load(made_run(tmp_path / "val", "val", TWO))
    other = load(made_run(tmp_path / "testA", "testA", TWO, **{key: "another"}))
    with pytest.raises(ValueError, match=f"differ in {key}, so that a threshold"):
        part_by_split([val, other], tmp_path)


def test_runs_of_two_datasets_are_not_mixed(tmp_path):
    val = load(made_run(tmp_path / "val", "val", TWO))
    other = made_run(
        tmp_path / "testA",
        "testA",
        TWO,
        dataset={"name": "refcoco", "split": "testA", "broken": 0, "pictures": None},
    )
    with pytest.raises(ValueError, match="are of different datasets"):
        part_by_split([val, load(other)], tmp_path)


def test_an_iou_of_one_is_in_a_group(tmp_path):
    def whole(split, name, item):
        return [[400] * 101, [400] * 101]

    made_run(tmp_path / "val", "val", TWO)
    made_run(tmp_path / "testA", "testA", TWO, counts=whole)
    val, (test,) = load_runs(tmp_path)
    assert sum(r["expressions"] for r in answer_gains(val, test)["rows"]) == 15


def test_words_are_compared_with_words(tmp_path):
    read = {r.label: r.settings for r in leaks() if r.settings.isolate in ("none", "every")}
    for split in ("val", "testA"):
        made_run(tmp_path / split, split, read, prompts="orders", pictures=3)
    val, (test,) = load_runs(tmp_path, "orders")
    facts = {"isolate": "every", "by": "encoding", "tail": "empty", "softmax_over": "words"}
    row = Results((answer_leaks(val, test),)).row("leaks", order="2 of 2", **facts)
    items = made_items(3, "orders")
    here = [item for item in items if item["order"] == "2 of 2"]
    ious = [
        loop_miou("testA", [label], here, loop_best("val", [label], items))
        for label in (row["label"], "isolate none, tail prompt, softmax over words")
    ]
    assert row["gain"]["mean"] == pytest.approx(ious[0] - ious[1], abs=1e-9)


def test_side_by_side_has_ours_first():
    def of(mean):
        rows = [{"label": "a", "gain": {"mean": mean}}]
        return Results(({"name": "table-2", "split": "testA", "rows": rows},))

    (pair,) = side_by_side(of(0.1), of(0.2), "table-2")
    assert [gain["mean"] for gain in pair["gains"]] == [0.1, 0.2]


def test_facts_may_be_tuples():
    row = {"label": "t = 100, 200", "timesteps": [100, 200]}  # as JSON has it
    made = Results(({"name": "timesteps", "split": "testA", "rows": [row]},))
    assert made.row("timesteps", timesteps=(100, 200)) is row


def test_every_part_reads_its_own_number_of_pictures():
    found = make_jobs(Job("stickers", "val", {}), PARTS)
    assert {name: job.pictures for name, job in found.items() if "testB" not in name} == {
        f"{name}-{split}": count
        for name, part in PARTS.items()
        for split, count in zip(("val", "testA"), part.pictures, strict=True)
    }
    assert found["tables-testB"].pictures == found["tables-val"].pictures
    assert all(part.pictures[0] < part.pictures[1] for part in PARTS.values())


def test_eighty_classes_are_not_shown():
    def table(count):
        classes = {f"class {i}": 0.5 for i in range(count)}
        row = {"label": "plain", "threshold": 0.5, "miou": 0.5, "oracle": 0.5}
        row |= {"oracle_threshold": 0.5, "classes": classes}
        facts = dict.fromkeys(("dataset", "split", "model", "title"), "x")
        facts |= dict.fromkeys(("pictures", "errors", "broken"), 1)
        return {"name": "table-1", **facts, "rows": [row], "cited": {}}

    assert "class 3" in markdown(table(20)) and "class 3" not in markdown(table(81))
