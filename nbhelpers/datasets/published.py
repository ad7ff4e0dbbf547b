"""Facts about the public sets: their splits, their files, where these are to be had."""

from dataclasses import dataclass

from nbhelpers.weights import EMBEDDED, refuse_replaced

# References and expressions of each split. RefCOCO: Yu et al. 2016 (arXiv 1608.00272), with the
# splits of UNC; RefCOCOg: Mao et al. 2016, with the splits of UMD (Nagaraja et al. 2016). None:
# no published figure.
SPLITS: dict[tuple[str, str], dict[str, tuple[int | None, int | None]]] = {
    (EMBEDDED, EMBEDDED): {"val": (None, None), "testA": (None, None), "testB": (None, None)},
    ("refcoco", "unc"): {
        "train": (42_404, 120_624),
        "val": (3_811, 10_834),
        "testA": (1_975, 5_657),
        "testB": (1_810, 5_095),
    },
    ("refcoco", "google"): {"train": (40_000, None), "val": (5_000, None), "test": (5_000, None)},
    ("refcoco+", "unc"): {
        "train": (42_278, 120_191),
        "val": (3_805, 10_758),
        "testA": (1_975, 5_726),
        "testB": (1_798, 4_889),
    },
    ("refcocog", "umd"): {
        "train": (42_226, 80_512),
        "val": (2_573, 4_896),
        "test": (5_023, 9_602),
    },
    ("refcocog", "google"): {"train": (None, None), "val": (5_000, None)},
}
# Rows of a mirror's "val" that holds Google's 5,000 as well.
MERGED = {"refcoco": 8_811, "refcocog": 7_573}
GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # numbers of COCO's classes that are not used
_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire
hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports
ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine
glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot
dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock,
vase, scissors, teddy bear, hair drier, toothbrush
"""
_NUMBERS = (number for number in range(1, 91) if number not in GAPS)
COCO_CLASSES = dict(zip(_NUMBERS, " ".join(_NAMES.split()).split(", "), strict=True))
PICTURES = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}


@dataclass(frozen=True)
class Source:
    """An archive: its name, the official address, and where copies are when that is gone."""

    archive: str
    link: str
    copies: str


def _unc(name: str, mirror: str) -> Source:
    """Returns the source of a referring set."""
    link = f"https://bvisionweb1.cs.unc.edu/licheng/referit/data/{name}.zip"
    rows = f"the rows of jxu124/{mirror} on the Hugging Face Hub, saved as SPLIT.jsonl"
    return Source(f"{name}.zip", link, f"the Internet Archive's copy of the link; or {rows}")


def _coco(folder: str, archive: str) -> Source:
    """Returns the source of an archive of COCO."""
    host = "images.cocodataset.org"
    copies = f"the same file behind https://s3.amazonaws.com/{host}/{folder}/"
    return Source(archive, f"http://{host}/{folder}/{archive}", copies)


SOURCES = {
    "refcoco": _unc("refcoco", "refcoco"),
    "refcoco+": _unc("refcoco+", "refcocoplus"),
    "refcocog": _unc("refcocog", "refcocog"),
    **{split: _coco("zips", f"{split}.zip") for split in PICTURES},
    "annotations2014": _coco("annotations", "annotations_trainval2014.zip"),
    "annotations2017": _coco("annotations", "annotations_trainval2017.zip"),
}


def splits_of(name: str, by: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Returns whose splits a set has, and which.

    Args:
        name: "stickers", "refcoco", "refcoco+" or "refcocog".
        by: The maker, where there are several; the usual one when None.

    Raises:
        ValueError: There is no such set, or it wasn't split by them; the message says what is.

    Example:
        >>> splits_of("refcocog")
        ('umd', ('train', 'val', 'test'))
    """
    refuse_replaced(name)
    known = [maker for one, maker in SPLITS if one == name]
    if not known:
        names = ", ".join(dict.fromkeys(one for one, _ in SPLITS))
        raise ValueError(f"there is no referring set {name!r:.80}; there are {names}")
    maker = known[0] if by is None else by
    if maker not in known:
        raise ValueError(f"{name} has no splits by {maker!r:.80}; it has {', '.join(known)}")
    return maker, tuple(SPLITS[name, maker])
