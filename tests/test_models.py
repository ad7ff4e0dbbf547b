"""Models from folders and names: the same object, safetensors alone, errors that help."""

import json
import shutil
import sys

import diffusers
import numpy as np
import pytest
import torch

import nbhelpers as nb
from nbhelpers.calibration import Calibration, Gathering, read_calibration
from nbhelpers.models import load_captioner, load_parser
from nbhelpers.weights import HUB, data_folder

SD = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def save(models, folder):
    """Models as a pipeline of diffusers, so that diffusers itself could load them."""
    parts = {"text_encoder": models.text.encoders[0], "tokenizer": models.text.tokenizers[0]}
    kind = "StableDiffusionPipeline"
    if len(models.text.encoders) == 2:
        kind = "StableDiffusionXLPipeline"
        parts["text_encoder_2"], parts["tokenizer_2"] = (
            models.text.encoders[1],
            models.text.tokenizers[1],
        )
    parts |= {"vae": models.vae, "unet": models.unet, "scheduler": models.scheduler}
    index = {"_class_name": kind, "_diffusers_version": diffusers.__version__}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        library = (
            "transformers" if "to" in name.partition("_")[0] or "text" in name else "diffusers"
        )
        index[name] = [library, type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.fixture(scope="module")
def stickers_folder(models, captioner, toy_parser, tmp_path_factory):
    """A data folder in the layout of the embedded world."""
    data = tmp_path_factory.mktemp("data")
    save(models, data / "stickers" / "stable-diffusion")
    captioner.processor.save_pretrained(data / "stickers" / "blip")
    captioner.model.save_pretrained(data / "stickers" / "blip")
    toy_parser.to_disk(data / "stickers" / "parser")
    return data


@pytest.fixture
def stickers(stickers_folder, monkeypatch):
    monkeypatch.setenv("NBHELPERS_DATA", str(stickers_folder))
    return stickers_folder / "stickers"


def test_shapes_come_with_captioner_and_parser(stickers, models, image):
    loaded = nb.load_models("stickers")
    assert (loaded.name, loaded.revision, loaded.size) == ("stickers", None, (96, 96))
    assert loaded.dtype == torch.float32
    assert loaded.latent_factor == 4
    assert not any(p.requires_grad for p in loaded.unet.parameters())
    assert not loaded.unet.training
    found = nb.segment(image, "the red ring", loaded)
    wanted = nb.segment(image, "the red ring", models)
    assert np.allclose(found.map, wanted.map, atol=0.01)
    assert nb.caption(image, loaded.captioner, about="the moon").startswith("a photograph of the")
    assert loaded.captioner is loaded.captioner
    assert loaded.parser is loaded.parser


@pytest.mark.parametrize("kind", ["models_15", "models_21", "models_xl"])
def test_a_folder_of_diffusers_loads_as_the_shapes_do(kind, request, tmp_path, image, toy_parser):
    models = request.getfixturevalue(kind)
    save(models, tmp_path)
    loaded = nb.load_models(tmp_path, parser=toy_parser)
    assert loaded.size == (128, 128)
    assert len(loaded.text.encoders) == len(models.text.encoders)
    for mine, theirs in zip(loaded.text.tokenizers, models.text.tokenizers, strict=True):
        assert mine.pad_token_id == theirs.pad_token_id
    found = nb.segment(image, "the red ring", loaded)
    assert np.allclose(found.map, nb.segment(image, "the red ring", models).map, atol=0.01)


def test_the_same_folder_is_a_pipeline_of_diffusers(stickers):
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        stickers / "stable-diffusion",
        revision=None,
        use_safetensors=True,
        trust_remote_code=False,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a ring", num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (96, 96, 3)


def test_loading_shows_no_bars_and_leaves_the_setting_alone(stickers, capfd, monkeypatch):
    from transformers.utils import logging

    # Set back after the test, for transformers and the Hub's client alike.
    monkeypatch.setattr(logging, "_tqdm_active", logging.is_progress_bar_enabled())
    states = sys.modules["huggingface_hub.utils.tqdm"].progress_bar_states
    before = dict(states)
    for shown, choose in (
        (True, logging.enable_progress_bar),
        (False, logging.disable_progress_bar),
    ):
        choose()
        nb.load_models("stickers")
        assert logging.is_progress_bar_enabled() == shown
        assert capfd.readouterr().err == ""
    states.clear()
    states.update(before)


def test_float16_on_request(stickers):
    loaded = nb.load_models("stickers", dtype=torch.float16)
    assert loaded.unet.dtype == loaded.vae.dtype == torch.float16
    assert loaded.text.encoders[0].dtype == torch.float16


def test_an_autoencoder_that_overflows_stays_in_float32(stickers, tmp_path):
    shutil.copytree(stickers / "stable-diffusion", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "vae" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "force_upcast": True}))
    loaded = nb.load_models(tmp_path, dtype=torch.float16)
    assert (loaded.vae.dtype, loaded.unet.dtype) == (torch.float32, torch.float16)


