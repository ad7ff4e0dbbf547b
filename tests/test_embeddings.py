"""Spans with CLIP's own vocabulary; equations 3 and 4 against a CLIP in float64."""

import copy
import dataclasses
import inspect
import unicodedata

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbhelpers.embeddings import embed, encode_tokens
from nbhelpers.tokens import find_spans, tokenize

CAPTION = "a photograph of a striped red ring and a blue moon near the cat"
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["text", "clip_text"])
def any_text(request):
    """A vocabulary of a few words, and CLIP's own."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def chunks(chunk_at):
    return tuple(chunk_at(CAPTION, t) for t in ("a striped red ring", "a blue moon", "the cat"))


def clip_in_float64(encoder, ids, allowed):
    """CLIP's text model from its description: the hidden states of all layers, and the last."""
    weights = {k.removeprefix("text_model."): v.double() for k, v in encoder.state_dict().items()}
    config = encoder.config

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        centered = x - x.mean(-1, keepdim=True)
        scaled = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["embeddings.token_embedding.weight"][ids]
    x = x + weights["embeddings.position_embedding.weight"]
    hidden = [x]
    size = config.hidden_size // config.num_attention_heads
    for i in range(config.num_hidden_layers):
        layer = f"encoder.layers.{i}"
        y = norm(f"{layer}.layer_norm1", x)
        mixed = []
        for head in range(config.num_attention_heads):
            part = slice(head * size, (head + 1) * size)
            q, k, v = (linear(f"{layer}.self_attn.{p}_proj", y)[:, part] for p in "qkv")
            logits = (q @ k.T / size**0.5).masked_fill(~allowed, -torch.inf)
            mixed.append(logits.softmax(-1) @ v)
        x = x + linear(f"{layer}.self_attn.out_proj", torch.cat(mixed, -1))
        y = linear(f"{layer}.mlp.fc1", norm(f"{layer}.layer_norm2", x))
        if config.hidden_act == "quick_gelu":
            y = y * (1.702 * y).sigmoid()
        else:
            y = y * (1 + (y / 2**0.5).erf()) / 2
        x = x + linear(f"{layer}.mlp.fc2", y)
        hidden.append(x)
    return hidden, norm("final_layer_norm", x)


