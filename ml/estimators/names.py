"""The names of a model's inputs: those that it was fitted with, those of the table, and those that are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ml.errors import TableError
from ml.estimators.frames import Frame
from ml.tables.headers import key_of, listed


@dataclass(frozen=True)
class Names:
    """The inputs of a model, in the order in which it was fitted.

    Attributes:
        fitted: their names in tables of the session; none if the tables are arrays.
        headers: their names for people, as in a CSV file's header.
        places: of an array: where its columns stand that are the inputs; those of a DataFrame are found by name.
    """

    fitted: tuple[Any, ...]
    headers: tuple[str, ...]
    places: tuple[int, ...]

    def arrange(self, frame: Frame, name: str) -> Frame:
        """Return a table with its columns in the order of the inputs.

        Raises:
            TableError: it lacks a column; the sentence names the first one.
        """
        if frame.names and self.fitted:
            for wanted in self.fitted:
                if frame.names.count(wanted) > 1:
                    raise TableError(f"{name} has {frame.names.count(wanted)} columns {wanted!r}: leave one")
                if wanted not in frame.names:
                    has = listed(map(str, frame.names))
                    raise TableError(f"{name} has no column {wanted!r}, with which the model was fitted; it has {has}")
            return frame.take([frame.names.index(wanted) for wanted in self.fitted])
        if len(frame.columns) != len(self.places):
            shape = (len(frame.columns[0]), len(frame.columns))
            raise TableError(f"{name} has the shape {shape}, not (n, {len(self.places)}) with rows")
        return frame.take(self.places)


def names_of(model: Any, frame: Frame, given: Sequence[str] | None) -> Names:
    """Return the names of a fitted model's inputs; those that were given in another order are put right.

    Args:
        model: as it was fitted, with the names that it knows.
        frame: the test rows.
        given: names for people, in the order of the inputs, or those of the model in any order; None takes those of
            the model or the table.

    Raises:
        TableError: names are missing, are no words, or contradict each other; the sentence names the first one.
    """
    known = tuple(getattr(model, "feature_names_in_", ()))
    n_inputs = len(known) or getattr(model, "n_features_in_", len(frame.columns))
    # A model that was fitted on an array knows no names: those that are given say in which order its inputs are.
    fitted = known or _columns_named(frame, given or ()) or (frame.names if len(frame.names) == n_inputs else ())
    if given is None and frame.names and not fitted:
        raise TableError(
            f"X_test has {len(frame.names)} columns, and the model was fitted on {n_inputs} without names: give the "
            "whole pipeline if this is its last step"
        )
    if given is None and not fitted:
        raise TableError("feature_names is missing: neither the model nor X_test has names, as it is an array")
    headers = list(fitted if given is None else given)
    where = "feature_names" if given is not None else "feature_names_in_" if known else "X_test.columns"
    for place, header in enumerate(headers):
        if not isinstance(header, str) or not header.strip():
            raise TableError(f"{where}[{place}] is {header!r}: a name in words is needed, such as 'age (years)'")
    if len(headers) != n_inputs:
        raise TableError(f"feature_names has {len(headers)} names, but the model was fitted on {n_inputs} columns")
    _check_different(headers, where)
    places = [*range(n_inputs)]
    if given is not None and fitted:
        order = _order(headers, [str(name) for name in fitted])
        headers = [headers[place] for place in order]
        places = places if frame.names else order
    return Names(tuple(fitted if frame.names else ()), tuple(headers), tuple(places))


def _columns_named(frame: Frame, given: Sequence[str]) -> tuple[Any, ...]:
    """Return the names of the columns that are given, in that order; none if a name is that of no column, or of two."""
    name_of = {key_of(str(name)): name for name in frame.names}
    if len(name_of) < len(frame.names):
        return ()
    found = [name_of.get(key_of(str(name))) for name in given]
    return () if None in found else tuple(found)


def _check_different(headers: Sequence[str], where: str) -> None:
    keys = [key_of(header) for header in headers]
    key, count = Counter(keys).most_common(1)[0]
    if count > 1:
        first, second = [header for header, own in zip(headers, keys, strict=True) if own == key][:2]
        raise TableError(f"{where} has {first!r} and {second!r}, which are one name, {key!r}, without unit and case")


def _order(headers: Sequence[str], fitted: Sequence[str]) -> list[int]:
    """Return where among the headers the name of each fitted column stands; other names stand for those in their place.

    Raises:
        TableError: a header is the name of another column than that in its place.
    """
    keys, known = [key_of(header) for header in headers], [key_of(name) for name in fitted]
    if sorted(keys) == sorted(known):
        return [keys.index(key) for key in known]
    for place, (key, own) in enumerate(zip(keys, known, strict=True)):
        if key != own and key in known:
            raise TableError(
                f"feature_names[{place}] is {headers[place]!r}, but the model was fitted with {fitted[place]!r} there, "
                f"and has {fitted[known.index(key)]!r} as its column {known.index(key)}"
            )
    return [*range(len(headers))]