def test_a_folder_may_hold_a_calibration(stickers, tmp_path):
    assert nb.load_models(stickers / "stable-diffusion").calibration == Calibration()
    shutil.copytree(stickers / "stable-diffusion", tmp_path, dirs_exist_ok=True)
    sealed = {"layers": "up", "normalize": "none", "softmax_over": "words", "threshold": 0.3}
    record = {
        **{"format": 2, "timesteps": [200, 400], "weights": {"1": 0.4, "2": 0.6}},
        "methods": {"sealed": sealed, "plain": {"timesteps": [50], "weights": None}},
        "chosen": [{"how": "by hand"}],
    }
    (tmp_path / "nbhelpers.json").write_text(json.dumps(record))
    found = nb.load_models(tmp_path).calibration
    weights = {1: 0.4, 2: 0.6}
    assert found.of("sealed") == Gathering((200, 400), weights, "up", "none", "words", 0.3)
    assert found.of("plain") == Gathering((50,), None)
    for other in ("paper", "custom", None):
        assert found.of(other) is found
    assert (found.timesteps, found.weights, found.layers) == ((200, 400), weights, "all")
    assert (found.normalize, found.softmax_over, found.threshold) == ("min-max", "all", 0.5)
    (tmp_path / "nbhelpers.json").write_text(json.dumps(found.record()))
    assert nb.load_models(tmp_path).calibration == found


def test_a_calibration_of_the_first_format_is_read(tmp_path):
    path = tmp_path / "nbhelpers.json"
    old = {"timesteps": [200, 400], "weights": {"1": 0.4, "2": 0.6}, "thresholds": {"plain": 0.4}}
    path.write_text(json.dumps(old))
    found, weights = read_calibration(tmp_path), {1: 0.4, 2: 0.6}
    plain = Gathering((200, 400), weights, threshold=0.4)
    assert found == Calibration((200, 400), weights, methods={"plain": plain})
    path.write_text(json.dumps({"weights": None}))
    assert read_calibration(tmp_path) == Calibration(weights=None)
    path.write_text("{}")
    assert read_calibration(tmp_path) == Calibration()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"timestep": 3}', "timestep is no field of it without"),
        ('{"layers": "up"}', "layers is no field of it without"),
        ('{"format": 2, "timestep": 3}', "unexpected keyword argument 'timestep'"),
        ('{"format": 2, "methods": {"plain": {"size": 3}}}', "unexpected .* 'size'"),
        ('{"format": 2, "methods": {"plain": {"chosen": []}}}', "unexpected .* 'chosen'"),
        ('{"format": 2, "thresholds": {}}', "unexpected keyword argument 'thresholds'"),
        ('{"format": 3}', "its format is 3, and 2 is read; update nbhelpers"),
        ('{"format": 2, "layers": "mid"}', "layers is one of all, no-mid, down, up; got 'mid'"),
        ('{"format": 2, "softmax_over": "word"}', "softmax_over is one of all, words"),
        ('{"format": 2, "normalize": true}', "normalize is one of min-max, none; got 'True'"),
        ('{"format": 2, "threshold": 1.5}', r"threshold lies in \[0, 1\]; got 1.5"),
        ('{"format": 2, "threshold": NaN}', r"threshold lies in \[0, 1\]; got nan"),
        ('{"format": 2, "timesteps": []}', "at least one scheduler index"),
        ('{"format": 2, "timesteps": 3}', "not iterable"),
        ('{"format": 2, "methods": []}', "no attribute 'items'"),
        ('{"format": 2', "Expecting"),
        ("[1]", "no attribute|pop"),
    ],
)
def test_what_is_no_calibration_is_refused(tmp_path, text, message):
    (tmp_path / "nbhelpers.json").write_text(text)
    with pytest.raises(ValueError, match=rf"nbhelpers.json holds .*{message}"):
        read_calibration(tmp_path)


