"""The command line: what it writes, what it refuses before it loads anything, what it leaves."""

import argparse
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbhelpers import cli
from nbhelpers import files as whole_files
from nbhelpers.cli import main
from nbhelpers.cli import segment as command
from nbhelpers.datasets import load_image
from nbhelpers.figures import overlay
from nbhelpers.segment import SETTINGS
from nbhelpers.weights import data_folder

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data" / "real-images"
STICKERS = data_folder() / "stickers"
photographs = pytest.mark.skipif(
    not REAL.is_dir(), reason="needs the photographs in ../shared/data"
)
PHRASE = "the striped red ring"
KINDS = ("json", "mask.png", "overlay.png")
NAME = "scene-the-striped-red-ring"
LONG = " ".join(["very"] * 12)
NOTHING = {"device": "cpu", "revision": None, "variant": None, "parser": None}


@pytest.fixture
def scene(tmp_path, image, monkeypatch):
    """A picture in an empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(image).save("scene.png")
    return "scene.png"


@pytest.fixture
def loaded(monkeypatch, models):
    """The small random models in place of any; the calls that loaded them."""
    calls = []

    def load(name, **options):
        calls.append((name, options))
        return models

    monkeypatch.setattr("nbhelpers.models.load_models", load)
    return calls


@pytest.fixture
def unloaded(monkeypatch):
    """Loading the models fails the test: what is refused must be refused before."""

    def load(*_, **__):
        raise AssertionError("the models were loaded")

    monkeypatch.setattr("nbhelpers.models.load_models", load)


def files():
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def refused(capsys, *arguments):
    """Exit code 2, nothing on standard output, one safe line on standard error: that line."""
    before = files()
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.splitlines()[-1]
    assert line.startswith("nbhelpers: error: ")
    assert line.isprintable()
    assert "Traceback" not in captured.err
    assert files() == before
    assert not Path("out").exists()
    return line.removeprefix("nbhelpers: error: ")


# What it writes ---------------------------------------------------------------------------------


def test_segment(scene, image, loaded, capsys):
    assert main(["segment", scene, PHRASE]) == 0
    assert loaded == [("stickers", NOTHING)]
    assert files() == [
        f"out/{NAME}.json",
        f"out/{NAME}.mask.png",
        f"out/{NAME}.overlay.png",
        scene,
    ]
    with Image.open(f"out/{NAME}.mask.png") as picture:
        assert picture.mode == "L"
        mask = np.asarray(picture)
    assert mask.shape == image.shape[:2]
    assert set(np.unique(mask)) == {0, 255}
    assert np.array_equal(load_image(f"out/{NAME}.overlay.png"), overlay(image, mask == 255))

    record = json.loads(Path(f"out/{NAME}.json").read_text(encoding="utf-8"))
    assert record["prompt"] == f"a photograph of {PHRASE}"
    assert (record["phrase"], record["chunk"], record["target"]) == (PHRASE, PHRASE, "ring")
    assert (record["method"], record["model"], record["seed"]) == ("sealed", "tiny stickers", 0)
    assert record["settings"]["isolate"] == SETTINGS["sealed"].isolate
    assert record["score"].keys() == {"grid", "min", "mean", "max"}
    assert record["mask"]["pixels"] == (mask == 255).sum()
    digest = hashlib.sha256(Path(scene).read_bytes()).hexdigest()
    assert record["picture"] == {"path": scene, "sha256": digest, "size": [40, 56]}
    assert {"torch", "diffusers", "transformers", "spacy", "nbhelpers"} <= record[
        "versions"
    ].keys()
    assert record["seconds"].keys() == {"load", "segment"}
    assert sorted(f"out/{name}" for name in record["files"].values()) == files()[:3]
    assert (record["device"], record["dtype"], record["notes"]) == ("cpu", "float32", [])

    captured = capsys.readouterr()
    for name in files()[:3]:
        assert name in captured.out
    stages = re.findall(r"^\[ *[\d.]+ s\] (\w+)", captured.err, re.MULTILINE)
    assert stages[0] == "picture"
    assert {"loading", "chunks", "attention", "completion", "writing"} <= set(stages)
    spent = re.search(r"done: loading took ([\d.]+) s, the picture ([\d.]+) s\n", captured.err)
    wanted = [record["seconds"]["load"], record["seconds"]["segment"]]
    assert [float(seconds) for seconds in spent.groups()] == pytest.approx(wanted, abs=0.051)


def test_every_option_arrives(scene, loaded, capsys):
    options = "--method paper --alpha 0.5 --timesteps 50 100 200 --threshold 0.25 --seed 7"
    options += (
        " --target moon --device cpu --revision abc --model other --parser stickers --out a/b"
    )
    phrase = "a red ring and a blue moon"
    assert main(["segment", scene, phrase, *options.split(), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert loaded == [("other", {**NOTHING, "revision": "abc", "parser": "stickers"})]
    record = json.loads(Path("a/b/scene-a-red-ring-and-a-blue-moon.json").read_text())
    settings = record["settings"]
    assert (record["method"], record["target"], record["chunk"]) == (
        "paper",
        "moon",
        "a blue moon",
    )
    assert (settings["alpha"], settings["timesteps"]) == (0.5, [50, 100, 200])
    assert (settings["threshold"], settings["seed"], settings["isolate"]) == (0.25, 7, "target")


def test_captions(scene, loaded):
    words = ["--caption", "a red ring on a box", "--out", "own"]
    assert main(["segment", scene, "the red ring", *words, "--quiet"]) == 0
    record = json.loads(Path("own/scene-the-red-ring.json").read_text())
    assert record["prompt"] == "a red ring on a box"
    assert main(["segment", scene, "a red ring", "--prompt-from", "blip", "--quiet"]) == 0
    record = json.loads(Path("out/scene-a-red-ring.json").read_text())
    assert record["settings"]["prompt_from"] == "blip"
    assert record["prompt"].startswith("a photograph of a red ring")


@photographs
@pytest.mark.parametrize("name", ["ovam_cat/cat.jpg", "coco-785/000000000785.jpg"])
def test_photographs(tmp_path, monkeypatch, loaded, name):
    """With random models the mask means nothing, but everything has the photograph's size."""
    monkeypatch.chdir(tmp_path)
    assert (
        main(["segment", str(REAL / name), "a cat and a dog", "--target", "dog", "--quiet"]) == 0
    )
    with Image.open(REAL / name) as photograph:
        sizes = {photograph.size}
    for path in Path("out").glob("*.png"):
        with Image.open(path) as picture:
            sizes.add(picture.size)
    assert len(list(Path("out").glob("*.png"))) == 2
    assert len(sizes) == 1


