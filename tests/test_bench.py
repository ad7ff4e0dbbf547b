"""The benchmarks measure what they say, compare before they time, and keep what they found."""

import itertools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nbhelpers import benchmarks
from nbhelpers.completion import complete
from tests.bench import __main__ as command
from tests.bench import (
    baselines,
    capture,
    end_to_end,
    measure,
    operators,
    random_sd15,
    records,
    report,
)
from tests.bench.measure import Way

CPU = torch.device("cpu")
on_linux = pytest.mark.skipif(
    not measure.PEAK.exists(), reason="peaks are read from Linux's /proc"
)


@pytest.fixture(autouse=True)
def threads():
    """The command sets one thread for its process, which is this one here."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# Measuring ---------------------------------------------------------------------------------------


@on_linux
def test_the_peak_of_a_run_is_its_own():
    """64 MiB are seen though they are freed at the end, and not seen again by the next run."""
    _, large = measure.measure(lambda: torch.ones(2**24).sum(), CPU)
    _, small = measure.measure(lambda: torch.ones(2**20).sum(), CPU)
    assert 60 < large.peak_mib < 80
    assert 2 < small.peak_mib < 12


def test_seconds_are_those_of_the_process_not_of_the_clock():
    import time

    _, cost = measure.measure(lambda: time.sleep(0.3), CPU)
    assert cost.seconds < 0.1


def test_every_way_runs_between_two_runs_of_the_base(monkeypatch):
    seconds = {"base": iter([1.0, 3.0, 5.0, 1.0, 1.0]), "a": iter([4.0, 2.0]), "b": iter([1.0, 6])}
    order = []

    def fake(run, device):
        name = run()
        order.append(name)
        return name, measure.Cost(next(seconds[name]), None)

    monkeypatch.setattr(measure, "measure", fake)
    ways = [Way(name, lambda name=name: name) for name in ("base", "a", "b")]
    found = measure.interleave(ways, CPU, rounds=2)
    assert order == ["base", "a", "base", "b", "base", "a", "base", "b", "base"]
    assert found["a"].ratios == [4 / 2, 2 / 3]
    assert found["b"].ratios == [1 / 4, 6 / 1]
    assert found["base"].ratios == []
    row = found["b"].row()
    assert (row["seconds"], row["ratio"], row["peak_mib"]) == (3.5, 3.125, None)


def test_a_way_that_fails_is_noted_and_left_out_and_the_base_may_not_fail():
    calls = []

    def fail():
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of\nmemory")

    ways = [Way("base", lambda: None), Way("bad", fail), Way("good", lambda: None)]
    found = measure.interleave(ways, CPU, rounds=3)
    assert len(calls) == 1
    assert found["bad"].row()["error"] == "OutOfMemoryError: CUDA out of memory"
    assert len(found["good"].ratios) == 3
    with pytest.raises(torch.OutOfMemoryError):
        measure.interleave([Way("base", fail)], CPU, rounds=1)
    runs = iter([None, torch.OutOfMemoryError("later")])  # the second is between two others' runs

    def fail_later():
        error = next(runs)
        if error is not None:
            raise error

    with pytest.raises(torch.OutOfMemoryError, match="later"):
        measure.interleave([Way("base", fail_later), Way("a", lambda: None)], CPU, rounds=1)
    with pytest.raises(torch.OutOfMemoryError):
        measure.interleave([Way("base", fail)], CPU, rounds=1, warm=1)


def test_no_round_starts_after_the_time_is_over():
    ways = [Way("base", lambda: None), Way("a", lambda: None)]
    assert len(measure.interleave(ways, CPU, rounds=9, seconds=0)["a"].costs) == 1


@pytest.mark.parametrize(("room", "wanted"), [(0, 0), (1, 1), (5, 4), (100, 16)])
def test_the_largest_batch_is_the_last_power_of_two_that_fits(room, wanted):
    def run(batch):
        if batch > room:
            raise torch.OutOfMemoryError

    assert measure.largest(run, 16) == wanted


# The ways ----------------------------------------------------------------------------------------


def test_all_ways_of_completing_agree_and_are_timed():
    rows, targets = operators.bench_completion(CPU, sides=(4, 6), heads=2, d=8, rounds=2)
    assert {row["n"] for row in rows} == {16, 36}
    assert {row["way"] for row in rows} >= {"naive", "ours", "naive, A^T S", "ours, A^T S"}
    assert all(row["difference"] < 1e-3 for row in rows)
    assert all(len(row["all_ratios"]) == 2 for row in rows if row["way"] != "naive")
    assert targets[0]["what"] == "completion, times faster than naive, N = 36"


@pytest.mark.parametrize("wrong", [lambda maps: 0 * maps, lambda maps: maps[:, ::-1], "half"])
def test_a_wrong_completion_is_never_timed(wrong, monkeypatch):
    real = operators.kernels.complete

    def half(query, key, maps, scale, transpose=False, **more):
        return real(query[:, :1], key[:, :1], maps, scale, transpose, **more)

    def bent(*args, **more):
        return torch.from_numpy(wrong(real(*args, **more).numpy()).copy())

    monkeypatch.setattr(operators.kernels, "complete", half if wrong == "half" else bent)
    timed = []
    monkeypatch.setattr(operators, "interleave", lambda *args, **more: timed.append(1))
    with pytest.raises(ValueError, match=r"'ours' is off by .* nothing was timed"):
        operators.bench_completion(CPU, sides=(6,), heads=2, d=8, rounds=1)
    assert not timed


def test_the_sweep_is_timed_only_if_it_counts_alike(monkeypatch):
    rows, (promise,) = operators.bench_sweep(CPU, maps=2, side=24, thresholds=9, rounds=1)
    assert [row["way"] for row in rows] == ["loop", "loop over thresholds", "ours"]
    assert promise["found"] == pytest.approx(1 / rows[-1]["ratio"], rel=1e-3)
    real = operators.kernels.threshold_sweep

    def off_by_one(*args):
        intersection, union = real(*args)
        return intersection, union + 1

    monkeypatch.setattr(operators.kernels, "threshold_sweep", off_by_one)
    with pytest.raises(ValueError, match=r"'ours' is off by 3, 0 is allowed"):
        operators.bench_sweep(CPU, maps=1, side=8, thresholds=3, rounds=1)


def test_all_ways_of_capturing_agree_and_are_timed(models_15):
    told = []
    rows, targets = capture.bench_capture(
        models_15.unet, batches=(1, 2), latent=(16, 16), rounds=1, tell=told.append
    )
    first = {row["way"]: row for row in rows if row["batch"] == 1}
    peers = {capture.SPREAD, capture.DAAM, capture.MEANS, capture.ALL}
    assert peers < set(first)
    for way in {*peers, capture.OURS}:
        assert first[way]["difference"] < 1e-3
    assert {row["way"] for row in rows if row["batch"] == 2} == {
        capture.PLAIN,
        capture.CAPTURE,
        capture.OURS,
    }
    assert len(targets) == 4
    assert told.count(capture.ALL) == 2  # compared, then timed


def test_what_is_stored_wrong_is_never_timed(models_15, monkeypatch):
    def dropped(store, *args):
        """The last tile of pixels left out of every matrix."""
        cut = {name: kept.clone() for name, kept in store.items()}
        for name, kept in cut.items():
            if "attn1" in name:
                kept[..., -32:] = 0
        return baselines.complete_stored(cut, *args)

    monkeypatch.setattr(capture, "complete_stored", dropped)
    with pytest.raises(ValueError, match=r"'head means \+ A S' is off by"):
        capture.bench_capture(models_15.unet, latent=(16, 16), batches=(1,), rounds=1)


def test_what_is_spread_the_wrong_way_is_never_timed(models_15, monkeypatch):
    def gathered(scores, layers, *, transpose):
        return complete(scores, layers)

    monkeypatch.setattr(capture, "complete", gathered)
    with pytest.raises(ValueError, match=r"'capture \+ A\^T S' is off by"):
        capture.bench_capture(models_15.unet, latent=(16, 16), batches=(1,), rounds=1)


def test_storing_puts_the_processors_back(models_15):
    unet = models_15.unet
    before = dict(unet.attn_processors)
    one = capture.Pass(unet, 1, (16, 16))
    with baselines.storing(unet, baselines.KEEPS["all heads"]) as store:
        one.plain()
    assert set(store) == set(before)
    assert all(kept.sum(-1).sub(1).abs().max() < 1e-4 for kept in store.values())
    with pytest.raises(KeyboardInterrupt), baselines.storing(unet, baselines.KEEPS["head means"]):
        raise KeyboardInterrupt
    assert unet.attn_processors == before


def test_the_whole_way_agrees_with_the_loop(models, image):
    rows, targets = end_to_end.bench_segment(
        models, [image], [["the red ring", "a blue moon"]], batch=2, rounds=1
    )
    assert [row["way"] for row in rows] == [end_to_end.LOOP, end_to_end.SINGLE, end_to_end.BATCH]
    assert all(row["difference"] < 1e-3 and row["per_second"] > 0 for row in rows)
    assert targets == []


def test_speeding_up_is_for_gpus(models):
    with pytest.raises(ValueError, match="are on cpu; load them with device='cuda'"):
        end_to_end.speed_up(models)


def test_the_whole_way_is_measured_on_the_shipped_model(tmp_path):
    """Its maps are gathered in another way than the loop's, unless the benchmark says how."""
    asked = ["segment", "--pictures", "1", "--rounds", "1", "--folder", str(tmp_path)]
    assert command.main(asked) == 0
    written = json.loads((tmp_path / "segment-cpu.json").read_text())
    assert max(row["difference"] for row in written["rows"]) < 1e-4
    shipped = json.loads((benchmarks.FOLDER / "segment-cpu.json").read_text())
    for record in (written, shipped):
        assert record["settings"]["model"] == "stickers"


