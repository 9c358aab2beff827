"""The metrics of one channel: its predictions by label or value, its errors, the durations of calls of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.model.evaluators import Batch, Prediction
from ml.model.loaded import LoadedModel
from ml.model.sample import FieldError
from web.metrics.counts import NOT_ENTERED, WATCHED_ROWS
from web.metrics.histogram import MODEL_BOUNDS, Histogram
from web.metrics.inputs import InputRecorder
from web.metrics.shared import SharedCounters
from web.problems import ProblemDetails

# With so few labels, looking for each takes a third of the time of NumPy's `bincount`.
FEW_LABELS = 8
# The metric of predicted quantities.
VALUES = "predicted_value"


def outcomes_of(model: LoadedModel, answers: Batch | Sequence[Prediction]) -> NDArray[Any]:
    """Return what was answered, shape (n,): the positions of labels among the model's labels, or the quantities."""
    if isinstance(answers, Batch):
        return answers.values if model.quantity else answers.indices
    if model.quantity:
        return np.array([answer.value for answer in answers])
    return np.array([answer.index for answer in answers])


class Channel:
    """Counts the predictions of one channel."""

    def __init__(self, name: str, counters: SharedCounters, inputs: InputRecorder) -> None:
        self._name = name
        self._counters = counters
        self._inputs = inputs
        self._times = Histogram(counters, "prediction_model_seconds", name, bounds=MODEL_BOUNDS)
        self._recorded: list[tuple[float, LoadedModel, Sequence[float], Prediction, Collection[int] | None]] = []
        self._values: dict[str, Histogram] = {}

    def begin(self) -> None:
        """Forget the histograms of predicted values: the served model was replaced."""
        self._values.clear()

    def one(
        self,
        model: LoadedModel,
        row: Sequence[float],
        prediction: Prediction,
        started: float,
        *,
        entered: Collection[int] | None = None,
    ) -> None:
        """Record the answer to one row; the call of the model began at `started` on the clock `perf_counter`.

        Args:
            entered: the positions of the values that someone has entered and settled on since the last row; None for
                all of them. Only these are compared with the training data: not each key on the way to a number, nor
                values of the example that nobody has touched, nor those that were compared already.
        """
        recorded = self._recorded
        recorded.append((perf_counter() - started, model, row, prediction, entered))
        if len(recorded) >= self._inputs.most_rows:
            self.flush()

    def many(self, model: LoadedModel, rows: NDArray[Any], outcomes: NDArray[Any]) -> None:
        """Count the answers to rows, shape (n, n_features); for `outcomes` see `outcomes_of`.

        Of the rows at most `WATCHED_ROWS` are compared with the training data, evenly spaced.
        """
        if not len(rows):
            return
        labels = model.labels
        if not labels:
            self._histogram(model).add(outcomes)
            counts = []
        elif len(labels) <= FEW_LABELS:
            counts = [int(np.count_nonzero(outcomes == index)) for index in range(len(labels))]
        else:
            counts = np.bincount(outcomes, minlength=len(labels)).tolist()
        for label, count in zip(labels, counts, strict=True):
            if count:
                self._count(label, count)
        self._inputs.watch(model, rows[:: -(-len(rows) // min(WATCHED_ROWS, self._inputs.most_rows))])

    def model_time(self, seconds: float) -> None:
        """Record the duration of the model's call for a slice of rows."""
        self._times.record(seconds)

    def errors(self, errors: Iterable[FieldError]) -> None:
        """Count errors in samples."""
        for error in errors:
            self.error(error.code)

    def problem(self, details: ProblemDetails) -> None:
        """Count a problem: its errors in samples, or else its status."""
        if details.errors:
            self.errors(details.errors)
        else:
            self.error(str(details.status))

    def error(self, code: str) -> None:
        """Count an unanswered request or frame by its code."""
        self._counters.add(1, "prediction_errors", self._name, code)

    def flush(self) -> None:
        """Count all recorded predictions."""
        self._times.flush()
        if not self._recorded:
            return
        recorded, self._recorded = self._recorded, []
        seconds, models, rows, predictions, entered = zip(*recorded, strict=True)
        self._times.add(np.array(seconds))
        for served in {*models}:
            answers: Sequence[Prediction] = predictions
            if models.count(served) < len(models):
                answers = [answer for answer, of in zip(predictions, models, strict=True) if of is served]
            if not served.labels:
                self._histogram(served).add(outcomes_of(served, answers))
                continue
            # Answers of a decision table are shared objects: there are fewer of them than rows.
            for prediction, count in Counter(answers).items():
                self._count(prediction.label, count)
        model = self._inputs.model
        if models.count(model) < len(models) or entered.count(None) < len(entered):  # or some are of the previous model
            rows = tuple(
                row if places is None else [value if at in places else NOT_ENTERED for at, value in enumerate(row)]
                for row, of, places in zip(rows, models, entered, strict=True)
                if of is model and (places is None or places)
            )
        if model is not None and rows:
            width = len(model.features)
            values = np.fromiter(chain.from_iterable(rows), np.float32, width * len(rows))
            self._inputs.watch(model, values.reshape(-1, width))

    def _histogram(self, model: LoadedModel) -> Histogram:
        """Return the histogram of the quantities that a model predicts: its buckets end at the training quantiles."""
        if model.version not in self._values:
            assert model.quantity is not None
            bounds = sorted({*model.quantity.quantiles})
            self._values[model.version] = Histogram(self._counters, VALUES, self._name, model.version, bounds=bounds)
        return self._values[model.version]

    def _count(self, label: str, count: int) -> None:
        self._counters.add(count, "predictions", label, self._name)
