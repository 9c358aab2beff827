"""The errors of `ml`.

MLError
├── DatasetError      a table that cannot be trained on
├── ForestError       arrays that are not a forest
├── ModelFileError    a file that cannot be served
├── TrainingError     a trained model that does not agree with scikit-learn
└── InvalidSample     a sample with errors, feature by feature  (ml/sample.py)
"""


class MLError(Exception):
    """Base of the tree. The message is one sentence for the person who gave the input."""


class DatasetError(MLError):
    """The table cannot be trained on."""


class ForestError(MLError):
    """The arrays are not a forest of decision trees."""


class ModelFileError(MLError):
    """The file cannot be served: damaged, crafted, or of a newer format."""


class TrainingError(MLError):
    """The compiled model does not reproduce scikit-learn's probabilities."""
