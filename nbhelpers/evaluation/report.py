"""What came of a run, in integers and exact sums: the same bytes however it was run."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nbhelpers.evaluation.journal import Record, canonical
from nbhelpers.evaluation.store import Store
from nbhelpers.files import write_whole


def complete_records(store: Store) -> list[Record]:
    """The record of every item of a run, in the items' order.

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
    return [results[name] for name in store.ids]


def make_report(store: Store) -> dict[str, Any]:
    """What came of a run of which every item has a record.

    Returns:
        The settings; how many items, and which ended in an error; the SHA-256 of all records in
        the items' order; and for every variant, at each threshold, the sums of the intersections
        and unions in pixels (their ratio is oIoU) and the mean over items of their IoU. Sums of
        floats are exact (`math.fsum`) and taken in the items' order, so that the bytes depend on
        the records alone.

    Raises:
        ValueError: Items are missing, or the store is damaged.
    """
    records = complete_records(store)
    good = [record for record in records if "error" not in record]
    digest = hashlib.sha256()
    for record in records:
        digest.update(canonical(record) + b"\n")
    return {
        "settings": store.manifest["settings"],
        "fingerprint": store.fingerprint,
        "items": len(records),
        "errors": {r["id"]: r["error"] for r in records if "error" in r},
        "records": digest.hexdigest(),
        "variants": summarize(good),
    }


def write_report(store: Store) -> dict[str, Any]:
    """Make a run's report and write it as ``report.json`` beside the parts.

    Raises:
        OSError: The folder can't be written to.
        ValueError: Items are missing, or the store is damaged.
    """
    report = make_report(store)
    write_whole(store.folder / "report.json", canonical(report) + b"\n")
    return report


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Sums and means of every variant at each threshold; of every class, where classes were read.

    Example:
        >>> summarize([{"counts": {"plain": [[1], [2]]}}, {"counts": {"plain": [[3], [4]]}}])
        {'plain': {'intersection': [4], 'union': [6], 'miou': [0.625]}}
    """
    found: dict[str, Any] = {}
    for variant in sorted(records[0]["counts"]) if records else ():
        pairs = [record["counts"][variant] for record in records]
        if not isinstance(pairs[0], Mapping):
            found[variant] = _totals(pairs)
            continue
        classes = sorted({name for pair in pairs for name in pair}, key=int)
        found[variant] = {
            name: _totals([pair[name] for pair in pairs if name in pair]) for name in classes
        }
    return found


def _totals(pairs: Sequence[Sequence[Sequence[int]]]) -> dict[str, list[Any]]:
    """The totals of one variant's intersections and unions."""
    columns = [
        list(zip(*both, strict=True))
        for both in zip(
            zip(*(shared for shared, _ in pairs), strict=True),
            zip(*(either for _, either in pairs), strict=True),
            strict=True,
        )
    ]
    return {
        "intersection": [sum(i for i, _ in column) for column in columns],
        "union": [sum(u for _, u in column) for column in columns],
        "miou": [
            math.fsum(i / u if u else 0.0 for i, u in column) / len(column) for column in columns
        ],
    }
