"""Model files of format 1: forests of numbers without gaps that predict a class. What is here only reads."""

from __future__ import annotations

from typing import Any

FORMAT = 1
# The names of arrays in a file of format 1, by those of today; an explanation by covers is not possible without them.
ARRAYS = {
    **{name: name for name in ("roots", "feature", "threshold", "left", "right", "golden_rows")},
    "values": "probabilities",
    "golden_answers": "golden_probabilities",
    "reference_rows": "sample_rows",
    "reference_outcomes": "sample_classes",
}
# Those that have another type.
TYPES = {"sample_classes": "<i4"}


def card(decoded: Any) -> Any:
    """Return a decoded card as one of today; what does not look like one is returned as it is."""
    found = decoded.get("card") if isinstance(decoded, dict) else None
    if isinstance(found, dict) and isinstance(found.get("report"), dict) and "target" not in found:
        found["target"] = {"labels": found.pop("labels", ())}
        found["report"]["kind"] = "classes"
    return decoded
