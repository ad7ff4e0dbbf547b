"""The parser's recipe: trees turned over, sentences made up, training resumed, chunks found."""

import json
import random
from pathlib import Path

import pytest
import spacy
from recipe import chain, lexicon, parser
from recipe.chunk_scores import (
    as_doc,
    chunk_f1,
    phrase_spans,
    read_treebanks,
    score_parser,
    spans,
)
from recipe.noun_phrases import flatten
from recipe.sentences import Grammar, disguise
from recipe.treebanks import to_spacy
from recipe.trees import fragments, plain, read_conllu, read_folder, split_trees
from spacy.training import Example

from nbhelpers.chunks import noun_chunks

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "data" / "stickers" / "parser"
TREEBANKS = ROOT.parent / "shared" / "data" / "treebanks"
PHRASES = Path(__file__).parent / "phrases.json"
needs_treebanks = pytest.mark.skipif(
    not TREEBANKS.is_dir(), reason="needs the treebanks in ../shared/data"
)
BLANK = spacy.blank("en")
# The held-out lists of one kind each, and the one that mixes the kinds.
KINDS = [
    "verbs",
    "corners",
    "compounds",
    "measures",
    "captions",
    "fragments",
    "stickers",
    "owners",
]
MIXED = "blind kinds"


@pytest.fixture(scope="module")
def shipped():
    if not (SHIPPED / "meta.json").is_file():
        pytest.skip("needs the parser in data/stickers/parser; train it")
    return spacy.load(SHIPPED)


def tree(*rows):
    """A UD tree from rows of word, part of speech, head (from 1, 0: root) and label."""
    lines = []
    for number, row in enumerate(rows, 1):
        word, pos, head, dep = row.split()
        lines.append(f"{number}\t{word}\t_\t{pos}\t_\t_\t{head}\t{dep}\t_\t_")
    return next(read_conllu(lines))


def converted(*rows):
    """The converted tree as {word: (head's word, label)}, and its chunks."""
    new = to_spacy(tree(*rows))
    arcs = {
        word: ("" if head < 0 else new.words[head], dep)
        for word, head, dep in zip(new.words, new.heads, new.deps, strict=True)
    }
    return arcs, [chunk.text for chunk in as_doc(new, BLANK).noun_chunks]


# --- the traps of the conversion ---------------------------------------------------------------


def test_a_preposition_stands_over_its_noun():
    arcs, chunks = converted(
        "a DET 2 det", "dog NOUN 0 root", "with ADP 5 case", "the DET 5 det", "ball NOUN 2 nmod"
    )
    assert arcs["with"] == ("dog", "prep")
    assert arcs["ball"] == ("with", "pobj")
    assert chunks == ["a dog", "the ball"]


def test_a_chain_of_prepositions():
    arcs, chunks = converted(
        "dog NOUN 0 root", "out ADP 4 case", "of ADP 4 case", "reach NOUN 1 nmod"
    )
    assert (arcs["out"], arcs["of"]) == (("dog", "prep"), ("out", "prep"))
    assert arcs["reach"] == ("of", "pobj")
    assert chunks == ["dog", "reach"]


def test_a_word_before_the_preposition_stays_out_of_the_chunk():
    arcs, chunks = converted(
        "sits VERB 0 root", "only ADV 5 advmod", "in ADP 5 case", "the DET 5 det", "hut NOUN 1 obl"
    )
    assert arcs["only"] == ("in", "advmod")
    assert chunks == ["the hut"]


def test_the_possessive_stays_in_the_chunk():
    arcs, chunks = converted(
        "the DET 2 det", "cat NOUN 4 nmod:poss", "'s PART 2 case", "paw NOUN 0 root"
    )
    assert arcs["'s"] == ("cat", "case")
    assert arcs["cat"] == ("paw", "poss")
    assert chunks == ["the cat 's paw"]


def test_and_and_commas_hang_on_the_conjunct_before():
    arcs, chunks = converted(
        "cats NOUN 0 root", ", PUNCT 3 punct", "dogs NOUN 1 conj", "and CCONJ 6 cc",
        "big ADJ 6 amod", "cows NOUN 1 conj",
    )  # fmt: skip
    assert arcs[","] == ("cats", "punct")
    assert arcs["and"] == ("dogs", "cc")
    assert arcs["cows"] == ("dogs", "conj")
    assert chunks == ["cats", "dogs", "big cows"]


