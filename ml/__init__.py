"""Train, check, store and evaluate tabular models, exactly as their libraries would and without them.

Knows no HTTP, no HTML and no environment variables. scikit-learn is imported only where a model is trained, and what
is offered here only when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml.scoring.batch import BatchScorer, Model, load
    from ml.training.exporting import export

__all__ = ["BatchScorer", "Model", "export", "load"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("ml.training.exporting" if name == "export" else "ml.scoring.batch"), name)
