"""The yardstick: the least that uvicorn can do, "hello" over HTTP and an echo over websocket.

`python -m tests.benchmarks.bare` runs it as raw ASGI with the settings of `web.__main__`, so that all of the difference
to the service is the service's own work.
"""

from __future__ import annotations

import uvicorn
from starlette.types import Message, Receive, Scope, Send

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
    settings = Settings.from_environment()
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.shutdown_s,
        ws_max_size=settings.max_frame_bytes,
        ws_ping_interval=settings.ping_interval_s,
        ws_ping_timeout=settings.ping_interval_s,
        ws_per_message_deflate=False,
    )


if __name__ == "__main__":
    main()
