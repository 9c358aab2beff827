"""A program elsewhere that streams samples to the service. Knows nothing of the server but its messages."""

from web.client.errors import ClientError, ModelReplaced
from web.client.replies import Prediction, Refused
from web.client.stream import Stream

__all__ = ["ClientError", "ModelReplaced", "Prediction", "Refused", "Stream"]