def test_random_models_of_the_real_shape_segment(monkeypatch, image):
    """Scaled down here; the words and the parser are the sticker world's."""
    small = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
    small |= {"cross_attention_dim": 32, "sample_size": 8, "attention_head_dim": 2}
    monkeypatch.setattr(random_sd15, "UNET", small)
    narrow = {**random_sd15.AUTOENCODER, "block_out_channels": (32,) * 4, "layers_per_block": 1}
    monkeypatch.setattr(random_sd15, "AUTOENCODER", narrow)
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    monkeypatch.setattr(
        random_sd15, "TEXT", {**random_sd15.TEXT, **text, "num_attention_heads": 2}
    )
    models = random_sd15.make_models(CPU, torch.float32)
    from nbhelpers.batches import segment_batch

    found = segment_batch([image], [["the red ring"]], models, size=(128, 128))[0][0]
    assert found.mask.shape == image.shape[:2]
    assert models.text.length == 77


# Records and figures -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, models_15):
    """Small records of everything that figures are drawn from."""
    found = {
        "complete": operators.bench_completion(CPU, sides=(4, 6), heads=1, d=8, rounds=2),
        "capture": capture.bench_capture(models_15.unet, latent=(16, 16), rounds=2),
        "sweep": operators.bench_sweep(CPU, maps=1, side=8, thresholds=3, rounds=1),
    }
    for name, (rows, targets) in found.items():
        records.write(records.record(name, CPU, {"dtype": "float32"}, rows, targets), tmp_path)
    return tmp_path


