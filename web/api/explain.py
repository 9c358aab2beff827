"""What each feature adds to an answer, for programs that ask for it with `"explain": true`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.concurrency import run_in_threadpool

from ml.model.classifier import Classifier
from ml.model.contributions import contributions
from ml.model.evaluators import Prediction
from web.api.messages import Contributions
from web.problems import Problem

NOT_MANY = '"explain" goes with one "sample"'


async def explained(model: Classifier, row: Sequence[float], prediction: Prediction) -> bytes:
    """Return the member `contributions` of an answer as JSON, with the comma before it.

    Raises:
        Problem: 422, this model does not tell.
    """
    # Of large forests it takes some milliseconds.
    found = await run_in_threadpool(contributions, model, row, prediction.index)
    if found is None:
        raise Problem(422, "this model does not tell what each feature adds to an answer")
    features = dict(zip(model.validator.keys, found.values, strict=True))
    view = Contributions(method=found.method, scale=found.scale, base=found.base, features=features)
    return b',"contributions":' + msgspec.json.encode(view)
