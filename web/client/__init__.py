"""A program elsewhere that streams samples to the service. Knows nothing of the server but its messages."""

from web.client.queue import Prediction, Refused
from web.client.stream import ClientError, ModelReplaced, Stream

__all__ = ["ClientError", "ModelReplaced", "Prediction", "Refused", "Stream"]