def test_the_same_call_writes_the_same_mask(scene, loaded):
    for folder in ("one", "two"):
        assert main(["segment", scene, PHRASE, "--out", folder, "--quiet"]) == 0
    for kind in ("mask.png", "overlay.png"):
        assert Path(f"one/{NAME}.{kind}").read_bytes() == Path(f"two/{NAME}.{kind}").read_bytes()
    one, two = (json.loads(Path(f"{folder}/{NAME}.json").read_text()) for folder in ("one", "two"))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_each_phrase_has_its_own_files_and_a_new_run_replaces_them(scene, loaded):
    for phrase in ("a ring", "a moon", "a ring"):
        assert main(["segment", scene, phrase, "--quiet"]) == 0
    assert len(files()) == 2 * 3 + 1


@pytest.mark.parametrize(
    ("picture", "phrase", "name"),
    [
        ("a/b/cat.jpg", "the white cat!", "cat-the-white-cat"),
        ("cat.tar.png", "a  b", "cat.tar-a-b"),
        ("c\x1b[1mt\n.png", "../../etc ring", "c_[1mt_-etc-ring"),
        (".png", "café 猫 ring", ".png-café-猫-ring"),
        ("x" * 250 + ".png", "ring " * 50, "x" * 120 + "-" + "ring-" * 11 + "ring"),
        ("é" * 120 + ".png", "é" * 99, "é" * 60 + "-" + "é" * 30),
    ],
)
def test_result_names(picture, phrase, name):
    assert command.result_name(picture, phrase) == name
    assert len(f".{name}.overlay.png.12345678.part".encode()) <= 255


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("scene.png", "the ring"), ("scene.jpg", "the ring")),
        (("scene.png", "a moon-ring"), ("scene.png", "a moon ring")),
        (("scene.png", f"the ring {LONG} red ring"), ("scene.png", f"the ring {LONG} moon")),
    ],
)  # fmt: skip
def test_results_of_others_are_never_overwritten(scene, image, loaded, first, second):
    Image.fromarray(255 - image).save("scene.jpg")
    for picture, phrase in (first, second, second):
        assert main(["segment", picture, phrase, "--quiet"]) == 0
    records = [json.loads(path.read_text()) for path in Path("out").glob("*.json")]
    found = {(r["picture"]["path"], r["phrase"]) for r in records}
    assert found == {first, second}
    assert len(list(Path("out").iterdir())) == 6
    for record in records:
        assert all((Path("out") / name).exists() for name in record["files"].values())


