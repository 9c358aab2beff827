"""Why a stream ends, or cannot begin: one tree of errors, each with a message of one sentence."""

from __future__ import annotations


class ClientError(Exception):
    """Everything that a stream raises on purpose; the message is one sentence."""


class WrongAddress(ClientError):
    """The address is none of a service."""


class ConnectionFailed(ClientError):
    """No connection came about, or it was lost; later there may be one."""


class Busy(ConnectionFailed):
    """The server is there and wants this client later.

    Attributes:
        retry_after_s: how long the server asks to wait, in seconds; 0 where it does not say.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rejected(ClientError):
    """The server does not want this client, or what it sent."""


class NotUnderstood(ClientError):
    """The server does not speak as a prediction service does."""


class ModelReplaced(ClientError):
    """The model was replaced by one with other features: samples meant for the old one make no sense to it."""


class GaveUp(ClientError):
    """No answer came in time."""


class StreamEnded(ClientError):
    """The stream was left, or never entered."""
