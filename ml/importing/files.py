"""Which library a file is of, and its reader. The file's content says so, not its name."""

from __future__ import annotations

from ml.errors import ModelFileError
from ml.importing import catboost, lightgbm, skops, xgboost
from ml.importing.imported import Imported, Progress

_FIRST_BYTES = 4_096


def _saved(found: object) -> skops.Saved:
    if not isinstance(found, skops.Saved):
        raise ModelFileError("the skops file holds no estimator")
    return found


def parse(content: bytes, progress: Progress) -> Imported | skops.Saved:
    """Return the model in a file of XGBoost, LightGBM or CatBoost, or the object in one of skops.

    Raises:
        ForestError, ModelFileError: it is none of these, is damaged, or something in it is not supported.
    """
    start = content[:_FIRST_BYTES].lstrip()
    if content.startswith(b"PK"):
        return _saved(skops.read(content))
    if start.startswith(b"tree") and b"version=" in start:
        return lightgbm.read(content, progress)
    if content[:1] == b"{" and content[1:2] in b"LlIiU#$":
        return xgboost.read_ubjson(content, progress)
    if start.startswith(b"{"):
        is_catboost = b'"oblivious_trees"' in content or b'"features_info"' in content
        return (catboost.read if is_catboost else xgboost.read_json)(content, progress)
    if content.startswith(b"CBM1"):
        raise ModelFileError("a binary file of CatBoost: save it with save_model(path, format='json')")
    if content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise ModelFileError("a pickle, which runs code when it is read: save the model with skops.io.dump instead")
    if content.startswith(b"binf"):
        raise ModelFileError("XGBoost's old binary format: save it with save_model('model.json')")
    raise ModelFileError("not a model file of XGBoost (JSON, UBJSON), LightGBM (text), CatBoost (JSON) or skops")