def test_a_warning_of_the_model_is_said_and_kept(scene, models, monkeypatch, capsys):
    def load(name, **options):
        warnings.warn("a LoRA is not used", stacklevel=1)
        return models

    monkeypatch.setattr("nbhelpers.models.load_models", load)
    assert main(["segment", scene, PHRASE]) == 0
    assert "note: a LoRA is not used" in capsys.readouterr().err
    assert json.loads(Path(f"out/{NAME}.json").read_text())["notes"] == ["a LoRA is not used"]


def test_a_phrase_that_names_no_thing_is_said_and_kept(scene, loaded, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["nbhelpers.segment"], "is_thing", lambda noun: False)
    assert main(["segment", scene, PHRASE]) == 0
    note = f"{PHRASE!r} names no thing, and the mask is of the word "
    assert f"note: {note}" in capsys.readouterr().err
    assert note in json.loads(Path(f"out/{NAME}.json").read_text())["notes"][0]


def test_an_error_is_a_line_of_bounded_length(scene, unloaded, capsys):
    assert main(["segment", scene, "ring", "--method", "x" * 50_000]) == 2
    assert len(capsys.readouterr().err) < 2000


def test_notes_are_said_and_kept(tmp_path, monkeypatch, loaded, capsys):
    monkeypatch.chdir(tmp_path)
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "blue")]
    frames[0].putpixel((3, 3), (9, 9, 9))
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    assert main(["segment", "moving.gif", "a ring"]) == 0
    assert "note: 'moving.gif' holds several pictures" in capsys.readouterr().err
    record = json.loads(Path("out/moving-a-ring.json").read_text())
    assert record["notes"] == ["'moving.gif' holds several pictures (GIF); the first is used"]


def test_hostile_text_is_printed_harmless(scene, loaded, capsys):
    os.rename(scene, "\x1b[31mred\x07.png")
    phrase = "the \x1b[2J\u202ered ring"
    assert main(["segment", "\x1b[31mred\x07.png", phrase]) == 0
    captured = capsys.readouterr()
    assert (captured.out + captured.err).replace("\n", "").isprintable()
    name = next(Path("out").glob("*.json"))
    assert name.name.isprintable()
    text = name.read_bytes()
    assert text.isascii()
    assert b"\x1b" not in text
    assert json.loads(text)["picture"]["path"] == "\x1b[31mred\x07.png"


