"""One connection to a websocket of a service: its address, its opening, and the errors of its end.

Knows no samples.
"""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
)
from websockets.http11 import Response
from websockets.typing import Subprotocol

from web.api.messages import SUBPROTOCOL, ModelFrame
from web.client.errors import Busy, ClientError, ConnectionFailed, NotUnderstood, Rejected, WrongAddress
from web.client.replies import LATER, decode

# For the handshake, and then for the model's frame.
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
# An answer is about as large as its frame; this only keeps a strange server from filling the memory.
MAX_REPLY_BYTES = 64 * 2**20

# Codes of a connection that was closed because of the client's messages: a retry would not help (RFC 6455, 7.4.1).
FATAL_CODES = {1002, 1003, 1007, 1008, 1009, 1010}
# Seconds in Retry-After; a date, which it may be as well, is taken for no time at all (RFC 9110, 10.2.3).
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class Address:
    """The address of a websocket of a service, and the token that opens it.

    Args:
        url: of the service: http, https, ws or wss, with a path prefix if it has one.
        token: the service's token for programs; sent to its own address alone.
        path: of another websocket than the stream.

    Raises:
        WrongAddress: it is no address of a service.
    """

    def __init__(self, url: str, *, token: str, path: str = "stream") -> None:
        self._uri = stream_uri(url).removesuffix("stream") + path
        self._shown = _without_password(url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __str__(self) -> str:
        """Return the address as messages show it: without a password."""
        return self._shown

    async def open(self) -> tuple[ClientConnection, ModelFrame]:
        """Return a new connection, and the model that it announced.

        Raises:
            ClientError: `ConnectionFailed` if it is worth trying again, another one if not.
        """
        connection = await self._connect()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                first = await connection.recv(decode=False)
            announced = decode(first)
            if not isinstance(announced, ModelFrame):
                raise ValueError("its first message announces no model")
            return connection, announced
        except BaseException as error:
            await connection.close()
            if isinstance(error, TimeoutError | ConnectionClosed):
                raise ConnectionFailed(f"{self} announced no model: {_reason_of(error)}") from error
            if isinstance(error, ValueError):
                raise NotUnderstood(f"{self} is no prediction service: {error}") from error
            raise

    async def _connect(self) -> ClientConnection:
        try:
            return await connect(
                self._uri,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers=self._headers,
                compression=None,  # costs more than it saves
                max_size=MAX_REPLY_BYTES,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
            )
        except InvalidStatus as error:
            raise self._refusal(error.response) from error
        except (OSError, InvalidMessage) as error:  # TimeoutError is one
            raise ConnectionFailed(f"no connection to {self}: {_reason_of(error)}") from error
        except (InvalidHandshake, InvalidURI, InvalidProxy) as error:
            raise NotUnderstood(f"{self} has no stream: {error}") from error

    def _refusal(self, response: Response) -> ClientError:
        status = response.status_code
        if status in LATER:
            values = response.headers.get_all("Retry-After")
            retry_after_s = float(values[0]) if values and _SECONDS.fullmatch(values[0]) else 0.0
            return Busy(f"{self} answered with status {status}", retry_after_s=retry_after_s)
        if status >= 500:
            return ConnectionFailed(f"{self} answered with status {status}")
        return Rejected(f"{self} has no stream for this client: status {status}")

    def loss(self, closed: ConnectionClosed) -> ClientError:
        """Return the error of a lost connection: `ConnectionFailed` if a new one may help, else another error."""
        message = f"{self} closed the stream: {_reason_of(closed)}"
        if any(close and close.code in FATAL_CODES for close in (closed.rcvd, closed.sent)):
            return Rejected(message)
        return ConnectionFailed(message)


def stream_uri(url: str) -> str:
    """Return the websocket's address of the service at `url`.

    Raises:
        WrongAddress: it is no address of a service.
    """
    shown = _without_password(url)
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError as error:
        raise WrongAddress(f"{shown!r} is no address: {error}") from error
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.hostname or not port_is_fine or parts.query or parts.fragment:
        raise WrongAddress(f"{shown!r} is no address such as http://127.0.0.1:8000")
    path = parts.path.rstrip("/")
    return urlunsplit(
        (schemes[parts.scheme], parts.netloc, path if path.endswith("/stream") else f"{path}/stream", "", "")
    )


def _without_password(url: str) -> str:
    return re.sub("//[^/]*@", "//", url)


def _reason_of(error: BaseException) -> str:
    if isinstance(error, ConnectionClosed):
        closed = error.rcvd or error.sent
        return f"{closed.code} {closed.reason}".strip() if closed else "it broke off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or "timed out"
