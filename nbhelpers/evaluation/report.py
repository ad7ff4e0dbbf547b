"""What came of a run, in integers and exact sums: the same bytes however it was run."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nbhelpers.evaluation.parts import Record, canonical, write_whole
from nbhelpers.evaluation.store import Store


def write_report(store: Store) -> dict[str, Any]:
    """Join a run's parts and write ``report.json`` beside them.

    Args:
        store: A run of which every item has a record.

    Returns:
        What was written: the settings; how many items, and which ended in an error; the SHA-256
        of all records in the items' order; and for every variant, at each threshold, the sums of
        the intersections and unions in pixels (their ratio is oIoU) and the mean over items of
        their IoU. Sums of floats are exact (`math.fsum`) and taken in the items' order, so that
        the bytes depend on the records alone.

    Raises:
        ValueError: Items are missing, or the store is damaged.
    """
    results = store.results()
    missing = [name for name in store.ids if name not in results]
    if missing:
        raise ValueError(
            f"{store.folder} is not complete: {len(missing)} of {len(store.ids)} items are "
            f"missing ({', '.join(missing[:3])}, ...); run the same command again"
        )
    records = [results[name] for name in store.ids]
    good = [record for record in records if "error" not in record]
    digest = hashlib.sha256()
    for record in records:
        digest.update(canonical(record) + b"\n")
    report = {
        "settings": store.manifest["settings"],
        "fingerprint": store.fingerprint,
        "items": len(records),
        "errors": {r["id"]: r["error"] for r in records if "error" in r},
        "records": digest.hexdigest(),
        "variants": summarize(good),
    }
    write_whole(store.folder / "report.json", canonical(report) + b"\n")
    return report


def summarize(records: Sequence[Record]) -> dict[str, dict[str, list[Any]]]:
    """Sums and means of every variant at each threshold."""
    if not records:
        return {}
    found = {}
    for variant in sorted(records[0]["counts"]):
        pairs = [record["counts"][variant] for record in records]
        if not isinstance(pairs[0], Mapping):  # classes of a picture have no IoU of their own
            found[variant] = _totals(pairs)
    return found


def _totals(pairs: Sequence[Sequence[Sequence[int]]]) -> dict[str, list[Any]]:
    """The totals of one variant's intersections and unions."""
    rows = [list(zip(inter, union, strict=True)) for inter, union in pairs]
    columns = list(zip(*rows, strict=True))
    return {
        "intersection": [sum(i for i, _ in column) for column in columns],
        "union": [sum(u for _, u in column) for column in columns],
        "miou": [
            math.fsum(i / u if u else 0.0 for i, u in column) / len(column) for column in columns
        ],
    }