# What it refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scene.png"], "the following arguments are required: PHRASE"),
        ([], "required: PICTURE, PHRASE"),
        (["scene.png", ""], "argument PHRASE: the text is empty; name a thing"),
        (["scene.png", " \t"], "argument PHRASE: the text is empty"),
        (["scene.png", "🐈‍⬛"], "argument PHRASE: '🐈\\u200d⬛' holds no word in Latin letters"),
        (["scene.png", "הטבעת האדומה"], "'הטבעת האדומה' holds no word in Latin letters"),
        (["scene.png", "123 !?"], "holds no word in Latin letters"),
        (["scene.png", "ring\udcff"], r"'ring\udcff' is not valid text: it holds half"),
        (["scene.png", "ring", "--target", " "], "argument --target: the text is empty"),
        (["scene.png", "ring", "--caption", ""], "argument --caption: the text is empty"),
        (
            ["scene.png", "ring", "--alpha", "2.1"],
            "wanted a number from 0 to 2; got '2.1'",
        ),
        (
            ["scene.png", "ring", "--alpha=-0.1"],
            "wanted a number from 0 to 2; got '-0.1'",
        ),
        (
            ["scene.png", "ring", "--alpha", "nan"],
            "wanted a number from 0 to 2; got 'nan'",
        ),
        (["scene.png", "ring", "--alpha", "inf"], "wanted a number from 0 to 2; got 'inf'"),
        (["scene.png", "ring", "--alpha", "much"], "wanted a number from 0 to 2; got 'much'"),
        (["scene.png", "ring", "--threshold", "1.5"], "--threshold: wanted a number from 0 to 1"),
        (["scene.png", "ring", "--threshold", "nan"], "--threshold: wanted a number from 0 to 1"),
        (["scene.png", "ring", "--timesteps", "1000"], "whole numbers from 0 to 999"),
        (["scene.png", "ring", "--timesteps", "100", "-1"], "whole numbers from 0 to 999"),
        (["scene.png", "ring", "--timesteps", "1.5"], "whole numbers from 0 to 999"),
        (["scene.png", "ring", "--timesteps", "9" * 5000], "whole numbers from 0 to 999"),
        (["scene.png", "ring", "--timesteps", "١٠٠"], "whole numbers from 0 to 999"),
        (["--timesteps", "100", "scene.png", "ring"], "after PICTURE and PHRASE; got 'scene.png'"),
        (["scene.png", "ring", "--timesteps"], "--timesteps: expected at least one argument"),
        (["scene.png", "ring", "--seed", "-1"], "--seed: wanted a whole number of 0 or more"),
        (["scene.png", "ring", "--seed", "9" * 40], "--seed: wanted a whole number of 0 or more"),
        (["scene.png", "ring", "--method", "best\x1b"], "argument --method: invalid choice"),
        (["scene.png", "ring", "--thresh", "0.5"], "unrecognized arguments: --thresh 0.5"),
        (["scene.png", "ring", "\x1b[31m"], r"unrecognized arguments: \x1b[31m"),
        (["none.png", "ring"], "'none.png' doesn't exist (looked from the folder"),
        ([".", "ring"], "'.' is a folder; give the path of one picture in it"),
        (["no\0.png", "ring"], r"'no\x00.png' can't be the name of a file"),
        (["empty.png", "ring"], "'empty.png' is empty (0 bytes)"),
        (["page.jpg", "ring"], "'page.jpg' is not a picture but a web page"),
        (
            ["cut.png", "ring"],
            "is a PNG of 40 x 56 pixels, but its pixels can't be read",
        ),
        (["pipe", "ring"], "'pipe' is a pipe or a device"),
        (["scene.png", "ring", "--out", ""], "'' can't be a folder's name"),
        (["scene.png", "ring", "--out", "a\0b"], r"'a\x00b' can't be a folder's name"),
        (
            ["scene.png", "ring", "--out", "scene.png"],
            "scene.png' is not a folder; choose",
        ),
        (["scene.png", "ring", "--out", "scene.png/x/y"], "scene.png' is not a folder"),
        (["scene.png", "ring", "--out", "gone"], "gone' is not a folder"),
        (["scene.png", "ring", "--out", "x" * 300], "file name too long; choose another with"),
        (
            ["scene.png", "ring", "--out", "/proc/results"],
            "results can't go to '/proc/results'",
        ),
        (["scene.png", "ring", "--out", "taken"], "scene-ring.mask.png' in it is a folder"),
    ],
)
def test_refused_before_the_models_load(scene, unloaded, capsys, arguments, words):
    Path("empty.png").touch()
    Path("page.jpg").write_text("<html></html>")
    Path("cut.png").write_bytes(Path(scene).read_bytes()[:3000])
    Path("gone").symlink_to("nowhere")
    Path("taken/scene-ring.mask.png").mkdir(parents=True)
    os.mkfifo("pipe")
    line = refused(capsys, "segment", *arguments)
    assert words in line
    assert len(line) < 600 or "9999" in line


