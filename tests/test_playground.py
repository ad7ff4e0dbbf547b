"""The playground: the numbers of `segment`, nothing computed twice, and sliders in a browser."""

import contextlib
import importlib.util
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import nbformat
import numpy as np
import pytest
from PIL import Image
from test_site import missing

import nbhelpers as nb
from nblabs.playground import Playground, View, draw, playground

ROOT = Path(__file__).parents[1]
PATH = os.pathsep.join(map(str, (ROOT, ROOT / "book")))
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-sync".split()
# What each control changes to, and whether the UNet has to read the picture again.
CHANGES = {
    "threshold": (0.4, False),
    "steps": (2, False),
    "alpha": (0.8, True),
    "timestep": (320, True),
}


@pytest.fixture(scope="module")
def data():
    return nb.referring("stickers", "testA")


@pytest.fixture
def scene(models, data):
    return Playground(models, data)


@pytest.fixture
def passes(models):
    """Counts the passes of the UNet."""
    count = []
    handle = models.unet.register_forward_hook(lambda *_: count.append(1))
    yield count
    handle.remove()


@pytest.mark.parametrize("method", ["plain", "paper", "sealed"])
def test_it_shows_what_segment_finds(scene, models, data, method):
    asked = data.expressions[0]
    view = scene.view(
        asked, "a red ring", method=method, alpha=0.7, timestep=300, steps=2, threshold=0.6
    )
    found = nb.segment(
        data.image(asked.image_id),
        "a red ring",
        models,
        method=method,
        alpha=0.7,
        timesteps=(300,),
        steps=2,
        threshold=0.6,
    )
    np.testing.assert_array_equal(view.mask, found.mask)
    assert view.prompt == found.caption
    assert view.iou == nb.iou(found.mask, data.mask(asked))


def test_no_step_shows_the_score_map(scene, data):
    bare = scene.view(data.expressions[0], "a red ring", steps=0)
    whole = scene.view(data.expressions[0], "a red ring", steps=1)
    assert np.abs(bare.heat - whole.heat).max() > 0.01


def test_a_pass_is_made_only_for_what_it_depends_on(scene, data, passes):
    asked = data.expressions[0]
    settings = {"phrase": "a red ring"}
    wanted = 1
    for name, value in [
        *(("threshold", 0.3), ("threshold", 0.7), ("steps", 3), ("steps", 0)),
        *(("alpha", 0.9), ("timestep", 100), ("phrase", "a cat"), ("method", "plain")),
        *(("alpha", 1.0), ("alpha", 0.9)),
    ]:
        before = dict(settings)
        scene.view(asked, **settings)
        assert len(passes) == wanted, before
        settings[name] = value
        scene.view(asked, **settings)
        again = name in ("threshold", "steps") or before.get("alpha") == 1.0
        wanted += not again
        assert len(passes) == wanted, settings


def test_pictures_are_encoded_once(scene, data, models, monkeypatch):
    encoded = []
    encode = models.vae.encode
    monkeypatch.setattr(models.vae, "encode", lambda x: encoded.append(1) or encode(x))
    for phrase in ("a red ring", "a cat", "a moon"):
        scene.view(data.expressions[0], phrase)
    assert len(encoded) == 1


def test_it_refuses_what_segment_refuses(scene, data):
    with pytest.raises(ValueError, match="alpha is a weight"):
        scene.view(data.expressions[0], "a red ring", alpha=3)
    with pytest.raises(ValueError, match="empty"):
        scene.view(data.expressions[0], "  ")


