"""The names of uvicorn and its parsers that our server is built on: an upgrade without one of them fails here, by name.

Hardly any of them is documented. Whoever needs one more writes down here what for.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import httptools
import uvicorn
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from tests.conftest import for_each
from web.server.responding import Cycle

SERVER = Path(__file__).parent.parent / "web" / "server"
PACKAGES = ("uvicorn", "httptools", "websockets", "starlette")

# What of their modules is imported, and what for.
IMPORTED = {
    "httptools.HttpParserError": "tells what is not HTTP: 400",
    "httptools.HttpParserUpgrade": "tells the head of a handshake: the connection becomes a stream",
    "starlette.requests.ClientDisconnect": "is raised in an endpoint whose client has left",
    "websockets.exceptions.InvalidHandshake": "tells what is no handshake: 400 or 426",
    "websockets.exceptions.InvalidHeader": "tells a header of a handshake that is wrong",
    "websockets.exceptions.InvalidUpgrade": "tells what is no upgrade to a websocket: 426",
    "websockets.http11.Request": "the head of a handshake",
    "uvicorn.Config": "is what a server is made with",
    "uvicorn.Server": "is the base of the server that drains",
    "uvicorn.protocols.http.httptools_impl.HEADER_RE": "finds what no header's name may have, once a line",
    "uvicorn.protocols.http.httptools_impl.HEADER_VALUE_RE": "finds what no header's value may have, once a line",
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol": "is the base of an HTTP connection",
    "uvicorn.protocols.http.httptools_impl.RequestResponseCycle": "is the base of a request and its response",
    "uvicorn.protocols.http.httptools_impl.STATUS_LINE": "has the first line of each response",
    "uvicorn.protocols.websockets.websockets_sansio_impl.WebSocketsSansIOProtocol": "is the base of a stream",
    "websockets.frames.Frame": "tells frames from the request of the handshake among events",
    "websockets.frames.Opcode": "tells pings and pongs from messages, for the rate",
}
# What of their classes is read, set, called or overridden, and what for.
USED: dict[type, dict[str, str]] = {
    HttpToolsProtocol: {
        "_should_upgrade": "a parser's upgrade is one to a websocket, or is ignored",
        "_start_asgi_task": "starts the next request that was sent ahead, once the one before is answered",
        "app_state": "what the application's lifespan yielded: the service, the connections",
        "client": "the address, for bounds and logs",
        "connection_lost": "makes room for others",
        "connection_made": "puts our transport in between, and counts the connection",
        "cycle": "the request that came last: its class becomes ours, its state says whether more is parsed",
        "data_received": "parses in portions instead of all at once",
        "flow": "whether the application takes more of a body; reading goes on after a response",
        "handle_websocket_upgrade": "makes the stream, with this transport",
        "headers": "emptied of trailers, and counted as memory",
        "loop": "where the transport schedules its turns",
        "on_body": "counts the pieces of a body",
        "on_headers_complete": "ends the count of a head, and makes the request ours",
        "on_message_begin": "starts the count of a head",
        "on_response_complete": "goes on with what is held; uvicorn's own would set a timer for each request",
        "parser": "is fed with portions",
        "pipeline": "the requests that were sent ahead",
        "resume_writing": "the client has read: its deadline starts anew",
        "scope": "whether a request became one: a handshake has no cycle of its own",
        "server_state": "the headers of all responses, and the count of requests",
        "shutdown": "a server that ends asks idle connections to close, and others after their response",
        "transport": "ours, under uvicorn's name",
    },
    RequestResponseCycle: {
        "body": "what of a body the application has not taken, counted as memory",
        "chunked_encoding": "the head says the length, so the body is not in chunks",
        "default_headers": "the date, and what a draining server adds",
        "disconnected": "nothing is sent, and the application is told so when it asks",
        "expected_content_length": "uvicorn checks the body against it",
        "flow": "whether the client reads",
        "keep_alive": "whether the connection ends with this response",
        "message_event": "wakes an application that waits for a body that is not wanted any more",
        "more_body": "whether the client is still sending: then the close lingers",
        "response_complete": "whether the next request may be parsed; set when an answer is cut off",
        "response_started": "whether a problem can still be the answer",
        "scope": "whether this is the request whose head has just come",
        "send": "takes our own messages, and heads put together from known lines",
        "transport": "ours, under uvicorn's name",
        "waiting_for_100_continue": "a response has started: the client need not be asked for its body",
    },
    FlowControl: {
        "read_paused": "a body that is not taken is not too slow",
        "resume_reading": "a response is complete: what comes next is read",
        "write_paused": "heads wait as uvicorn has it while the client does not read",
    },
    httptools.HttpRequestParser: {"feed_data": "parses a portion"},
    WebSocketsSansIOProtocol: {
        "handle_connect": "opens a stream, unless the handshake is wrong",
        "app": "is wrapped, so that a draining stream is closed once the application has answered",
        "app_state": "what the application's lifespan yielded: the service, the connections",
        "client": "the address, for the log of a refusal",
        "close_sent": "whether the stream is over",
        "close_timeout": "is shorter when the server ends",
        "conn": "the parser: frames are counted before they are handled, and problems in it are answered",
        "connection_lost": "makes room for others",
        "connection_made": "goes on with the transport of the handshake",
        "curr_msg_data_type": "whether a message is text, which has to be UTF-8",
        "data_received": "parses in portions instead of all at once",
        "default_headers": "without the draining server's `Connection: close`, which is not for a handshake",
        "disconnected": "the application's next message finds the client gone, and leaves no traceback",
        "frames": "the fragments of a message, as one bytearray",
        "handle_bytes": "begins a binary message",
        "handle_cont": "adds a fragment to the bytearray",
        "handle_events": "counts pings, pongs and fragments for the rate",
        "handle_parser_exception": "closes gently, so that the client can read why",
        "handle_ping": "answers the pings of a portion with one write",
        "handle_text": "begins a message of text",
        "handshake_complete": "whether the stream is open; set for a refusal, which uvicorn would log as a mistake",
        "handshake_initiated": "whether frames may come already",
        "initial_response": "whether the handshake was refused",
        "keepalive_timeout": "a client that does not answer pings is gone",
        "queue": "tells the application that the stream is to end",
        "read_paused": "whether the application is still busy with a message",
        "resume_writing": "the client has read: its deadline starts anew, and what is held is parsed",
        "run_asgi": "wraps the application",
        "scope": "the address that a proxy names, for the rate",
        "send_receive_event_to_app": "refuses text that is not UTF-8 without a traceback, and counts what waits",
        "shutdown": "lets what has come be answered first",
        "stop_keepalive": "no pings any more while a stream ends",
        "transport": "ours, under uvicorn's name",
        "writable": "whether the client reads: else nothing more is parsed",
    },
    ServerProtocol: {
        "process_request": "checks a handshake, so that ours is the answer to a wrong one",
        "data_to_send": "the answers to pings",
        "events": "the frames of a portion, before they are handled",
        "fail": "closes with a code and a reason",
        "handshake_exc": "the parser gave up on a handshake, which uvicorn leaves without an answer",
        "parser_exc": "the parser gave up on a frame",
        "reader": "has what came of a frame that is not complete",
        "receive_data": "parses a portion",
        "send_close": "closes with a code",
    },
    StreamReader: {"buffer": "the bytes of an incomplete frame: how fast it comes in, and what it takes in memory"},
    Frame: {
        "data": "the content, counted for the rate of an incomplete message",
        "fin": "whether the message is complete",
        "opcode": "whether it is a ping or a pong",
    },
    uvicorn.Server: {
        "capture_signals": "does nothing: uvicorn would raise them again at the end",
        "force_exit": "a second signal ends it all",
        "handle_exit": "begins to drain",
        "lifespan": "has the service in its state, and is shut down last",
        "on_tick": "is asked ten times a second whether it is time to close",
        "server_state": "the connections, the tasks and the headers of all responses",
        "servers": "the listening sockets, closed first",
        "should_exit": "a second signal ends it all",
        "shutdown": "ends within a bound",
        "startup": "only then the process listens to signals, and its supervisor gets to know",
    },
    ServerState: {
        "connections": "are told to end, and cut when they do not",
        "default_headers": "the date, and what a draining server adds",
        "tasks": "are waited for",
        "total_requests": "uvicorn ends after so many, if it is told to",
    },
    LifespanOn: {
        "shutdown": "ends the application",
        "state": "what the application's lifespan yielded",
    },
}
# How our modules name objects of these classes. `self` and `super()` are our subclasses.
RECEIVERS: dict[str, dict[str, type]] = {
    "http": {
        "self": HttpToolsProtocol, "super()": HttpToolsProtocol, "self.parser": httptools.HttpRequestParser,
        "self.cycle": RequestResponseCycle, "cycle": RequestResponseCycle, "self.flow": FlowControl,
        "self.server_state": ServerState,
    },
    "responding": {
        "self": RequestResponseCycle, "super()": RequestResponseCycle, "self.flow": FlowControl,
    },
    "websocket": {
        "self": WebSocketsSansIOProtocol, "super()": WebSocketsSansIOProtocol, "self.conn": ServerProtocol,
        "self.conn.reader": StreamReader, "frame": Frame, "event": Frame,
    },
    "server": {
        "self": uvicorn.Server, "super()": uvicorn.Server, "self.server_state": ServerState, "state": ServerState,
        "self.lifespan": LifespanOn, "connection": HttpToolsProtocol,
    },
}  # fmt: skip
# The base of both protocols is ours; its names are theirs as well.
BASES = {"connections": (HttpToolsProtocol, WebSocketsSansIOProtocol)}


def tree_of(module: str) -> ast.Module:
    return ast.parse((SERVER / f"{module}.py").read_text())


def names_of(kind: type) -> set[str]:
    """Return the attributes of a class and its objects, but for what every class has."""
    names = set(dir(kind)) - set(dir(object))
    for base in kind.__mro__:
        if base.__module__.startswith(PACKAGES):
            names |= set(inspect.get_annotations(base))
            with contextlib.suppress(OSError, TypeError):  # a compiled class: all its names are in dir()
                names |= set(names_set_in(ast.parse(inspect.getsource(base))))
    return names


def names_set_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def names_used(module: str) -> Iterator[tuple[type, str]]:
    """Yield what a module of ours reads, sets, calls or defines on objects of others' classes."""
    receivers = RECEIVERS[module]
    tree = tree_of(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (kind := receivers.get(ast.unparse(node.value))):
            yield kind, node.attr
    yield from ((receivers["self"], name) for name in names_defined(tree))


def names_defined(tree: ast.Module) -> Iterator[str]:
    for definition in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for node in definition.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


@for_each("kind", USED)
def test_the_names_that_the_server_is_built_on_are_there(kind: type) -> None:
    assert sorted(set(USED[kind]) - names_of(kind)) == []


def test_the_modules_that_the_server_is_built_on_have_what_is_imported() -> None:
    modules = {name: name.rpartition(".") for name in IMPORTED}

    assert [
        name for name, (module, _, own) in modules.items() if not hasattr(importlib.import_module(module), own)
    ] == []


def test_the_request_of_uvicorn_can_become_ours() -> None:
    cycle = object.__new__(RequestResponseCycle)

    cycle.__class__ = Cycle

    assert isinstance(cycle, Cycle)


def test_the_server_uses_no_other_names_of_uvicorn_and_all_of_these() -> None:
    used = {each for module in RECEIVERS for each in names_used(module)}
    used |= {
        (kind, name) for module, kinds in BASES.items() for name in names_defined(tree_of(module)) for kind in kinds
    }
    known = {kind: names_of(kind) for kind in USED}
    listed = {(kind, name) for kind, names in USED.items() for name in names}
    theirs = {(kind, name) for kind, name in used if name in known[kind]} - {(uvicorn.Server, "__init__")}

    assert sorted(f"{kind.__name__}.{name} is not listed" for kind, name in theirs - listed) == []
    assert sorted(f"{kind.__name__}.{name} is not used" for kind, name in listed - used) == []


def test_the_server_imports_nothing_else_of_uvicorn_and_all_of_this() -> None:
    imported: set[str] = set()
    for path in SERVER.glob("*.py"):
        for node in ast.walk(tree_of(path.stem)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in PACKAGES:
                imported.add(ast.unparse(node))

    assert imported == set(IMPORTED)
