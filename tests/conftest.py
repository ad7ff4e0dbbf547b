"""Checked shapes in every signature, and small random models that all tests share."""

import ast
import gzip
import json
import os
from pathlib import Path

# No test may reach the Hub, nor find what this machine once took from there, and threads sleep
# while they wait, as the Makefile has it. This stands before the libraries are imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_HUB_CACHE"] = os.path.join(os.path.dirname(__file__), "no-hub-cache")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from jaxtyping import _import_hook, install_import_hook

# By name: in nbhelpers.kernels the hook would stand between @triton.jit and a kernel.
TYPED = (
    "weights",
    "models",
    "datasets",
    "captions",
    "chunks",
    "embeddings",
    "tokens",
    "denoising",
    "attention",
    "scores",
    "completion",
    "masks",
    "segment",
    "figures",
    "family",
)


class Outermost(_import_hook.JaxtypingTransformer):
    """Checks no function inside of a function: its checks would be compiled at every call."""

    def visit_FunctionDef(self, node):
        inside = any(isinstance(parent, ast.FunctionDef) for parent in self._parents)
        return node if inside else super().visit_FunctionDef(node)


_import_hook.JaxtypingTransformer = Outermost
install_import_hook([f"nbhelpers.{name}" for name in TYPED], "typecheck.outermost")

import diffusers
import numpy as np
import pytest
import spacy
import torch
import transformers
from spacy.language import Language
from spacy.tokens import Doc

from nbhelpers.chunks import Chunk
from nbhelpers.models import Captioner, Models, TextEncoder

collect_ignore = ["bench"]  # what measures speed, which the command runs and test_bench tests

SHARED = Path(__file__).parents[2] / "shared" / "data"
VOCABULARY = SHARED / "clip-vocabulary" / "bpe_simple_vocab_16e6.txt.gz"
WIDTH = 32  # of the small text encoders


# The words of the small vocabulary that are one token each; others fall into letters.
SMALL = "a of the very old moon ring red blue and photograph picture striped cat near dog hat"


def pytest_collection_modifyitems(items):
    """Puts the longest file first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_site.py")


def write_tokenizer(folder, merges):
    """A CLIP tokenizer in the files of the Hub: bytes, bytes that end a word, merges, marks."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    shown += range(ord("®"), ord("ÿ") + 1)
    letters = [chr(byte) for byte in shown] + [chr(256 + i) for i in range(256 - len(shown))]
    words = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    text = "\n".join(["#version: 0.2", *map(" ".join, merges)])
    (folder / "merges.txt").write_text(text, encoding="utf-8")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def read_tokenizer(folder, **more):
    return transformers.CLIPTokenizer.from_pretrained(
        folder, revision=None, use_safetensors=True, trust_remote_code=False, **more
    )


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """A tokenizer of a few words, letters and bytes."""
    merges = []
    for word in SMALL.split():
        letters = [*word[:-1], word[-1] + "</w>"]
        merges += [("".join(letters[:i]), letters[i]) for i in range(1, len(letters))]
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, list(dict.fromkeys(merges)))
    return folder


@pytest.fixture(scope="session")
def clip_tokenizer(tmp_path_factory):
    """The tokenizer of CLIP and Stable Diffusion."""
    if not VOCABULARY.exists():
        pytest.skip(f"CLIP's own vocabulary is not at {VOCABULARY}")
    lines = gzip.decompress(VOCABULARY.read_bytes()).decode("utf-8").split("\n")
    folder = tmp_path_factory.mktemp("clip")
    write_tokenizer(folder, [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]])
    return read_tokenizer(folder)


def clip_config(tokenizer, **changes):
    """A CLIP text encoder of two layers with CLIP's length."""
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "projection_dim": WIDTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return transformers.CLIPTextConfig(**{**settings, **changes})


def made(kind, *args, seed=0, **settings):
    """A random model whose text and attention weights are large enough to tell things apart."""
    torch.manual_seed(seed)
    model = kind(*args, **settings).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight", "q_proj.weight", "k_proj.weight")):
            weight.mul_(6)
        elif "token_embedding" in name or "position_embedding" in name:
            weight.mul_(30)
    return model


def make_text(tokenizer):
    return TextEncoder((tokenizer,), (made(transformers.CLIPTextModel, clip_config(tokenizer)),))


@pytest.fixture(scope="session")
def text(tokenizer_folder):
    """The text encoder of a Stable Diffusion 1 scaled down."""
    return make_text(read_tokenizer(tokenizer_folder))


@pytest.fixture(scope="session")
def clip_text(clip_tokenizer):
    """The same with CLIP's own vocabulary."""
    return make_text(clip_tokenizer)


@pytest.fixture(scope="session")
def text_21(tokenizer_folder):
    """The text encoder of a Stable Diffusion 2.1 scaled down: OpenCLIP's, which pads with "!"."""
    tokenizer = read_tokenizer(tokenizer_folder, pad_token="!")
    config = clip_config(tokenizer, num_hidden_layers=3, hidden_act="gelu")
    return TextEncoder((tokenizer,), (made(transformers.CLIPTextModel, config, seed=3),))


@pytest.fixture(scope="session")
def text_xl(tokenizer_folder):
    """The two text encoders of Stable Diffusion XL scaled down; the second pads with "!"."""
    tokenizers = (
        read_tokenizer(tokenizer_folder),
        read_tokenizer(tokenizer_folder, pad_token="!"),
    )
    encoders = (
        made(transformers.CLIPTextModel, clip_config(tokenizers[0]), seed=1),
        made(
            transformers.CLIPTextModelWithProjection,
            clip_config(tokenizers[0], num_hidden_layers=3, hidden_act="gelu"),
            seed=2,
        ),
    )
    return TextEncoder(tokenizers, encoders)


