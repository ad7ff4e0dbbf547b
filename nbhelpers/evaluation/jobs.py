"""What is evaluated: a split of a dataset, one model, and several variants of the method."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from itertools import groupby, product
from pathlib import Path
from typing import Any, Literal

import nbhelpers
from nbhelpers.calibration import FILE, read_calibration
from nbhelpers.datasets import Broken, Coco, Expression, Referring, coco, referring
from nbhelpers.evaluation.batched import Question, Reader, count, one_thread
from nbhelpers.evaluation.classes import Drawn, digest, read_classes
from nbhelpers.evaluation.run import Evaluate, Item
from nbhelpers.family.reading import SOURCES as OF_SYSTEMS
from nbhelpers.family.reading import SystemReader, find_system, records_of
from nbhelpers.models import load_models
from nbhelpers.segment import SETTINGS, Settings
from nbhelpers.versions import version_of
from nbhelpers.weights import EMBEDDED, locate

FORMAT = 4  # of the settings and items of a run
ORDERS = ("alone", "1 of 2", "2 of 2", "1 of 3", "2 of 3", "3 of 3")
# On these the numbers depend; what draws and reports them doesn't matter.
SOURCES = (
    *("kernels/*.py", "errors.py", "weights.py", "calibration.py", "models.py", "datasets/*.py"),
    *("captions.py", "words.py", "display.py", "chunks.py", "embeddings.py", "tokens.py"),
    *("denoising.py", "attention.py", "scores.py", "completion.py", "masks.py", "settings.py"),
    *("segment.py", "evaluation/batched.py", "evaluation/classes.py", "metrics/classes.py"),
)
PACKAGES = ("torch", "diffusers", "transformers", "tokenizers", "spacy", "numpy", "pillow")
POSITION = re.compile(
    r"\b(left|right|top|bottom|upper|lower|middle|center|centre|front|back|behind|near\w*|next|"
    r"far|corner|side|above|below|under|between|first|second|third|last|edge|closest|end)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Job:
    """A run before it is run; what it has read of its data goes with it to other processes.

    Attributes:
        dataset: "stickers", "refcoco", "refcoco+" or "refcocog"; or, for classes, "coco".
        split: Such as "val".
        variants: Settings by name.
        system: A system of the family, by its name in `SYSTEMS`, instead of variants.
        root: The dataset's folder; None for the project's own.
        by: Whose splits.
        pictures: Only the first so many; all when None.
        prompts: "phrase", every expression alone; "first", one of each picture, the most telling
            of its first thing; "orders", the same in every order among the other things' phrases;
            "classes", the classes of each picture.
        model: As for `load_models`.
        revision: Likewise.
        parser: Likewise.
        device: Likewise.
    """

    dataset: str
    split: str
    variants: Mapping[str, Settings]
    root: str | None = None
    by: str | None = None
    pictures: int | None = None
    prompts: Literal["phrase", "first", "orders", "classes"] = "phrase"
    model: str = EMBEDDED
    revision: str | None = None
    parser: str | None = None
    device: str = "cpu"
    system: str | None = None

    @cached_property
    def data(self) -> Referring:
        """The split, read once."""
        return referring(self.dataset, self.split, self.root, self.by)

    @cached_property
    def scenes(self) -> Coco | Drawn:
        """The split as pictures whose every pixel has a class."""
        if self.dataset == EMBEDDED:
            return Drawn(self.data)
        if self.dataset != "coco" or self.root is None:
            raise ValueError(
                f"classes are those of {EMBEDDED}, or of coco with --root; got {self.dataset}"
            )
        return coco(self.root, self.split)

    @property
    def broken(self) -> tuple[Broken, ...]:
        """The records of the split that were left out, each with the reason."""
        return self.scenes.broken if self.prompts == "classes" else self.data.broken

    def items(self) -> list[dict[str, Any]]:
        """Returns what is to be done, picture by picture.

        Raises:
            OSError: The dataset isn't there.
            ValueError: It can't be used.
        """
        if self.prompts == "classes":
            return [
                {"id": str(number), "image": number}
                for number in self.scenes.image_ids[: self.pictures]
            ]
        expressions = sorted(self.data.expressions, key=lambda e: (e.image_id, e.id))
        pictures = [list(group) for _, group in groupby(expressions, lambda e: e.image_id)]
        chosen = pictures[: self.pictures]
        if self.prompts == "phrase":
            return [_item(e) for group in chosen for e in group]
        orders = ORDERS if self.prompts == "orders" else ORDERS[:1]
        return [item for group in chosen for item in _ordered(group, orders)]

    def settings(self) -> dict[str, Any]:
        """Returns all that the numbers depend on, as plain JSON; loads no weights.

        Raises:
            OSError: Data or model aren't there.
            ValueError: They can't be used.
        """
        source, commit = locate(self.model, self.revision, "model")
        data: Any = self.scenes if self.prompts == "classes" else self.data
        classes = {"classes": data.categories} if self.prompts == "classes" else {}
        known = {"name": self.model if commit or self.model == EMBEDDED else Path(source).name}
        return {
            "format": FORMAT,
            "dataset": {
                "name": self.dataset,
                "split": self.split,
                "splits_by": getattr(data, "splits_by", None),
                "sha256": digest(data) if self.prompts == "classes" else data.sha256(),
                "broken": len(self.broken),
                "pictures": self.pictures,
                **classes,
            },
            "prompts": self.prompts,
            "model": {
                **known,
                "revision": commit,
                "sha256": None if commit else folder_digest(source),
            },
            "calibration": calibration_of(source),
            "parser": self.parser,
            "device": self.device.partition(":")[0],
            "dtype": "float32" if self.device == "cpu" else "float16",
            "variants": self._variants(),
            "code": code_version(),
            "packages": {name: version_of(name) for name in PACKAGES},
        }

    def _variants(self) -> dict[str, dict[str, Any]]:
        """Returns what is read, by name, as plain JSON."""
        if self.system is None:
            return {name: as_json(asdict(s)) for name, s in self.variants.items()}
        system = find_system(self.system, self.prompts)
        return records_of(system, self.model, code_version(OF_SYSTEMS))

    def reader(self) -> Reader | SystemReader:
        """Loads the models, and what makes maps with them."""
        models = load_models(
            self.model, device=self.device, revision=self.revision, parser=self.parser
        )
        if self.system is not None:
            return SystemReader(models, find_system(self.system, self.prompts))
        return Reader(models, self.variants)

    def open(self) -> Evaluate:
        """Loads the models; what it returns makes the records of items.

        On a CPU one thread computes, since more would round otherwise: use more processes.
        """
        reader = self.reader()
        threads = one_thread() if self.device == "cpu" else lambda function: function
        if self.prompts == "classes":
            scenes = self.scenes
            return threads(
                lambda items: [
                    {"id": item["id"], "counts": read_classes(scenes, item["image"], reader)}
                    for item in items
                ]
            )
        data = self.data
        expressions = {e.id: e for e in data.expressions}
        pictures: dict[int, Any] = {}

        def evaluate(items: Sequence[Item]) -> list[dict[str, Any]]:
            """Returns the counts of each item."""
            wanted = {item["image"] for item in items}
            for number in pictures.keys() - wanted:
                del pictures[number]
            for number in wanted - pictures.keys():
                pictures[number] = data.image(number)
            truths = [data.mask(expressions[item["expression"]]) for item in items]
            questions = [
                Question(
                    pictures[item["image"]],
                    item["phrase"],
                    item.get("before", ""),
                    item.get("after", ""),
                )
                for item in items
            ]
            return [
                {"id": item["id"], "counts": count(maps, truth, reader.names)}
                for item, maps, truth in zip(items, reader.maps(questions), truths, strict=True)
            ]

        return threads(evaluate)


def variants_of(
    methods: Iterable[str], alphas: Iterable[float] = (), seeds: Iterable[int] = ()
) -> dict[str, Settings]:
    """Returns the settings of every method at every weight and from every seed, by name.

    Raises:
        ValueError: There is no such method.

    Example:
        >>> list(variants_of(["plain", "paper"], alphas=[0.3, 0.9]))
        ['plain alpha=0.3', 'plain alpha=0.9', 'paper alpha=0.3', 'paper alpha=0.9']
    """
    found = {}
    for method in methods:
        if method not in SETTINGS:
            raise ValueError(f"method is one of {', '.join(SETTINGS)}; got {method[:40]!r}")
        weights: list[float | None] = [*alphas] or [None]
        noises: list[int | None] = [*seeds] or [None]
        for alpha, seed in product(weights, noises):
            changes = {"alpha": alpha, "seed": seed}
            given: dict[str, Any] = {k: v for k, v in changes.items() if v is not None}
            name = " ".join([method, *(f"{key}={value:g}" for key, value in given.items())])
            found[name] = replace(SETTINGS[method], **given)
    return found


def kind_of(phrase: str, category: str) -> Literal["position", "noun", "attribute"]:
    """Returns what a phrase tells its thing by: its position, its noun alone, or anything else.

    A rule of words, so that any dataset can be parted the same way: some "left" is a verb.

    Example:
        >>> [kind_of(p, "fish") for p in ("fish on the left", "a fish", "the red fish")]
        ['position', 'noun', 'attribute']
    """
    if POSITION.search(phrase):
        return "position"
    words = set(re.findall(r"\w+", phrase.lower())) - {"a", "an", "the"}
    return "noun" if len(words) <= 1 or words <= set(category.lower().split()) else "attribute"


def code_version(sources: Iterable[str] = SOURCES) -> str:
    """Returns the SHA-256 of the sources that the numbers depend on."""
    folder = Path(nbhelpers.__file__).parent
    total = hashlib.sha256()
    for path in [path for pattern in sources for path in sorted(folder.glob(pattern))]:
        total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def settings_as_now(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's settings by the names of today, whatever their format.

    Format 1, which has no number, called three things otherwise. What was gathered isn't told
    before format 3. Before format 4, an order of the target's phrase was a place.
    """
    now = dict(settings)
    if "format" not in now:
        then = {"keys": "softmax_over", "caption": "prompt_from"}
        now = _renamed(now, {"reading": "calibration"}) | {"format": 1}
        now["variants"] = {name: _renamed(one, then) for name, one in now["variants"].items()}
    if now["prompts"] == "places":
        now["prompts"] = "orders"
    return now