def test_be_heads_a_predicate_noun():
    arcs, chunks = converted(
        "This PRON 5 nsubj", "is AUX 5 cop", "not PART 5 advmod", "a DET 5 det", "toy NOUN 0 root",
        "today NOUN 5 obl:unmarked",
    )  # fmt: skip
    assert arcs["is"] == ("", "ROOT")
    assert arcs["This"] == ("is", "nsubj")
    assert arcs["not"] == ("is", "neg")
    assert arcs["toy"] == ("is", "attr")
    assert arcs["today"] == ("is", "npadvmod")
    assert chunks == ["This", "a toy"]


def test_be_heads_a_predicate_adjective_and_position():
    arcs, _ = converted("it PRON 4 nsubj", "is AUX 4 cop", "very ADV 4 advmod", "red ADJ 0 root")
    assert (arcs["red"], arcs["very"]) == (("is", "acomp"), ("red", "advmod"))
    arcs, chunks = converted(
        "cats NOUN 5 nsubj", "are AUX 5 cop", "on ADP 5 case", "the DET 5 det", "mat NOUN 0 root"
    )
    assert arcs["cats"] == ("are", "nsubj")
    assert arcs["on"] == ("are", "prep")
    assert arcs["mat"] == ("on", "pobj")
    assert chunks == ["cats", "the mat"]


def test_a_clause_joined_to_a_predicate_goes_to_be():
    arcs, _ = converted(
        "it PRON 4 nsubj", "is AUX 4 cop", "a DET 4 det", "toy NOUN 0 root", "and CCONJ 7 cc",
        "he PRON 7 nsubj", "plays VERB 4 conj",
    )  # fmt: skip
    assert arcs["plays"] == ("is", "conj")
    assert arcs["and"] == ("is", "cc")


def test_names_lean_on_their_last_word():
    arcs, chunks = converted(
        "Ann PROPN 4 nsubj", "M. PROPN 1 flat", "Lee PROPN 1 flat", "ran VERB 0 root"
    )
    assert arcs["Lee"] == ("ran", "nsubj")
    assert (arcs["Ann"], arcs["M."]) == (("Lee", "compound"), ("Lee", "compound"))
    assert chunks == ["Ann M. Lee"]


def test_a_number_behind_a_name_is_not_its_head():
    arcs, chunks = converted(
        "use VERB 0 root", "Adobe PROPN 1 obj", "Acrobat PROPN 2 flat", "4.0 NUM 2 flat"
    )
    assert arcs["Acrobat"] == ("use", "dobj")
    assert arcs["4.0"] == ("Acrobat", "nummod")
    assert chunks == ["Adobe Acrobat"]


def test_a_preposition_left_behind():
    arcs, chunks = converted(
        "which DET 2 det", "box NOUN 4 obl", "it PRON 4 nsubj", "sits VERB 0 root",
        "in ADP 2 case",
    )  # fmt: skip
    assert arcs["box"] == ("sits", "pobj")
    assert chunks == ["which box", "it"]


def test_adjuncts_without_a_preposition():
    arcs, chunks = converted(
        "President PROPN 2 nmod:desc", "Bush PROPN 3 nsubj", "spoke VERB 0 root",
        "last ADJ 5 amod", "week NOUN 3 obl:tmod",
    )  # fmt: skip
    assert arcs["President"] == ("Bush", "compound")
    assert arcs["week"] == ("spoke", "npadvmod")
    assert chunks == ["President Bush"]
    assert converted("round NOUN 2 nmod", "trip NOUN 0 root")[1] == ["round trip"]


def test_subjects_and_objects():
    arcs, chunks = converted(
        "dogs NOUN 3 nsubj:pass", "are AUX 3 aux:pass", "shown VERB 0 root", "him PRON 3 iobj",
        "toys NOUN 3 obj",
    )  # fmt: skip
    assert [arcs[w][1] for w in ("dogs", "are", "him", "toys")] == [
        "nsubjpass", "auxpass", "dative", "dobj",
    ]  # fmt: skip
    assert chunks == ["dogs", "him", "toys"]
    assert converted("it PRON 2 expl", "rains VERB 0 root")[1] == ["it"]
    assert converted("there PRON 2 expl", "is VERB 0 root")[1] == []


def test_phrases_side_by_side_are_chunks_of_their_own():
    assert converted("food NOUN 0 root", "great ADJ 3 amod", "service NOUN 1 parataxis")[1] == [
        "food", "great service",
    ]  # fmt: skip


def test_an_opening_quote_stays_out_of_the_chunk():
    arcs, chunks = converted("saw VERB 0 root", '" PUNCT 3 punct', "dogs NOUN 1 obj")
    assert arcs['"'] == ("saw", "punct")
    assert chunks == ["dogs"]


