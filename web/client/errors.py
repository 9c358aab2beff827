"""The errors of a stream: one tree, each error with a message of one sentence."""

from __future__ import annotations


class ClientError(Exception):
    """Base of the tree; the message is one sentence."""


class WrongAddress(ClientError):
    """The address cannot be that of a service."""


class ConnectionFailed(ClientError):
    """The connection failed or was lost; a later attempt may succeed."""


class Busy(ConnectionFailed):
    """The server is busy and asks the client to come back later.

    Attributes:
        retry_after_s: the time to wait in seconds, as the server asks; 0 if it names none.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rejected(ClientError):
    """The server rejects this client or its messages."""


class NotUnderstood(ClientError):
    """The server's messages are not those of a prediction service."""


class ModelReplaced(ClientError):
    """The model was replaced by one with other features: samples meant for the old one make no sense to it."""


class GaveUp(ClientError):
    """No answer came in time."""


class StreamEnded(ClientError):
    """The stream was closed, or never entered."""