def item_as_now(item: Item) -> dict[str, Any]:
    """Returns a run's item likewise."""
    return _renamed(item, {"place": "order"})


def _renamed(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Returns a record with some keys renamed, in the same order."""
    return {names.get(key, key): value for key, value in record.items()}


def _item(e: Expression) -> dict[str, Any]:
    """Returns an expression, read alone."""
    return {
        "id": str(e.id),
        "expression": e.id,
        "image": e.image_id,
        "phrase": e.text,
        "category": e.category,
        "kind": kind_of(e.text, e.category),
    }


def _ordered(group: Sequence[Expression], orders: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the first thing of a picture in these orders among its other things' phrases."""
    by_kind = sorted(group, key=lambda e: (kind_of(e.text, e.category) != "attribute", e.id))
    things = {e.annotation_id: e for e in reversed(by_kind)}  # its first, most telling phrase
    target, *others = (things[number] for number in sorted(things))
    items = []
    for order in orders:
        count = 1 if order == "alone" else int(order[-1])
        if count > len(things):
            continue
        first = 0 if order == "alone" else int(order[0]) - 1
        phrases = [e.text for e in others[: count - 1]]
        before = "".join(f"{phrase} and " for phrase in phrases[:first])
        after = "".join(f" and {phrase}" for phrase in phrases[first:])
        words = {"before": before, "after": after, "order": order}
        items.append({**_item(target), "id": f"{target.id} {order}", **words})
    return items


def as_json(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings as JSON has them: names of weights are text, tuples are lists."""
    weights = record["weights"]
    if isinstance(weights, Mapping):
        weights = {str(factor): weight for factor, weight in weights.items()}
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in record.items()}
    return {**plain, "weights": weights}


def calibration_of(source: str) -> dict[str, Any]:
    """Returns what a model's calibration has that changes a number; how it was found doesn't."""
    found = read_calibration(Path(source)).record()
    del found["chosen"]
    return found


def folder_digest(folder: str) -> str:
    """Returns the SHA-256 of a model's folder, its calibration left out."""
    found = sorted(p for p in Path(folder).rglob("*") if p.is_file() and p.name != FILE)
    stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in found)
    return _digest_of(folder, stamps)


@cache  # gigabytes are read once, and again when a file is another
def _digest_of(folder: str, stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Returns the SHA-256 of files, their names in the folder included."""
    total = hashlib.sha256()
    for path, _, _ in stamps:
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