def test_torn_words_are_left_out():
    assert to_spacy(tree("with ADP 0 root", "out X 1 goeswith")) is None


# --- treebank files ----------------------------------------------------------------------------

SAMPLE = """\
# text = I don't.
1\tI\tI\tPRON\t_\t_\t3\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
2\tdo\tdo\tAUX\t_\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\t_\t_\t2\tadvmod\t_\t_
3.1\tgo\tgo\tVERB\t_\t_\t_\t_\t_\t_
4\t.\t.\tPUNCT\t_\t_\t2\tpunct\t_\t_
"""


def test_conllu_keeps_the_text():
    (only,) = read_conllu(SAMPLE.splitlines(keepends=True), source="sample")
    assert only.text == "I don't."
    assert only.words == ["I", "do", "n't", "."]
    assert only.source == "sample"
    with pytest.raises(ValueError, match="10 columns, got 2"):
        list(read_conllu(["1\tI"]))


def test_a_missing_treebank_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no treebank 'en_ewt-\*.conllu' in .*EWT, PUD"):
        read_folder(tmp_path, "en_ewt-*.conllu")


def test_plain_drops_case_and_punctuation():
    (only,) = read_conllu(SAMPLE.splitlines())
    assert plain(to_spacy(only)).text == "i don't"


def test_fragments_are_whole_phrases():
    sentence = to_spacy(tree(
        "saw VERB 0 root", "a DET 3 det", "dog NOUN 1 obj", "on ADP 6 case", "a DET 6 det",
        "mat NOUN 3 nmod",
    ))  # fmt: skip
    found = {f.text for f in fragments(sentence, random.Random(0), most=9)}
    assert found == {"a dog on a mat", "a mat"}


def test_the_same_sentences_are_held_out_every_time():
    trees = [tree(f"w{i} NOUN 0 root") for i in range(50)]
    train, aside = split_trees(trees, held_out=10)
    assert (len(train), len(aside)) == (40, 10)
    assert not {t.text for t in train} & {t.text for t in aside}
    assert [t.text for t in split_trees(trees, held_out=10)[1]] == [t.text for t in aside]


@needs_treebanks
def test_the_treebanks_convert_to_sound_trees():
    train, aside = read_treebanks(TREEBANKS)
    assert len(aside) >= 495
    assert len(train) > 8000
    assert not {plain(t).text for t in train} & {plain(t).text for t in aside}
    for one in random.Random(0).sample(train, 300) + aside[:100]:
        doc = as_doc(one, BLANK)  # spaCy refuses cycles
        assert sum(token.head == token for token in doc) == 1
        assert doc.text.strip() == one.text
        assert not any(":" in dep for dep in one.deps)
        for chunk in doc.noun_chunks:
            assert chunk[0].pos_ != "ADP" or len(chunk) == 1 or chunk[1].dep_ == "punct", chunk


# --- made-up sentences -------------------------------------------------------------------------


def test_made_up_trees_are_sound_and_projective():
    grammar = Grammar(3)
    for _ in range(300):
        made = grammar.sentence()
        doc = as_doc(made, BLANK)
        assert sum(token.head == token for token in doc) == 1
        tokens = [token.text for token in BLANK.make_doc(made.text)]
        assert tokens == made.words or len(tokens) != len(made.words)
        for token in doc:  # no arc crosses another
            between = range(min(token.i, token.head.i) + 1, max(token.i, token.head.i))
            low, high = min(token.i, token.head.i), max(token.i, token.head.i)
            assert all(low <= doc[i].head.i <= high for i in between), made.text


def test_made_up_sentences_come_from_the_seed():
    one, two, other = Grammar(5), Grammar(5), Grammar(6)
    texts = [one.sentence().text for _ in range(20)]
    assert texts == [two.sentence().text for _ in range(20)]
    assert texts != [other.sentence().text for _ in range(20)]


def test_disguised_words_keep_their_endings_and_trees():
    made = next(t for t in iter(Grammar(0).sentence, None) if "ing" in " ".join(t.words))
    hidden = disguise(made, random.Random(0), 1.0)
    assert (hidden.heads, hidden.deps, hidden.pos) == (made.heads, made.deps, made.pos)
    assert hidden.words != made.words
    for before, after, pos in zip(made.words, hidden.words, made.pos, strict=True):
        if pos == "VERB" and before.endswith("ing"):
            assert after.endswith("ing")
        if pos in {"DET", "ADP", "PRON"}:
            assert after == before