def test_the_system_says_no(scene, unloaded, capsys, monkeypatch):
    """A folder of another's, a read-only disk: whatever the reason, before the models load."""

    def deny(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(whole_files.tempfile, "TemporaryFile", deny)
    line = refused(capsys, "segment", scene, "ring", "--out", "theirs/results")
    assert "can't go to 'theirs/results': permission denied; choose another with --out" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["red and striped"], "no noun"),
        (["a ring", "--target", "moon"], "moon"),
        (["ring " * 90], "ring"),
    ],
)
def test_refused_by_the_pipeline(scene, loaded, capsys, arguments, words):
    assert words in refused(capsys, "segment", scene, *arguments)


def test_an_error_of_any_stage_leaves_nothing(scene, loaded, capsys, monkeypatch):
    def fail(*_, **__):
        raise ValueError("a map is the same everywhere\n  (1 of 1 maps)")

    monkeypatch.setattr(sys.modules["nbhelpers.segment"], "segment", fail)
    assert refused(capsys, "segment", scene, PHRASE) == (
        "a map is the same everywhere (1 of 1 maps)"
    )


def test_a_device_that_is_not_there(scene, capsys):
    line = refused(capsys, "segment", scene, PHRASE, "--device", "cuda:77")
    assert "there is no device 'cuda:77'; there are cpu" in line
    line = refused(capsys, "segment", scene, PHRASE, "--device", "toaster")
    assert "there is no device 'toaster'" in line