def test_a_record_says_where_and_with_what(folder):
    found = benchmarks.read("sweep", "cpu", folder)
    assert found == json.loads((folder / "sweep-cpu.json").read_text("utf-8"))
    assert found["machine"]["processor"]
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"].startswith("2.")
    with pytest.raises(FileNotFoundError, match="tests.bench segment --device cuda"):
        benchmarks.read("segment", "cuda", folder)


@pytest.mark.parametrize(
    ("found", "limits", "met"),
    [
        (1.1, {"at_most": 1.1}, True),
        (1.11, {"at_most": 1.1}, False),
        (1.5, {"at_least": 1.5}, True),
        (1.49, {"at_least": 1.5}, False),
        (None, {"at_least": 1.5}, False),
    ],
)
def test_a_target_is_met_or_not(found, limits, met):
    assert records.target("x", found, **limits)["met"] is met


@on_linux
def test_tables_and_figures_are_drawn_from_the_records(folder, tmp_path):
    assert benchmarks.measured("cpu", folder) == ["complete", "capture", "sweep"]
    assert benchmarks.measured("cuda", folder) == []
    table = report.table("capture", "cpu", folder)
    assert "all heads + A S" in table and re.search(r", \d+ thread\n", table)
    promises = report.promises("cpu", folder)
    assert promises.count("\n") == 1 + 2 + 4 + 1  # under a line of dashes
    assert "nothing was measured on cuda" in report.promises("cuda", folder)
    for name in ("naive: ", "ours: ", "flash forward and backward"):
        assert name in benchmarks.show_time("cpu", folder).alt
        assert name in benchmarks.show_memory("cpu", folder).alt
    assert "capture + A S" in benchmarks.show_overhead("cpu", folder).alt
    assert "DAAM's map" in benchmarks.show_costs("cpu", folder).alt
    paths = report.save_figures("cpu", tmp_path / "figures", folder)
    assert [path.read_bytes()[:4] for path in paths] == [b"\x89PNG"] * 4


