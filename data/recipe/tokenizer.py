"""CLIP's tokenizer with a vocabulary of its own: byte-pair merges learned from the captions.

Merges are few on purpose: the commonest words become one token, the rarer stay two or three, as
in CLIP. The end token has the largest id and pads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

MERGES = 170
TOKENS = 32


def train_tokenizer(captions: Iterable[str], folder: Path) -> CLIPTokenizer:
    """Learn byte-pair merges from captions; write `vocab.json` and `merges.txt`; load them.

    The vocabulary has CLIP's layout: 256 bytes, 256 bytes that end a word, one token a merge,
    the start token, the end token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + MERGES,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    merges = json.loads(learner.to_str())["model"]["merges"][:MERGES]
    words = alphabet + [f"{letter}</w>" for letter in alphabet]
    words += ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink(missing_ok=True)  # it would be taken for these two
    tokenizer = CLIPTokenizer.from_pretrained(
        folder,
        revision=None,
        use_safetensors=True,
        trust_remote_code=False,
        model_max_length=TOKENS,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
