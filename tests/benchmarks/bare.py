"""The yardstick: the least that uvicorn can do, "hello" over HTTP and an echo over websocket.

`python -m tests.benchmarks.bare` runs it as raw ASGI with the settings of `web.__main__` on uvicorn's own
protocols, so that all of the difference to the service is the service's own work.
"""

from __future__ import annotations

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from web.__main__ import uvicorn_options
from web.settings import Settings

START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"5")],
}
BODY: Message = {"type": "http.response.body", "body": b"hello"}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer requests with "hello" and websocket messages with themselves."""
    if scope["type"] == "http":
        await send(START)
        await send(BODY)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if (text := message.get("text")) is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


def main() -> None:
    """Serve on the loopback interface until told to stop."""
    options = uvicorn_options(Settings.from_environment()) | {"http": "httptools", "ws": "websockets-sansio"}
    uvicorn.run(app, lifespan="off", log_level="warning", **options)


if __name__ == "__main__":
    main()