def test_the_shipped_records_can_be_read():
    """Those of ``data/benchmarks``: whole, with the machine, and as the figures want them."""
    for device in ("cpu", "cuda"):
        for name in benchmarks.measured(device):
            assert report.table(name, device)
            found = benchmarks.read(name, device)
            assert {"machine", "versions", "settings", "targets"} <= set(found)


# The command -------------------------------------------------------------------------------------


def test_the_command_measures_writes_and_shows(tmp_path, capsys):
    small = ["--rounds", "1", "--folder", str(tmp_path)]
    assert command.main(["complete", "--sides", "4", "6", *small]) == 0
    shown = capsys.readouterr()
    assert "complete on " in shown.out and "x base" in shown.out and "written to" in shown.out
    assert "complete" in shown.err  # the progress bar
    assert torch.get_num_threads() == 1
    assert command.main(["report", "--folder", str(tmp_path), "--out", str(tmp_path / "f")]) == 0
    assert "time-cpu.png" in capsys.readouterr().out


def test_capture_and_profile_take_a_unet_of_the_real_shape(tmp_path, monkeypatch, models_15):
    monkeypatch.setattr(random_sd15, "make_unet", lambda device, dtype: models_15.unet)
    small = ["--latent", "16", "--rounds", "1", "--folder", str(tmp_path)]
    assert command.main(["capture", "--batches", "1", *small]) == 0
    assert command.main(["profile", *small]) == 0
    rows = json.loads((tmp_path / "profile-cpu.json").read_text("utf-8"))["rows"]
    assert any("scaled_dot_product" in row["operator"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "invalid choice"),
        (["sweep", "--device", "meta"], "there is no device 'meta'; there are cpu"),
        (["capture", "--device", "cuda"], "there is no device 'cuda'; there are cpu"),
        (["sweep", "--device", "gpu"], "there is no device 'gpu'; there are cpu"),
        (["capture", "--batches", "0"], "wanted a whole number of 1 or more"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(arguments, words, capsys):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is one")
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_everything_runs_the_tests_and_each_benchmark_and_says_what_failed(
    tmp_path, monkeypatch, capsys
):
    started = []

    def fake(arguments, *, cwd, timeout):
        started.append(arguments[1:])
        assert 0 < timeout <= command.LIMIT
        if "capture" in arguments:
            raise command.subprocess.TimeoutExpired(arguments, timeout)
        return command.subprocess.CompletedProcess(arguments, 1 if "sweep" in arguments else 0)

    monkeypatch.setattr(command.subprocess, "run", fake)
    assert command.main(["all", "--folder", str(tmp_path)]) == 1
    assert started[0][:3] == ["-m", "pytest", "-q"]
    assert [arguments[2] for arguments in started[1:]] == list(benchmarks.BENCHMARKS)
    said = capsys.readouterr().out
    assert "sweep      failed with exit code 1" in said
    assert f"capture    stopped: {command.LIMIT} s were over" in said
    assert "tests      ok" in said


def test_a_result_that_is_no_number_is_off():
    ways = [Way("naive", lambda: torch.eye(2)), Way("ours", lambda: torch.full((2, 2), torch.nan))]
    with pytest.raises(ValueError, match="'ours' is off by nan"):
        measure.agree(ways, operators.off_range, 1e-3)


def test_times_faster_is_the_bases_seconds_over_ours():
    rows = [
        {"way": operators.NAIVE, "n": 36, "ratio": None, "peak_mib": 9.0},
        {"way": operators.OURS, "n": 36, "ratio": 0.25, "peak_mib": 3.0},
    ]
    found = operators._completion_targets(rows, 36, cuda=False)
    assert [one["found"] for one in found] == [4, 3]


def test_the_spread_of_a_ratio_is_its_median_and_ends():
    assert benchmarks._interval([4, 1, 2]) == (2, 1, 4)
    assert benchmarks._interval([4, 1, 2, 3]) == (2.5, 1, 4)


def test_the_extra_peak_is_set_against_the_extra_peak_of_all_heads():
    took = {
        capture.PLAIN: (None, 100.0),
        capture.CAPTURE: (1.05, 101.0),
        capture.OURS: (1.2, 110.0),
        capture.ALL: (3.0, 600.0),
    }
    rows = [{"way": w, "batch": 1, "ratio": r, "peak_mib": p} for w, (r, p) in took.items()]
    found = [one["found"] for one in capture._targets(rows, (1, 2), None, cuda=False)]
    assert found == [1.05, 1.2, 2.5, 0.02]


def test_nothing_is_timed_where_capturing_changes_the_output(models_15, monkeypatch):
    monkeypatch.setattr(capture.Pass, "capture", lambda self: self.plain() + 1)
    with pytest.raises(ValueError, match="capturing changed what the UNet says"):
        capture.bench_capture(models_15.unet, latent=(16, 16), batches=(1,), rounds=1)


def test_a_graph_that_cannot_be_captured_stops_no_other_way(models_15):
    """Stands for a CUDA graph: it is compared like the others, and noted if it fails."""
    one = capture.Pass(models_15.unet, 1, (16, 16))
    kept = one.record()
    ways = one.ways(peers=True)

    def graph(run):
        return capture.check(one, [*ways, capture.Way(capture.GRAPH, run)], lambda name: None)

    def refused():
        raise RuntimeError("operation not permitted when stream is capturing")

    assert graph(lambda: one.ours(record=lambda: kept))[capture.GRAPH] == 0.0
    assert capture.GRAPH not in graph(refused)
    with pytest.raises(ValueError, match="graph"):
        graph(lambda: one.ours().flip(-1))


def test_phrases_a_second_are_those_of_all_pictures(models, image):
    rows, _ = end_to_end.bench_segment(
        models, [image], [["the red ring", "a blue moon"]], rounds=1
    )
    for row in rows:
        assert row["per_second"] == pytest.approx(2 / row["seconds"], abs=0.006)


def test_nothing_is_timed_where_the_maps_differ(models, image, monkeypatch):
    flat = np.zeros(image.shape[:2], np.float32)
    monkeypatch.setattr(end_to_end, "loop", lambda *args: [flat, flat])
    with pytest.raises(ValueError, match="'segment, one by one' is off by"):
        end_to_end.bench_segment(models, [image], [["the red ring", "a blue moon"]], rounds=1)


def test_every_step_of_all_gets_what_is_left_of_the_time(tmp_path, monkeypatch):
    given, ticks = [], itertools.count(0, 50)
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: next(ticks)))

    def fake(arguments, *, cwd, timeout):
        given.append(timeout)
        return command.subprocess.CompletedProcess(arguments, 0)

    monkeypatch.setattr(command.subprocess, "run", fake)
    command.main(["all", "--folder", str(tmp_path)])
    assert given[0] < command.LIMIT and given == sorted(set(given), reverse=True)
