"""Folders as people have them: every weight comes from a file, or one error says what is amiss."""

import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_models import save

import nbhelpers as nb
from nbhelpers.cli import main
from nbhelpers.models import load_captioner, load_parser

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def kept(models, captioner, toy_parser, tmp_path_factory):
    """A model's folder, a captioner's and a parser's."""
    home = tmp_path_factory.mktemp("kept")
    save(models, home / "sd")
    captioner.processor.save_pretrained(home / "blip")
    captioner.model.save_pretrained(home / "blip")
    toy_parser.to_disk(home / "parser")
    return home


@pytest.fixture
def home(kept, tmp_path):
    """Copies of them, to be spoilt."""
    return shutil.copytree(kept, tmp_path / "home")


def change(file, edit):
    """Save a file of tensors anew, each by the name and value that `edit` gives, or not at all."""
    pairs = [edit(name, value) for name, value in load_file(file).items()]
    save_file(dict(p for p in pairs if p), file, metadata={"format": "pt"})


def without(word):
    return lambda name, value: None if word in name else (name, value)


@pytest.mark.parametrize(
    ("file", "word", "count"),
    [(TEXT, "layers.0.mlp", 4), (TEXT, "", 0), (UNET, "mid_block.attentions.0.norm", 2),
     (VAE, "quant_conv", 4), (VAE, "encoder.conv_in.bias", 1)],
)  # fmt: skip
def test_missing_weights_are_never_made_up(home, toy_parser, file, word, count):
    change(home / "sd" / file, without(word))
    part = file.partition("/")[0]
    said = rf"{count or '[0-9]+'} weights of .*sd/{part} are missing, the first .*{word}"
    with pytest.raises(ValueError, match=said) as caught:
        nb.load_models(home / "sd", parser=toy_parser)
    assert len(str(caught.value)) < 500


def test_a_captioner_with_missing_weights_is_refused(home):
    change(home / "blip" / "model.safetensors", without("crossattention.self.query"))
    with pytest.raises(
        ValueError, match="4 weights of .*blip are missing, the first text_decoder"
    ):
        load_captioner(home / "blip")


@pytest.mark.parametrize("file", [UNET, VAE, TEXT])
def test_weights_of_another_shape_are_refused(home, toy_parser, file):
    change(home / "sd" / file, lambda n, v: (n, v[:-1] if v.ndim == 1 and len(v) > 4 else v))
    with pytest.raises(ValueError, match="have another shape than config.json says, the first"):
        nb.load_models(home / "sd", parser=toy_parser)


def test_a_unet_saved_with_its_adapter_says_what_to_do(home, toy_parser):
    def wrap(name, value):
        return (name.replace("to_q.weight", "to_q.base_layer.weight"), value)

    change(home / "sd" / UNET, wrap)
    with pytest.raises(ValueError, match="fuse or unload the LoRA before saving"):
        nb.load_models(home / "sd", parser=toy_parser)


def test_an_adapter_beside_whole_weights_is_not_passed_over(home, toy_parser):
    file = home / "sd" / UNET
    more = {"mid_block.attentions.0.to_q.lora_A.weight": torch.zeros(2, 2)}
    save_file({**load_file(file), **more}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="fuse or unload the LoRA before saving"):
        nb.load_models(home / "sd", parser=toy_parser)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("sd/text_encoder/config.json", "has no config.json, so it is no part of a model"),
        ("sd/unet/config.json", "has no config.json"),
        ("sd/tokenizer/tokenizer.json", "tokenizer has 2 tokens and its model"),
        ("sd/scheduler/scheduler_config.json", "scheduler can't be read"),
        ("sd/" + UNET, "unet can't be read"),
    ],
)
def test_a_missing_file_is_named(home, toy_parser, path, words):
    (home / path).unlink()
    with pytest.raises((OSError, ValueError), match=words):
        nb.load_models(home / "sd", parser=toy_parser)


def test_a_captioner_without_its_words_is_refused(home):
    for file in (home / "blip").glob("tokenizer.json"):
        file.unlink()
    with pytest.raises(ValueError, match="blip's tokenizer has .* tokens and its model"):
        load_captioner(home / "blip")


def test_a_parser_of_which_a_file_is_missing_is_refused(home):
    (home / "parser" / "tokenizer").unlink()
    with pytest.raises(OSError, match="parser' is no whole pipeline of spaCy's"):
        load_parser(home / "parser")