def test_the_drawing_has_three_panels_and_says_them():
    image = np.full((4, 6, 3), 200, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[1, 2] = 1
    truth = heat > 0.5
    shown = draw(image, View("a ring", "", heat, truth, truth), side=4)
    assert re.search(r"IoU 1\.00.*'a ring'", shown.alt)
    pixels = np.asarray(Image.open(io.BytesIO(shown.png))).astype(int)[-4:]  # below the words
    assert pixels.shape == (4, 18, 3)
    assert (pixels[:, 12:] == 200).all()
    assert pixels[1, 8].sum() > pixels[0, 8].sum()  # bright where the map is
    assert pixels[1, 2, 2] > pixels[1, 2, 0] + 80  # blue where the mask is right
    assert (pixels[0, 2] == 200).all()
    wrong = View("", "", heat, truth, ~truth)
    assert wrong.iou == 0
    other = np.asarray(Image.open(io.BytesIO(draw(image, wrong, side=4).png))).astype(int)[-4:]
    assert other[1, 2, 0] > other[1, 2, 2] + 80  # vermilion where it is wrong


def test_the_map_has_the_colors_of_the_other_maps():
    from matplotlib import colormaps

    heat = np.linspace(0, 1, 101, dtype=np.float32)[None].repeat(4, axis=0)
    image, none = np.zeros((*heat.shape, 3), np.uint8), np.zeros(heat.shape, bool)
    shown = Image.open(io.BytesIO(draw(image, View("", "", heat, none, none), side=4).png))
    drawn = np.asarray(shown).astype(int)[-1, 101:202]
    # Lines between five colors are at most 27 from the scale; two plain colors were 105 from it.
    assert np.abs(drawn - 255 * colormaps["viridis"](heat[0])[:, :3]).max() < 30


def test_the_drawing_says_the_iou_and_fits_a_page():
    image, heat = np.full((80, 80, 3), 200, np.uint8), np.eye(80, dtype=np.float32)
    both = [draw(image, View("", "", heat, heat > 0, heat > limit)) for limit in (0, 1)]
    written = [np.asarray(Image.open(io.BytesIO(one.png)))[:20] for one in both]
    width = both[0].width
    assert width <= 704  # CSS pixels of the site's column
    assert (written[0][:, : width // 3] != written[1][:, : width // 3]).any()  # over the mask
    assert (written[0][:, width // 3 :] == written[1][:, width // 3 :]).all()


@pytest.fixture(scope="module")
def drawn():
    return nb.load_models("stickers")


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_reads_the_picture_once_or_not_at_all(name, drawn, data):
    scene, asked = Playground(drawn, data), data.expressions[0]
    settings = {"alpha": 1.0, "timestep": 200, "steps": 1, "threshold": 0.5}
    before = scene.view(asked, asked.text, **settings)
    passes = []
    hook = drawn.unet.register_forward_hook(lambda *_: passes.append(1))
    try:
        value, again = CHANGES[name]
        view = scene.view(asked, asked.text, **(settings | {name: value}))
        assert len(passes) == again
        back = scene.view(asked, asked.text, **settings)
        assert len(passes) == again  # what was read is kept
    finally:
        hook.remove()
    assert np.array_equal(back.heat, before.heat)
    changed = view.mask if name == "threshold" else view.heat
    assert not np.array_equal(changed, before.mask if name == "threshold" else before.heat)


def test_a_method_comes_with_its_own_weight(drawn, data):
    box = playground(drawn, data)
    controls = {c.description: c for c in box.children if hasattr(c, "description")}
    for method, alpha in (("paper", 0.9), ("diffsegmenter", 1.21), ("plain", 1.0)):
        controls["method"].value = method
        assert controls["alpha"].value == pytest.approx(alpha, abs=0.005)
        names = ("alpha", "timestep", "steps", "threshold")
        chosen = {name: controls[name].value for name in names}
        asked = data.expressions[0]
        shown = Playground(drawn, data).view(asked, asked.text, method=method, **chosen)
        assert f"IoU {shown.iou:.3f}" in box.children[0].value


CELL = """\
import nbhelpers as nb
from nblabs.playground import playground
models = nb.load_models("stickers")
models.parser
playground(models, nb.referring("stickers", "testA"))
"""


@pytest.fixture
def lab(tmp_path):
    """The address of a notebook in a JupyterLab of its own."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("JupyterLab is not installed; pip install -e '.[lab]'")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(CELL)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "play.ipynb")
    home = {name: str(tmp_path / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "IPYTHONDIR")}
    home |= {name: str(tmp_path / "run") for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = ["--no-browser", f"--port={port}", "--IdentityProvider.token=", "--allow-root"]
    quiet += ["--ServerApp.ip=127.0.0.1", "--LabApp.extension_manager=readonly"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *quiet, f"--ServerApp.root_dir={tmp_path}"],
            env=os.environ | home | {"PYTHONPATH": PATH, "JUPYTER_PREFER_ENV_PATH": "1"},
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 150
        while True:
            with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/api"):
                break
            late = server.poll() is not None or time.monotonic() > deadline
            assert not late, (tmp_path / "log").read_text()
            time.sleep(0.25)
        yield f"http://127.0.0.1:{port}/lab/tree/play.ipynb"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:  # its kernel was still starting
            server.kill()
            server.wait()


def find_chromium():
    """Where a browser is, in this machine's PATH."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing("there is no Chromium on this machine")
    return found


@pytest.fixture(scope="module")
def chromium():
    return find_chromium()


@pytest.mark.parametrize(
    ("site", "outcome"), [("required", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_without_a_browser_it_fails_where_the_site_is_required(monkeypatch, site, outcome):
    monkeypatch.setenv("SITE", site)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception), match="no Chromium") as how:
        find_chromium()
    assert how.type is outcome


@pytest.mark.timeout(400)
def test_dragging_a_slider_changes_map_and_iou(lab, chromium, record_property):
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1400})
        page.set_default_timeout(120_000)
        page.goto(lab)
        page.wait_for_selector(".jp-CodeCell .cm-content", timeout=150_000)
        ready = page.get_by_text(re.compile(r"\| Idle"))  # in the status bar; a key before is lost
        ready.wait_for(timeout=150_000)
        page.click(".jp-CodeCell .cm-content")
        page.keyboard.press("Shift+Enter")
        page.wait_for_selector("p[role=status]", timeout=150_000)
        said = page.locator("p[role=status]")
        picture = page.locator("p[role=status] ~ img")
        assert re.match(r"IoU \d\.\d{3}", said.inner_text())

        handles = page.locator(".widget-slider .noUi-handle")
        assert handles.count() == 4
        for part in (picture, handles.last):
            part.wait_for()  # what isn't laid out yet has no box
        shown = [picture.bounding_box(), handles.last.bounding_box()]
        assert shown[0]["y"] < shown[1]["y"]
        assert shown[1]["y"] - shown[0]["y"] < 600  # both are in view while dragging
        took = {}
        for place, name in enumerate(("alpha", "timestep", "steps", "threshold")):
            before = picture.get_attribute("src")
            handles.nth(place).focus()
            started = time.monotonic()
            page.keyboard.press("ArrowLeft")
            page.wait_for_function(
                "src => document.querySelector('p[role=status] ~ img').src != src", arg=before
            )
            took[name] = time.monotonic() - started
        record_property("seconds", took)
        print({name: round(seconds, 2) for name, seconds in took.items()})

        box = page.locator(".widget-text input[type=text]").first
        box.fill("a white ball")
        box.press("Enter")
        page.wait_for_function(
            "() => document.querySelector('p[role=status]').innerText.includes('a white ball')"
        )
        box.fill("<img src=x onerror=alert(1)>")
        box.press("Enter")
        page.wait_for_timeout(1000)
        assert page.locator("img[src=x]").count() == 0  # what is typed is text
        browser.close()


def test_the_iou_is_that_of_the_thing_that_was_asked_for(scene, data):
    asked = data.expressions[0]
    view = scene.view(asked, "a red ring", threshold=1.0)
    assert view.mask.any()  # the peak is in: >=
    other = next(e for e in data.expressions if e.image_id != asked.image_id)
    view = scene.view(other, "a red ring")
    assert view.iou == nb.iou(view.mask, data.mask(other))
    third = next(
        e
        for e in data.expressions[1:]
        if e.image_id == asked.image_id and e.annotation_id != asked.annotation_id
    )
    view = scene.view(third, "a red ring")
    assert view.iou == nb.iou(view.mask, data.mask(third))