def test_pickled_weights_are_not_read(stickers, tmp_path):
    shutil.copytree(stickers / "stable-diffusion", tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(OSError, match="unet can't be read as safetensors weights"):
        nb.load_models(tmp_path)


def test_a_truncated_file_is_named(stickers, tmp_path):
    shutil.copytree(stickers / "stable-diffusion", tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(OSError, match="text_encoder can't be read as safetensors weights"):
        nb.load_models(tmp_path)


def test_a_model_without_a_unet_is_refused(tmp_path):
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"\['transformer'\] and no UNet; a Stable Diffusion"):
        nb.load_models(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unet": [None, None]}, "and no UNet; a Stable Diffusion"),
        ({"text_encoder": [None, None]}, "and no text_encoder; a Stable Diffusion"),  # a refiner
        ({"tokenizer": None}, "and no tokenizer; a Stable Diffusion"),
        ({"scheduler": "DDIMScheduler"}, "and no scheduler; a Stable Diffusion"),
        ({"scheduler": ["diffusers", "MadeUpScheduler"]}, "'MadeUpScheduler' of .* none of diff"),
        ({"scheduler": ["diffusers", "DiffusionPipeline"]}, "'DiffusionPipeline' of .* none of"),
    ],
)
def test_a_pipeline_of_another_kind_is_refused_before_its_weights_are_read(
    tmp_path, change, message
):
    names = ("unet", "vae", "scheduler", "tokenizer", "text_encoder")
    index = {"_class_name": "SomePipeline", **{name: ["library", name] for name in names}}
    (tmp_path / "model_index.json").write_text(json.dumps({**index, **change}))
    with pytest.raises(ValueError, match=message):
        nb.load_models(tmp_path)
    (tmp_path / "model_index.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"holds \[\] and no UNet"):
        nb.load_models(tmp_path)


@pytest.mark.parametrize(("index", "message"), [("", "Expecting value"), (None, "No such file")])
def test_a_folder_without_an_index_is_refused(tmp_path, index, message):
    if index is not None:
        (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(OSError, match=f"model_index.json can't be read.*{message}"):
        nb.load_models(tmp_path)


def test_missing_weights_say_what_to_download(monkeypatch, tmp_path):
    with pytest.raises(
        OSError, match=rf"{SD} are not here .*4.3 GB.*'stickers' needs no download"
    ):
        nb.load_models(SD)
    with pytest.raises(OSError, match=r"blip-image-captioning-large are not here .*1.9 GB"):
        load_captioner("Salesforce/blip-image-captioning-large")
    monkeypatch.setenv("NBHELPERS_DATA", str(tmp_path))
    for load in (nb.load_models, load_captioner, load_parser):
        with pytest.raises(OSError, match=rf"is not at {tmp_path}.*make weights"):
            load("stickers")
    with pytest.raises(OSError, match=r"no folder 'nowhere'.*'stickers' needs no download"):
        nb.load_models("nowhere")
    with pytest.raises(
        OSError, match=r"python -m spacy download en_core_web_xx.*parser='stickers'"
    ):
        load_parser("en_core_web_xx")


def test_a_model_that_left_the_hub_is_looked_for_elsewhere():
    with pytest.raises(OSError, match=r"5.2 GB.* was taken off the Hub; .* as sd2-community/st"):
        nb.load_models("stabilityai/stable-diffusion-2-1")
    with pytest.raises(ValueError, match=r"taken off the Hub; a copy is kept as stable-diffusion"):
        nb.load_models("runwayml/stable-diffusion-v1-5")
    with pytest.raises(OSError, match=r"'stickers' needs no download$"):
        nb.load_models(SD)


def test_a_model_on_the_hub_is_pinned():
    assert all(len(commit) == 40 for commit, _ in HUB.values())
    for revision in (None, "main", "abc123"):
        with pytest.raises(ValueError, match="some/model on the Hub needs the 40-digit commit"):
            nb.load_models("some/model", revision=revision)
    with pytest.raises(ValueError, match="needs the 40-digit commit that is meant, got 'main'"):
        load_captioner("some/blip@main")


@pytest.mark.parametrize(
    "load",
    [nb.load_models, load_captioner, load_parser, lambda name: nb.referring(name, "val")],
    ids=["models", "captioner", "parser", "data"],
)
def test_the_name_of_an_earlier_version_says_what_replaced_it(load):
    with pytest.raises(ValueError, match=r"replaced by the sticker world .*; use 'stickers'$"):
        load("shapes")


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "tpu", "", "mps"])
def test_a_device_that_is_not_there_is_refused(stickers, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"there is no device '{device}'; there are cpu"):
        nb.load_models("stickers", device=device)


def test_data_lies_beside_the_package_unless_told(monkeypatch):
    monkeypatch.delenv("NBHELPERS_DATA", raising=False)
    assert data_folder().name == "data"
    assert (data_folder().parent / "nbhelpers" / "weights.py").is_file()


def test_a_named_data_folder_may_begin_with_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NBHELPERS_DATA", "~/book data")
    assert nb.data_folder() == tmp_path / "book data"


@pytest.mark.parametrize("revision", ["451f4fe", "a" * 39, "a" * 41, "A" * 40])
def test_a_commit_has_forty_small_digits(revision):
    with pytest.raises(ValueError, match="some/model on the Hub needs the 40-digit commit"):
        nb.load_models("some/model", revision=revision)