def test_the_command_ends_in_one_line(home, tmp_path, image, capsys, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.fromarray(image).save("scene.png")
    change(home / "sd" / UNET, without("mid_block.attentions.0.norm"))
    model = ["--model", str(home / "sd"), "--parser", str(home / "parser"), "--quiet"]
    assert main(["segment", "scene.png", "the ring", *model]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nbhelpers: error: 2 weights of ")
    assert not list(tmp_path.glob("out/*"))


# --- how people keep models ------------------------------------------------------------------


def renamed(folder, variant):
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.{variant}.safetensors"))


def test_the_only_variant_of_a_folder_is_read(home, toy_parser, models, image):
    renamed(home / "sd", "fp16")
    found = nb.load_models(home / "sd", parser=toy_parser)
    wanted = nb.segment(image, "the ring", models).map
    assert np.allclose(nb.segment(image, "the ring", found).map, wanted, atol=1e-5)


def test_of_several_variants_one_is_to_be_chosen(home, toy_parser):
    for file in list((home / "sd").rglob("*.safetensors")):
        shutil.copy(file, file.with_name(f"{file.stem}.bf16.safetensors"))
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    with pytest.raises(
        ValueError, match="holds the weights as bf16 and as fp16; .*variant='bf16'"
    ):
        nb.load_models(home / "sd", parser=toy_parser)
    assert nb.load_models(home / "sd", parser=toy_parser, variant="fp16").size == (96, 96)


def test_pickled_weights_are_told_from_none(home, toy_parser):
    (home / "sd" / UNET).rename((home / "sd" / UNET).with_suffix(".bin"))
    with pytest.raises(OSError, match="holds pickled ones alone .*safe_serialization=True"):
        nb.load_models(home / "sd", parser=toy_parser)


def test_a_checkpoint_in_one_file_and_a_misspelt_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "v1-5.safetensors").write_bytes(b"0" * 64)
    with pytest.raises(OSError, match=r"is a single file; wanted the folder .*from_single_file"):
        nb.load_models("models/v1-5.safetensors")
    with pytest.raises(
        ValueError, match="there is no folder 'modles/sd15' here, and modles/sd15 on"
    ):
        nb.load_models("modles/sd15")
    with pytest.raises(OSError, match="has one beside its parts .*, and this folder holds v1-5"):
        nb.load_models("models")
    with pytest.raises(OSError, match="there is no folder") as caught:
        nb.load_models("x/" * 3000)
    assert len(str(caught.value)) < 400


def test_a_folder_of_the_home_is_found(home, toy_parser, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    assert nb.load_models("~/sd", parser=toy_parser).size == (96, 96)


@pytest.mark.parametrize(
    "name", ["pytorch_lora_weights.safetensors", "unet/pytorch_lora_weights.safetensors",
             "my-lora.safetensors", "unet/adapter_model.safetensors"]
)  # fmt: skip
def test_a_lora_beside_the_model_is_mentioned(home, toy_parser, name):
    save_file({"unet.x.lora_A.weight": torch.zeros(2, 2)}, home / "sd" / name)
    with pytest.warns(UserWarning, match=rf"holds a LoRA \({name}\), which is not used"):
        nb.load_models(home / "sd", parser=toy_parser)


def test_a_whole_folder_is_loaded_without_a_word(home, toy_parser, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nb.load_models(home / "sd", parser=toy_parser)
    assert capfd.readouterr() == ("", "")


def test_the_shipped_parser_serves_every_model(home):
    shipped = nb.weights.data_folder() / "stickers" / "parser"
    if not shipped.is_dir():
        pytest.skip("needs the parser in data/stickers/parser; train it")
    index = json.loads((shipped / "meta.json").read_text())
    models = nb.load_models(home / "sd")
    assert models.parser.meta["name"] == index["name"]
    assert [c.text for c in nb.noun_chunks("a toddler in a bib", models.parser)] == [
        *("a toddler", "a bib")
    ]


def test_defaults_of_torch_touch_no_model(home):
    """A default device or dtype set by the reader: the parts still lie where they belong."""
    code = f"""
import sys
sys.path.insert(0, {str(nb.__path__[0]) + "/.."!r})
import torch
import nbhelpers as nb
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
models = nb.load_models({str(home / "sd")!r}, parser="x")
parts = [models.unet, models.vae, *models.text.encoders]
kinds = {{(t.device.type, t.dtype) for p in parts for t in [*p.parameters(), *p.buffers()]
         if t.is_floating_point()}}
alphas = models.scheduler.alphas_cumprod
print(kinds == {{("cpu", torch.float32)}}, alphas.device.type, alphas.dtype)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True cpu torch.float32\n", done.stderr
