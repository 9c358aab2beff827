"""Train, check, store and evaluate tabular classifiers, exactly as scikit-learn would and without it.

Knows no HTTP, no HTML and no environment variables. scikit-learn is imported only where a model is trained.
"""

from ml.training.exporting import export

__all__ = ["export"]