def encoded(text, caption, allowed=None):
    """E of a caption by the float64 CLIP, with the tokenizer's own framing; and its tokens."""
    ids = text.tokenizers[0](
        caption, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids[0]
    causal = torch.ones(77, 77, dtype=torch.bool).tril()
    causal = causal if allowed is None else causal & allowed
    return clip_in_float64(text.encoders[0], ids, causal)[1], ids


def assert_close(found, wanted, unlike):
    """Equal within a tolerance that is far smaller than what would be wrong."""
    assert (wanted.double() - unlike.double()).abs().max() > 8 * TOLERANCE
    assert (found.double() - wanted.double()).abs().max() < TOLERANCE


def test_the_plain_prompt_is_the_pipelines_own_encoding(text):
    ids = text.tokenizers[0](
        CAPTION, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    prompt = embed(CAPTION, (), text, isolate="none")
    assert torch.equal(prompt.keys, text.encoders[0](ids).last_hidden_state)
    assert prompt.values is prompt.keys
    assert prompt.extra is None


@pytest.mark.parametrize("target", [0, 1, 2])
def test_equation_3_puts_the_chunk_encoded_alone_at_its_positions(text, chunks, target):
    prompt = embed(CAPTION, chunks, text, target=target, isolate="target")
    wanted, _ = encoded(text, CAPTION)
    plain = wanted.clone()
    alone, ids = encoded(text, chunks[target].text)
    count = int((ids == text.tokenizers[0].eos_token_id).int().argmax()) - 1
    position = int(prompt.spans.chunks[target][0])
    wanted[position : position + count] = alone[1 : 1 + count]
    assert len(prompt.spans.chunks[target]) == count
    assert_close(prompt.keys[0], wanted, plain)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_masking_lets_a_chunk_see_the_start_and_itself(text, chunks, target, implementation):
    encoder = copy.deepcopy(text.encoders[0])
    encoder.set_attn_implementation(implementation)
    text = dataclasses.replace(text, encoders=(encoder,))
    prompt = embed(CAPTION, chunks, text, target=target, isolate="target", by="masking")
    wanted, _ = encoded(text, CAPTION)
    plain = wanted.clone()
    span = list(prompt.spans.chunks[target])
    seen = torch.zeros(77, dtype=torch.bool)
    seen[[0, *span]] = True
    wanted[span] = encoded(text, CAPTION, seen[None, :])[0][span]
    assert_close(prompt.keys[0], wanted, plain)


def test_masking_and_encoding_agree_where_the_chunk_comes_first(text, chunk_at):
    caption = "a red ring and a blue moon"
    ring = (chunk_at(caption, "a red ring"),)
    by = [embed(caption, ring, text, target=0, by=by).keys for by in ("encoding", "masking")]
    assert torch.allclose(*by, atol=1e-5)


@pytest.mark.parametrize(
    ("isolate", "changed"),
    [("none", set()), ("target", {1}), ("others", {0, 2}), ("every", {0, 1, 2})],
)
@pytest.mark.parametrize("by", ["encoding", "masking"])
def test_isolate_says_which_chunks_change(text, chunks, isolate, changed, by):
    plain = embed(CAPTION, chunks, text, isolate="none").keys[0]
    prompt = embed(CAPTION, chunks, text, target=1, isolate=isolate, by=by)
    rows = set((prompt.keys[0] != plain).any(dim=1).nonzero()[:, 0].tolist())
    assert rows == {i for chunk in changed for i in prompt.spans.chunks[chunk]}


def test_without_a_target_every_chunk_is_the_target_of_its_own_map(text, chunks):
    all_targets = embed(CAPTION, chunks, text, isolate="target").keys
    assert torch.equal(all_targets, embed(CAPTION, chunks, text, isolate="every").keys)
    assert not torch.equal(all_targets, embed(CAPTION, chunks, text, isolate="none").keys)
    with pytest.raises(ValueError, match="needs a target"):
        embed(CAPTION, chunks, text, isolate="others")


@pytest.mark.parametrize("kind", ["text", "text_21"])
@pytest.mark.parametrize("tail", ["empty", "empty-eos", "empty-padding"])
def test_the_tail_comes_from_the_empty_prompt(kind, request, chunks, tail):
    """Whatever a model pads with: Stable Diffusion 1 with the end token, 2 with "!"."""
    text = request.getfixturevalue(kind)
    padding = text.tokenizers[0].pad_token_id
    assert (padding == text.tokenizers[0].eos_token_id) == (kind == "text")
    prompt = embed(CAPTION, chunks, text, isolate="none", tail=tail)
    wanted, ids = encoded(text, CAPTION)
    plain = wanted.clone()
    end = int((ids == text.tokenizers[0].eos_token_id).int().argmax())
    positions = {"empty": range(end, 77), "empty-eos": [end], "empty-padding": range(end + 1, 77)}
    positions = list(positions[tail])
    wanted[positions] = encoded(text, "")[0][positions]
    assert prompt.spans.end == end
    assert_close(prompt.keys[0], wanted, plain)


@pytest.mark.parametrize("isolate", ["none", "target"])
@pytest.mark.parametrize("unconditional", ["row", "pooled"])
@settings(max_examples=10, deadline=None)
@given(alpha=st.floats(0, 2, exclude_max=False).filter(lambda a: abs(a - 1) > 0.05))
def test_equation_4_mixes_in_no_words_at_all(text, chunk_at, isolate, unconditional, alpha):
    caption = "a photograph of a striped unicyclist and a moon"
    chunks = (chunk_at(caption, "a striped unicyclist"), chunk_at(caption, "a moon"))
    prompt = embed(
        caption, chunks, text, target=0, isolate=isolate, alpha=alpha, unconditional=unconditional
    )
    noun = list(prompt.spans[0])
    assert len(noun) > 1  # a word of several tokens
    before = embed(caption, chunks, text, target=0, isolate=isolate).keys[0].double()
    empty = encoded(text, "")[0]
    nothing = empty[1] if unconditional == "pooled" else empty[noun]
    wanted = before.clone()
    wanted[noun] = alpha * before[noun] + (1 - alpha) * nothing
    assert_close(prompt.keys[0], wanted, before)


def without_the_noun(text, caption, noun):
    """The float64 CLIP's embedding of a caption in which nothing attends to the noun."""
    seen = torch.ones(77, dtype=torch.bool)
    seen[list(noun)] = False
    return encoded(text, caption, seen[None, :])[0]


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("target", [1, None])
def test_compels_weight_blends_with_the_prompt_whose_noun_is_hidden(text, chunks, target, alpha):
    prompt = embed(
        CAPTION, chunks, text, target=target, isolate="none", alpha=alpha, unconditional="masked"
    )
    nouns = prompt.spans.nouns if target is None else [prompt.spans[target]]
    t = torch.tensor((1 - max(alpha, 1e-9)) * torch.pi / 2, dtype=torch.float64).tan()
    plain = encoded(text, CAPTION)[0]
    wanted = plain + t * sum(without_the_noun(text, CAPTION, noun) for noun in nouns)
    wanted = wanted / (1 + len(nouns) * t)
    empty = encoded(text, "")[0]
    for noun in nouns:
        wanted[list(noun)] = alpha * wanted[list(noun)] + (1 - alpha) * empty[list(noun)]
    assert_close(prompt.keys[0], wanted, plain)
    assert (prompt.keys[0, prompt.spans.end :] - plain[prompt.spans.end :]).abs().max() > 0.01


@pytest.mark.parametrize("by", ["encoding", "masking"])
def test_compels_weight_hides_the_noun_in_an_isolated_chunk_too(text, chunks, by):
    edits = {"target": 0, "isolate": "target", "by": by}
    found = embed(CAPTION, chunks, text, alpha=0.6, unconditional="masked", **edits)
    positions, (noun,) = list(found.spans.chunks[0]), found.spans[0]

    def isolated(hidden):
        """E with R in it, and nothing that attends to the positions in `hidden`."""
        seen = torch.ones(77, dtype=torch.bool)
        seen[hidden] = False
        whole = encoded(text, CAPTION, seen[None, :])[0]
        if by == "encoding":
            alone = torch.ones(77, dtype=torch.bool)
            alone[[positions.index(i) + 1 for i in hidden]] = False
            rows = encoded(text, chunks[0].text, alone[None, :])[0][1 : len(positions) + 1]
        else:
            alone = torch.zeros(77, dtype=torch.bool)
            alone[[0, *(i for i in positions if i not in hidden)]] = True
            rows = encoded(text, CAPTION, alone[None, :])[0][positions]
        whole[positions] = rows
        return whole

    t = torch.tensor(0.4 * torch.pi / 2, dtype=torch.float64).tan()
    wanted = (isolated([]) + t * isolated([noun])) / (1 + t)
    wanted[noun] = 0.6 * wanted[noun] + 0.4 * encoded(text, "")[0][noun]
    assert_close(found.keys[0], wanted, isolated([]))


@pytest.mark.parametrize("alpha", [1.0, 1.21, 1.6])
def test_from_1_on_compels_weight_is_equation_4(text, chunks, alpha):
    row, masked = (
        embed(CAPTION, chunks, text, target=1, alpha=alpha, unconditional=u).keys
        for u in ("row", "masked")
    )
    assert torch.equal(row, masked)


def test_alpha_1_changes_nothing_and_no_target_weights_every_noun(text, chunks):
    plain = embed(CAPTION, chunks, text, isolate="none").keys
    assert torch.equal(embed(CAPTION, chunks, text, isolate="none", alpha=1.0).keys, plain)
    prompt = embed(CAPTION, chunks, text, isolate="none", alpha=0.9)
    rows = set((prompt.keys[0] != plain[0]).any(dim=1).nonzero()[:, 0].tolist())
    assert rows == {i for noun in prompt.spans.nouns for i in noun}


@pytest.mark.parametrize("into", ["keys", "values", "both"])
def test_into_says_what_the_change_is_used_for(text, chunks, into):
    plain = embed(CAPTION, chunks, text, isolate="none").keys
    edited = embed(CAPTION, chunks, text, isolate="every", tail="empty").keys
    prompt = embed(CAPTION, chunks, text, isolate="every", tail="empty", into=into)
    assert torch.equal(prompt.keys, plain if into == "values" else edited)
    assert torch.equal(prompt.values, plain if into == "keys" else edited)
    assert (prompt.keys is prompt.values) == (into == "both")


def test_xl_joins_the_last_states_but_one_of_two_encoders(text_xl, chunk_at):
    caption = "a photograph of the red ring"
    chunks = (chunk_at(caption, "the red ring"),)
    prompt = embed(caption, chunks, text_xl, isolate="none")
    causal = torch.ones(77, 77, dtype=torch.bool).tril()
    end = text_xl.tokenizers[0].eos_token_id
    states = []
    for tokenizer, encoder in zip(text_xl.tokenizers, text_xl.encoders, strict=True):
        ids = tokenizer(caption, padding="max_length", max_length=77).input_ids
        hidden, last = clip_in_float64(encoder, torch.tensor(ids), causal)
        states.append(hidden[-2])
    pooled = last[ids.index(end)] @ encoder.text_projection.weight.double().T
    assert ids[-1] != end  # the second tokenizer pads with "!"
    wanted = torch.cat(states, dim=-1)
    assert_close(prompt.keys[0], wanted, wanted.flip(-1))
    assert_close(prompt.extra["text_embeds"][0], pooled, pooled.flip(-1))

    sealed = embed(caption, chunks, text_xl, isolate="every", tail="empty", alpha=0.9, target=0)
    assert sealed.keys.shape == (1, 77, 64)
    assert torch.equal(sealed.extra["text_embeds"], prompt.extra["text_embeds"])
    rows = (sealed.keys != prompt.keys)[0].any(dim=1).nonzero()[:, 0].tolist()
    assert rows == [*sealed.spans.chunks[0], *range(sealed.spans.end, 77)]


# What a word of the caption is made of in CLIP's vocabulary; "_" stands for the end of a word.
SPANS = [
    ("a photograph of a red ring", "ring", 0, ["ring_"]),
    ("a photograph of the unicyclist", "unicyclist", 0, ["unic", "y", "cli", "st_"]),
    ("a red ring and a blue ring", "ring", 1, ["ring_"]),
    ("the ring,the moon!", "moon", 0, ["moon_"]),
    ("the dog's tail", "dog", 0, ["dog_"]),
    ("the dog's tail", "tail", 0, ["tail_"]),
    ("a 'ring', again", "ring", 0, ["ring_"]),
    ("A RED Ring", "Ring", 0, ["ring_"]),
    ("a  red \t ring", "ring", 0, ["ring_"]),
    ("a t-shirt", "t-shirt", 0, ["t_", "-_", "shirt_"]),
    ("a 1960s car", "car", 0, ["car_"]),
    ("a white café", "café", 0, ["café_"]),
]


@pytest.mark.parametrize(("caption", "noun", "nth", "tokens"), SPANS)
def test_spans_find_the_tokens_of_the_noun(clip_text, chunk_at, caption, noun, nth, tokens):
    chunk = chunk_at(caption, noun, nth=nth)
    (span,) = find_spans(caption, (chunk,), clip_text).nouns
    ids = [tokenize(caption, clip_text)[i - 1] for i in span]
    shown = clip_text.tokenizers[0].convert_ids_to_tokens(ids)
    shown = [
        token.encode("latin-1", "ignore").decode("utf-8", "ignore") or token for token in shown
    ]
    assert [token.replace("</w>", "_") for token in shown] == tokens


def test_signs_beside_a_noun_are_no_part_of_it(any_text, chunk_at):
    caption = 'a "moon",ring!(dog) t-moon-hat'
    nouns = (("moon", 0), ("ring", 0), ("dog", 0), ("moon", 1), ("hat", 0))
    chunks = [chunk_at(caption, noun, nth=nth) for noun, nth in nouns]
    tokens = tokenize(caption, any_text)
    for span, (noun, _) in zip(find_spans(caption, chunks, any_text).nouns, nouns, strict=True):
        assert spelled(any_text, [tokens[i - 1] for i in span]).replace("</w>", "") == noun


def spelled(text, ids):
    """The words that some tokens spell, byte by byte."""
    return text.tokenizers[0].backend_tokenizer.decoder.decode(
        text.tokenizers[0].convert_ids_to_tokens(list(ids))
    )


WORDS = [
    "ring",
    "Überraschung",
    "naïve",
    "xylophonist",
    "42",
    "日本",
    "شمس",
    "🐶",
    "👩‍🚀",
    "İzmir",
    "o'clock",
]


@settings(max_examples=40, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=8), data=st.data())
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_spans_spell_the_noun_wherever_it_stands(any_text, chunk_at, words, data, form):
    words = [unicodedata.normalize(form, word) for word in words]
    index = data.draw(st.integers(0, len(words) - 1))
    caption = " ".join(words)
    nth = sum(word == words[index] for word in words[:index])
    chunk = chunk_at(caption, words[index], words[index], nth=nth)
    spans = find_spans(caption, (chunk,), any_text)
    (span,) = spans.nouns
    ids = [tokenize(caption, any_text)[i - 1] for i in span]
    wanted = unicodedata.normalize("NFC", words[index]).lower()
    assert spelled(any_text, ids).replace("</w>", "") == wanted
    assert span == tuple(range(span[0], span[0] + len(span)))
    assert spans.words == tuple(range(1, spans.end))


def test_composed_and_decomposed_accents_give_the_same_tokens(any_text, chunk_at):
    found = []
    for form in ("NFC", "NFD"):
        caption = unicodedata.normalize(form, "a señor in a white café")
        noun = unicodedata.normalize(form, "café")
        spans = find_spans(caption, (chunk_at(caption, noun),), any_text)
        found.append((tokenize(caption, any_text), spans))
    assert found[0] == found[1]


def test_a_chunk_beyond_77_tokens_is_named(any_text, chunk_at):
    caption = "a red ring and " + "very " * 80 + "old moon"
    ring = chunk_at(caption, "a red ring")
    assert embed(caption, (ring,), any_text).spans.words == tuple(range(1, 76))
    assert embed(caption, (ring,), any_text).keys.shape == (1, 77, 32)
    with pytest.raises(ValueError, match=r"'old moon' is cut off: .* token 86 of 86, .* reads 75"):
        embed(caption, (ring, chunk_at(caption, "old moon")), any_text)


@pytest.mark.parametrize(("words", "fits"), [(75, True), (76, False), (498, False)])
def test_the_last_word_that_fits(any_text, chunk_at, words, fits):
    caption = " ".join(["very"] * (words - 1) + ["moon"])
    moon = (chunk_at(caption, "moon"),)
    if fits:
        assert embed(caption, moon, any_text).spans.nouns == ((75,),)
    else:
        with pytest.raises(ValueError, match=f"token {words} of {words}"):
            embed(caption, moon, any_text)


def test_the_empty_prompt_has_an_end_and_no_words(any_text):
    prompt = embed("", (), any_text)
    assert prompt.spans.words == ()
    assert prompt.spans.end == 1
    assert torch.equal(embed("", (), any_text, tail="empty").keys, prompt.keys)


def test_rows_are_encoded_independently(text):
    rows = [tokenize("a red ring", text), tokenize("the moon", text)]
    both, _ = encode_tokens(rows, text)
    for row, single in zip(rows, both, strict=True):
        assert torch.allclose(encode_tokens([row], text)[0][0], single, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": -0.1}, r"\[0, 2\].*-0.1"),
        ({"alpha": 2.1}, r"\[0, 2\].*2.1"),
        ({"alpha": float("nan")}, r"\[0, 2\].*nan"),
        ({"alpha": float("inf")}, r"\[0, 2\].*inf"),
        ({"target": 3}, "one of 3 chunks; got 3"),
        ({"target": -1}, "one of 3 chunks; got -1"),
    ],
)
def test_what_cannot_be_embedded_is_refused(text, chunks, change, message):
    with pytest.raises(ValueError, match=message):
        embed(CAPTION, chunks, text, **change)


@pytest.mark.parametrize("name", ["isolate", "by", "tail", "unconditional", "into"])
def test_an_unknown_setting_is_refused(text, chunks, name):
    # Unchecked, as a caller without the shape checks would reach it.
    with pytest.raises(ValueError, match=f"{name} is one of .*; got 'all'"):
        inspect.unwrap(embed)(CAPTION, chunks, text, **{name: "all"})


def test_a_chunk_of_another_caption_is_refused(text, chunks):
    with pytest.raises(ValueError, match="'a striped red ring' isn't at characters 16 to 34"):
        embed("the moon and a ring and a cat and a dog", chunks, text)


def test_a_special_token_in_the_caption_is_refused(any_text, chunk_at):
    caption = "a ring <|endoftext|> a moon"
    with pytest.raises(ValueError, match=r"holds '<\|endoftext\|>'"):
        embed(caption, (chunk_at(caption, "a ring"),), any_text)