def make_vae(blocks):
    return made(
        diffusers.AutoencoderKL,
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        norm_num_groups=4,
        latent_channels=4,
        force_upcast=False,
    )


def make_models(name, unet, text, blocks, **more):
    """Random models of one kind, with the sample size of their UNet."""
    side = unet.config.sample_size * 2 ** (blocks - 1)
    return Models(
        name=name,
        revision=None,
        unet=unet,
        vae=make_vae(blocks),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        text=text,
        device=torch.device("cpu"),
        dtype=torch.float32,
        size=(side, side),
        **more,
    )


@pytest.fixture(scope="session")
def models(text, toy_parser, captioner):
    """Models like those of the sticker world: two levels, 24 x 24 latents of 96 x 96 pictures."""
    unet = made(
        diffusers.UNet2DConditionModel,
        sample_size=24,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    sources = {"captioner": captioner, "parser": toy_parser}
    return make_models("tiny stickers", unet, text, 3, sources=sources)


@pytest.fixture(scope="session")
def models_15(text, toy_parser):
    """The blocks of Stable Diffusion 1.5 with few channels: 16 x 16 latents down to 2 x 2."""
    unet = made(
        diffusers.UNet2DConditionModel,
        sample_size=16,
        block_out_channels=(16, 32, 32, 32),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    return make_models("tiny 1.5", unet, text, 4, sources={"parser": toy_parser})


@pytest.fixture(scope="session")
def models_21(text_21, toy_parser):
    """Stable Diffusion 2.1 with few channels: heads of one size, linear, predicting velocity."""
    unet = made(
        diffusers.UNet2DConditionModel,
        sample_size=16,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=WIDTH,
        attention_head_dim=(2, 4, 8, 8),
        use_linear_projection=True,
        upcast_attention=True,
        norm_num_groups=8,
    )
    models = make_models("tiny 2.1", unet, text_21, 4, sources={"parser": toy_parser})
    models.scheduler.register_to_config(prediction_type="v_prediction")
    return models


@pytest.fixture(scope="session")
def models_xl(text_xl, toy_parser):
    """The blocks of Stable Diffusion XL with few channels, several transformer layers a block."""
    unet = made(
        diffusers.UNet2DConditionModel,
        sample_size=16,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=WIDTH + 6 * 8,
        norm_num_groups=8,
    )
    return make_models("tiny XL", unet, text_xl, 4, sources={"parser": toy_parser})


@pytest.fixture(scope="session")
def captioner(tmp_path_factory):
    """A small random BLIP with a vocabulary of a few words."""
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] [DEC] a photograph of ring moon red striped and the"
    path = tmp_path_factory.mktemp("blip") / "vocab.txt"
    path.write_text("\n".join(words.split()), encoding="utf-8")
    tokenizer = transformers.BertTokenizer(vocab=str(path))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    config = transformers.BlipConfig(
        text_config={
            **shape,
            "vocab_size": len(tokenizer),
            "encoder_hidden_size": 32,
            "bos_token_id": tokenizer.convert_tokens_to_ids("[DEC]"),
            "sep_token_id": tokenizer.sep_token_id,
            "eos_token_id": tokenizer.sep_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**shape, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    processor = transformers.BlipProcessor(
        transformers.BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer
    )
    model = made(transformers.BlipForConditionalGeneration, config)
    return Captioner(processor, model, torch.device("cpu"))


NOUNS = {
    "photograph",
    "picture",
    "ring",
    "moon",
    "dog",
    "dogs",
    "pair",
    "cat",
    "hat",
    "head",
    "box",
    "strawberry",
}
LINKS = {"of", "and", "on", "next", "to", "with", "in"}


@Language.component("toy_chunks")
def toy_chunks(doc):
    """Heads for phrases of these few nouns: what stands before a noun belongs to it."""
    heads, labels, tags = [], [], []
    nouns = [i for i, token in enumerate(doc) if token.lower_ in NOUNS]
    for i, token in enumerate(doc):
        following = next((n for n in nouns if n > i), None)
        if i in nouns:
            heads.append(i - 1 if i and doc[i - 1].lower_ in LINKS else i)
            labels.append("pobj" if heads[-1] != i else "ROOT")
            tags.append("NOUN")
        elif token.lower_ in LINKS or following is None:
            before = [n for n in nouns if n < i]
            heads.append(before[-1] if before else i)
            labels.append("prep" if before else "ROOT")
            tags.append("ADP")
        else:
            heads.append(following)
            labels.append("det" if token.lower_ in {"a", "the"} else "amod")
            tags.append("DET" if token.lower_ in {"a", "the"} else "ADJ")
    return Doc(
        doc.vocab,
        words=[token.text for token in doc],
        spaces=[bool(token.whitespace_) for token in doc],
        heads=heads,
        deps=labels,
        pos=tags,
        sent_starts=[i == 0 for i in range(len(doc))],
    )


@pytest.fixture(scope="session")
def toy_parser():
    """A spaCy pipeline that knows a handful of nouns."""
    parser = spacy.blank("en")
    parser.add_pipe("toy_chunks")
    return parser


@pytest.fixture
def image():
    """A picture that is wider than high, every pixel random."""
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def chunk_at(caption, text, noun=None, *, nth=0):
    """The nth occurrence of a text as a chunk, whose noun is its last word."""
    starts = [i for i in range(len(caption)) if caption.startswith(text, i)]
    start = starts[nth]
    noun = noun or text.split()[-1]
    noun_start = start + text.rindex(noun)
    return Chunk(text, start, start + len(text), noun, noun_start, noun_start + len(noun))


@pytest.fixture(scope="session", name="chunk_at")
def chunk_at_fixture():
    return chunk_at