def test_the_lexicon_holds_no_word_kept_for_evaluation():
    kept = set(json.loads(PHRASES.read_text(encoding="utf-8"))["unseen_nouns"])
    words = {*lexicon.NOUNS, *lexicon.MASS, *lexicon.MATERIAL_NOUNS}
    words |= {lexicon.plural(noun) for noun in lexicon.NOUNS}
    assert not kept & {part for word in words for part in word.split()}
    assert len(kept) > 150


@pytest.mark.parametrize("maker", ["wearer", "corner"])
def test_a_made_up_thing_is_one_chunk_up_to_its_noun(maker):
    grammar = Grammar(4)
    for _ in range(50):
        made = flatten(getattr(grammar, maker)(0.5))
        (chunk,) = as_doc(made, BLANK).noun_chunks
        assert (chunk.start, chunk.end) == (0, len(made.words)), made.text


def test_a_position_in_front_stays_out_of_the_chunk_of_the_thing():
    """ "closest to us white ball": a white ball."""
    grammar, seen = Grammar(4), 0
    for _ in range(300):
        made = flatten(grammar.pointed())
        if made.words[1] not in {"to", "from", "on"} or made.heads[0] != -1:
            continue
        seen += 1
        thing = made.deps.index("appos")
        chunks = list(as_doc(made, BLANK).noun_chunks)
        assert all(chunk.start > 1 for chunk in chunks), made.text
        assert made.pos[thing] not in {"NOUN", "PRON"} or any(c.root.i == thing for c in chunks)
    assert seen > 50


def test_verbs_agree_with_irregular_plurals():
    grammar, seen = Grammar(4), 0
    for _ in range(6000):
        made = flatten(grammar.clause())
        root = made.heads.index(-1)
        children = {made.deps[i]: made.words[i] for i in made.children(root)}
        subject, verb = children.get("nsubj"), made.words[root]
        if subject in {"men", "women", "people", "children"} and made.pos[root] == "VERB":
            seen += 1
            assert verb.endswith("ss") or not verb.endswith("s"), made.text
    assert seen > 5


def test_no_held_out_phrase_is_made_up_in_training():
    data = json.loads(PHRASES.read_text(encoding="utf-8"))
    held = {row["text"].lower().rstrip(".") for kind in [*KINDS, MIXED] for row in data[kind]}
    for epoch in range(chain.FULL.parser):
        grammar = Grammar(epoch + 1)  # as `epoch_trees` counts for seed 0
        for _ in range(chain.FULL.sentences):
            text = grammar.sentence().text.lower().rstrip(".")
            assert not held & {text, text.partition(" of ")[2]}  # with an opening or without


# --- training ----------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A recipe small enough for a test: three sentences, a narrow network."""
    rows = [
        ("the DET 2 det", "dog NOUN 3 nsubj", "saw VERB 0 root", "him PRON 3 obj"),
        ("a DET 2 det", "cat NOUN 0 root", "on ADP 5 case", "the DET 5 det", "mat NOUN 2 nmod"),
    ]
    trees = [to_spacy(tree(*r)) for r in rows] * 20
    monkeypatch.setattr(parser, "read_treebanks", lambda folder: (trees, trees))
    narrow = json.loads(json.dumps(parser.CONFIG).replace(str(parser.WIDTH), "8"))
    narrow["tok2vec"]["embed"]["rows"] = [50, 20, 20, 20]
    monkeypatch.setattr(parser, "CONFIG", narrow)
    options = {"made_up": 20, "progress": False}
    return lambda name, **more: parser.train_parser(tmp_path, tmp_path / name, **options, **more)


def bytes_of(folder):
    names = ("tok2vec/model", "parser/model", "morphologizer/model")
    return [(folder / name).read_bytes() for name in names]


