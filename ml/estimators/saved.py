"""Models in files of other libraries: each library's own format, or an estimator of scikit-learn in a skops file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml.errors import ForestError, ModelFileError, shown
from ml.estimators.linear import KINDS as LINEAR_KINDS
from ml.estimators.paths import LINEAR, TREES
from ml.estimators.trees import forest_from, lacking_in, readers_of
from ml.importing import files
from ml.importing.imported import Imported, ImportedInputs, Progress, silent
from ml.model import modelfile
from ml.model.card import MAX_FEATURES

# Twice the text of a million leaves. What is made of a file in memory is a few times its size.
MAX_FILE_BYTES = 2**29


def read_model(path: Path, *, progress: Progress = silent) -> Imported:
    """Return the model in a file of XGBoost, LightGBM, CatBoost or skops.

    Raises:
        ModelFileError: it is none of these, is damaged, or something in it is not supported.
    """
    content = modelfile.read(path, max_bytes=MAX_FILE_BYTES)
    try:
        return model_in(content, progress=progress)
    except (ForestError, ModelFileError) as error:
        raise ModelFileError(f"{path}: {error}") from error


def model_in(content: bytes, *, progress: Progress = silent) -> Imported:
    """Return the model in these bytes.

    Raises:
        ForestError, ModelFileError: as above.
    """
    found = files.parse(content, progress)
    if isinstance(found, Imported):
        return found
    try:
        return _saved(found)
    # What is not as scikit-learn writes it fails somewhere in the reading of it.
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelFileError(f"the estimator in the file is damaged: {shown(error)}") from error


def _saved(found: Any) -> Imported:
    """Return a model of scikit-learn out of a skops file."""
    if type(found).__name__ in ("GridSearchCV", "RandomizedSearchCV"):
        found = found.best_estimator_
    kind = type(found).__name__
    if kind == "Pipeline" or kind in LINEAR_KINDS:
        raise ForestError(f"a {kind} in a skops file is not supported: use ml.export in the session that fitted it")
    if not readers_of(found):
        raise ForestError(
            f"a {kind} in a skops file is not supported: {TREES} would work, and with ml.export in the session that "
            f"fitted them {LINEAR}"
        )
    # A vote has the features of its members.
    known = found.estimators_[0] if kind.startswith("Voting") else found
    n_features = known.n_features_in_ if isinstance(getattr(known, "n_features_in_", None), int) else 0
    if not 1 <= n_features <= MAX_FEATURES:
        raise ForestError(f"a {kind} that is not fitted, or has more than {MAX_FEATURES} features")
    forest = forest_from(found)
    classes = getattr(found, "classes_", None)
    names = tuple(map(str, getattr(known, "feature_names_in_", ())))
    if (classes is not None and len(classes) != forest.n_outputs) or len(names) not in (0, n_features):
        raise ForestError(f"the {kind} does not have a class for each answer, or not a name for each feature")
    lacking = lacking_in(forest)
    return Imported(
        forest=forest,
        n_classes=0 if classes is None else len(classes),
        inputs=ImportedInputs(
            n_features=n_features, names=names, has_gaps=tuple(place in lacking for place in range(n_features))
        ),
        library=("scikit-learn", str(getattr(found, "_sklearn_version", ""))),
        estimator=kind,
        labels=() if classes is None else tuple(str(label) for label in classes.tolist()),
    )
