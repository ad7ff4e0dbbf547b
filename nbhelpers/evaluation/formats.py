"""What earlier versions wrote, by the names of today: the manifests of runs, and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

RUN = 4  # the format of a run's manifest
TABLES = 3  # the format of a file of tables


def manifest_as_now(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's settings and items by the names of today, whatever their format.

    Format 1, which has no number, called three things otherwise. What was gathered isn't told
    before format 3. Before format 4, an order of the target's phrase was a place.

    Args:
        manifest: As `read_manifest` gives it; left as it is, and so is its fingerprint.
    """
    settings, items = dict(manifest["settings"]), manifest["items"]
    if "format" not in settings:
        renamed = {"keys": "softmax_over", "caption": "prompt_from"}
        settings = _renamed(settings, {"reading": "calibration"}) | {"format": 1}
        settings["variants"] = {
            name: _renamed(variant, renamed) for name, variant in settings["variants"].items()
        }
    if settings["format"] < 4:
        items = [_renamed(item, {"place": "order"}) for item in items]
        if settings["prompts"] == "places":
            settings["prompts"] = "orders"
    return {"settings": settings, "items": items}


def tables_as_now(tables: Sequence[Mapping[str, Any]], version: int) -> list[Mapping[str, Any]]:
    """Returns tables by the names of today; titles stay as they are.

    Format 1 called the tokens of the softmax keys; before format 3, an order of the target's
    phrase was a place.

    Args:
        tables: As a file holds them.
        version: Its format.
    """

    def row_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
        if version < 2 and "keys" in row:
            label = row["label"].replace(", keys ", ", softmax over ")
            row = _renamed(row, {"keys": "softmax_over"}) | {"label": label}
        return _renamed(row, {"place": "order"}) if version < 3 else row

    return [{**table, "rows": [row_of(row) for row in table["rows"]]} for table in tables]


def _renamed(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Returns a record with some keys renamed, in the same order."""
    return {names.get(key, key): value for key, value in record.items()}