def test_missing_weights(scene, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("NBHELPERS_DATA", str(tmp_path / "data"))
    line = refused(capsys, "segment", scene, PHRASE)
    assert "NBHELPERS_DATA" in line
    assert "make weights" in line
    line = refused(capsys, "segment", scene, PHRASE, "--model", "nowhere")
    assert "'nowhere'" in line
    assert "'stickers' needs no download" in line


def test_out_of_memory(scene, loaded, capsys, monkeypatch):
    import torch

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(sys.modules["nbhelpers.segment"], "segment", fail)
    line = refused(capsys, "segment", scene, PHRASE)
    assert "cpu ran out of memory on a picture of 40 x 56 pixels; give fewer --timesteps" in line


def test_a_bug_is_not_dressed_up(scene, loaded, monkeypatch):
    """Errors that no input should cause keep their traceback."""

    def fail(*_, **__):
        raise KeyError("a bug")

    monkeypatch.setattr(sys.modules["nbhelpers.segment"], "segment", fail)
    with pytest.raises(KeyError):
        main(["segment", scene, PHRASE])


def test_ctrl_c(scene, loaded, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["nbhelpers.segment"], "segment", interrupt)
    assert main(["segment", scene, PHRASE]) == 130
    assert capsys.readouterr().err.endswith("nbhelpers: stopped; nothing was left half-written\n")
    assert files() == [scene]


# The program around it --------------------------------------------------------------------------


def test_help_says_what_the_settings_are(capsys, monkeypatch):
    """Numbers in the help are those of the settings, and every method is explained."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main(["segment", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert tuple(SETTINGS) == command.METHODS
    for name in SETTINGS:
        assert re.search(rf"^  {name} +\w", text, re.MULTILINE), name
    flat = " ".join(text.split())
    assert "(default: 1; paper 0.9, diffsegmenter 1.21)" in flat
    alphas = {name: settings.alpha for name, settings in SETTINGS.items()}
    assert alphas == {"plain": 1, "chunk": 1, "paper": 0.9, "diffsegmenter": 1.21, "sealed": 1}
    assert SETTINGS["diffsegmenter"].subtokens == "last"
    assert "examples:" in text
    assert max(map(len, text.splitlines())) <= 90


def test_examples_in_the_help_parse(capsys):
    parser = cli.Parser(prog="x", allow_abbrev=False)
    command.describe(parser)
    text = parser.epilog.partition("examples:")[2].replace("\\\n", " ")
    examples = [shlex.split(line) for line in text.splitlines() if line.strip()]
    assert len(examples) == 5
    for words in examples:
        assert words[:4] == ["python", "-m", "nbhelpers", "segment"]
        assert isinstance(parser.parse_args(words[4:]), argparse.Namespace)


def test_without_arguments(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    assert "segment    find the pixels" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"nbhelpers \S.*\n", capsys.readouterr().out)
    assert refused(capsys, "segmnt", "x.png", "ring").startswith(
        "there is no subcommand 'segmnt'; there are segment, "
    )
    assert "unrecognized arguments: --verbose" in refused(capsys, "--verbose")
    assert r"there is no subcommand '\x1b[2J'" in refused(capsys, "\x1b[2J")


def test_say_suits_the_terminal():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    cli.say("“red” ring\x1b[31m\n", stream)
    stream.seek(0)
    assert stream.read() == "\\u201cred\\u201d ring\\x1b[31m\\n\n"


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "nbhelpers", *map(str, arguments)],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "error", **environment},
        timeout=120,
    )


def test_as_a_program(tmp_path):
    """In the C locale, with a name that isn't UTF-8: one line, exit code 2."""
    ended = run(
        "segment", tmp_path / "猫.png", "ring", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0"
    )
    assert ended.returncode == 2
    assert ended.stdout == b""
    assert ended.stderr.count(b"\n") == 1
    assert ended.stderr.startswith(b"nbhelpers: error: '")
    assert b"doesn't exist; check the path" in ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only libgomp tells what it was told")
@pytest.mark.parametrize(
    ("program", "policy", "spins"),
    [
        (["-m", "nbhelpers", "--version"], {}, "0"),
        (["-m", "nbhelpers", "--version"], {"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000"),
        (["-c", "import nbhelpers"], {}, "300000"),  # a person's own program is left alone
    ],
)
def test_threads_sleep_while_they_wait(program, policy, spins):
    """Spinning threads make a command many times slower on a machine that is busy."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    ended = subprocess.run(
        [sys.executable, *program],
        capture_output=True,
        cwd=ROOT,
        env={**kept, **policy, "OMP_DISPLAY_ENV": "VERBOSE"},
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{spins}'" in ended.stderr.decode()


def test_help_imports_nothing_of_the_models():
    code = (
        "import sys; from nbhelpers.cli import main\n"
        "try: main(['segment', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'diffusers', 'transformers', 'spacy', 'matplotlib', 'pycocotools'}\n"
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


# The whole way with the embedded models ---------------------------------------------------------

trained = pytest.mark.skipif(
    not (STICKERS / "stable-diffusion").is_dir(),
    reason="data/stickers/stable-diffusion isn't trained",
)


@trained
@pytest.mark.parametrize("method", command.METHODS)
def test_stickers_by_every_method(tmp_path, method):
    pictures = sorted((STICKERS / "images").glob("*.png"))
    assert (
        main(["segment", str(pictures[0]), "the hat", "--method", method, "--out", str(tmp_path)])
        == 0
    )
    assert len(list(tmp_path.iterdir())) == 3


@trained
@photographs
def test_a_photograph_as_a_program(tmp_path):
    """Its mask is as large, and no library warns of anything (warnings are errors here)."""
    ended = run("segment", REAL / "coco-785" / "000000000785.jpg", "the skier", "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr.decode()
    with Image.open(tmp_path / "000000000785-the-skier.mask.png") as mask:
        assert mask.size == (640, 425)
    assert ended.stdout.count(b"\n") == 4


@pytest.mark.parametrize("subcommand", [["evaluate", "--out", "out"], ["reproduce"]])
def test_the_name_of_an_earlier_version_says_what_replaced_it(subcommand, capsys):
    assert main([*subcommand, "--dataset", "shapes"]) == 2
    assert "argument --dataset: the drawn shapes were replaced" in capsys.readouterr().err
    assert (
        main(["segment", str(STICKERS / "images" / "000001.png"), "a", "--model", "shapes"]) == 2
    )
    assert "use 'stickers'" in capsys.readouterr().err