def test_a_run_broken_off_goes_on_as_if_it_were_not(small, tmp_path, monkeypatch):
    whole = small("whole", epochs=2)
    kept = parser.save_checkpoint

    def stop(*arguments):
        kept(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(parser, "save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        small("broken", epochs=2)
    assert not (tmp_path / "broken").exists()
    monkeypatch.setattr(parser, "save_checkpoint", kept)
    resumed = small("broken", epochs=2)
    assert resumed["words"] == whole["words"]
    assert bytes_of(tmp_path / "broken") == bytes_of(tmp_path / "whole")
    log = (tmp_path / "broken.run" / "parser.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [2]


def test_finished_work_is_not_done_again_but_another_seed_is(small, tmp_path, monkeypatch):
    first = small("one", epochs=1)
    before = bytes_of(tmp_path / "one")
    with monkeypatch.context() as patch:
        patch.setattr(parser, "new_pipeline", None)
        assert small("one", epochs=1) == first
    small("one", epochs=1, seed=1)
    assert bytes_of(tmp_path / "one") != before


def test_batches_hold_every_example_once():
    docs = [as_doc(Grammar(i).sentence(), BLANK) for i in range(30)]
    examples = [Example(doc, doc) for doc in docs]
    cut = list(parser.batches(examples, words=40))
    assert [e for batch in cut for e in batch] == examples
    assert all(sum(len(e.reference) for e in batch[:-1]) < 40 for batch in cut)


# --- what is shipped ---------------------------------------------------------------------------


def test_f1_counts_both_ends():
    gold = [{(0, 5), (9, 14)}, set()]
    assert chunk_f1(gold, gold) == 1
    assert chunk_f1(gold, [{(0, 5)}, {(1, 2)}]) == 2 * 1 / (2 + 2)
    assert chunk_f1(gold, [set(), set()]) == 0


def test_signs_at_the_ends_of_the_reference_do_not_count():
    applause = tree("( PUNCT 2 punct", "Applause NOUN 0 root", ") PUNCT 2 punct")
    doc = as_doc(to_spacy(applause), BLANK)
    assert [chunk.text for chunk in doc.noun_chunks] == ["( Applause"]
    assert spans(doc) == {(2, 10)}


def test_the_phrases_are_sound():
    data = json.loads(PHRASES.read_text(encoding="utf-8"))
    lists = {"phrases": 150, "blind": 60, **dict.fromkeys(KINDS, 25), MIXED: 70}
    assert all(len(data[name]) >= least for name, least in lists.items())
    rows = [row for name in lists for row in data[name]]
    assert len({row["text"].lower() for row in rows}) == len(rows)
    for row in rows:
        assert len(phrase_spans(row)) == len(row["chunks"])
        assert all(text.endswith(noun) for text, noun in row["chunks"])


def test_the_shipped_parser_on_hand_written_phrases(shipped):
    scores = score_parser(shipped, phrases=PHRASES, made_up=200)
    assert scores["phrases"] >= 0.98
    assert scores["blind"] >= 0.985
    assert scores["grammar"] >= 0.97


def test_the_shipped_parser_on_each_kind_of_phrase(shipped):
    scores = score_parser(shipped, phrases=PHRASES, made_up=0)
    floors = {"verbs": 0.93, "compounds": 0.90, "fragments": 0.95, MIXED: 0.95}
    low = {kind: scores[kind] for kind in [*KINDS, MIXED] if scores[kind] < floors.get(kind, 0.96)}
    assert not low


def test_fragments_are_read_behind_the_opening_of_a_prompt(shipped):
    data, before = json.loads(PHRASES.read_text(encoding="utf-8")), "a photograph of "
    rows = [row for kind in ("corners", "compounds", "fragments") for row in data[kind]]
    found = []
    for row in rows:
        chunks = noun_chunks(before + row["text"], shipped)
        spans = {(c.start - len(before), c.end - len(before)) for c in chunks}
        found.append({span for span in spans if span[0] >= 0})
    assert chunk_f1(map(phrase_spans, rows), found) >= 0.95


def test_the_head_nouns_on_hand_written_phrases(shipped):
    rows = json.loads(PHRASES.read_text(encoding="utf-8"))["phrases"]
    right = total = 0
    for row in rows:
        if row["chunks"]:
            found = {chunk.text: chunk.noun for chunk in noun_chunks(row["text"], shipped)}
            total += len(row["chunks"])
            right += sum(found.get(text) == noun for text, noun in row["chunks"])
    assert right / total >= 0.975


@needs_treebanks
def test_the_shipped_parser_on_held_out_sentences(shipped):
    scores = score_parser(shipped, treebanks=TREEBANKS, made_up=0)
    assert scores["treebank"] >= 0.88


def test_the_shipped_folder_is_small_and_plain(shipped):
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 6_500_000
    assert (shipped.meta["name"], shipped.meta["license"]) == ("stickers_parser", "CC BY-SA 4.0")
    assert shipped.pipe_names == ["tok2vec", "morphologizer", "parser"]
    doc = shipped("a striped red ring")
    assert [token.pos_ for token in doc] == ["DET", "ADJ", "ADJ", "NOUN"]
    assert spans(doc) == {(0, 18)}
