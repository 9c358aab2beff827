"""One sample as text to copy into a program: a command, a script, a piece of a page.

Knows no templates and no requests. Each function returns text that runs unchanged. Every name, key and address in it is
escaped for the language around it, whatever the names of the features are. The token, if one is required, is never in
the text: the programs read it from their environment.
"""

from __future__ import annotations

import functools
import html
import json
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from web.oip.messages import SAMPLES

# Longer lists are continued on further lines.
LINE_CHARACTERS = 72
# A sample of more features is written as an array in the order of the features: one line holds a dozen numbers.
NAMED_FEATURES = 12
# The variable that the snippets read the token from.
TOKEN_VARIABLE = "API_TOKEN"  # noqa: S105  # its name, not a token
# Keys of an object that need no quotes.
_JAVASCRIPT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Input:
    """One value of the sample; `title` is its name for people, with its unit, and `value` a JSON number."""

    key: str
    title: str
    value: str


@dataclass(frozen=True, slots=True)
class SnippetContext:
    """The data of all snippets.

    Attributes:
        address: the address of the service as its callers see it, with a slash at its end.
        model: the model's name.
        inputs: the sample, in the order of the features.
        needs_token: whether programs must send a token.
    """

    address: str
    model: str
    inputs: Sequence[Input]
    needs_token: bool

    @property
    def stream(self) -> str:
        """The address of the websocket."""
        return f"ws{self.address.removeprefix('http')}stream"


def curl(call: SnippetContext) -> str:
    """Return a shell command that posts the sample as JSON."""
    return _post(call, "predict", f'{{"sample": {_sample(call, indent=1)}}}')


def inference(call: SnippetContext) -> str:
    """Return a shell command that asks by the Open Inference Protocol."""
    rows = _filled([one.value for one in call.inputs], "[]", indent=1)
    tensor = f'"name": "{SAMPLES}", "shape": [1, {len(call.inputs)}], "datatype": "FP64"'
    body = f'{{"inputs": [{{{tensor},\n  "data": {rows}}}]}}'
    return _post(call, f"v2/models/{quote(call.model, safe='')}/infer", body)


def python(call: SnippetContext) -> str:
    """Return a Python program that asks on the websocket; it needs the package websockets."""
    os = "import os\n" if call.needs_token else ""
    headers = f"headers = {_python_headers()}\n" if call.needs_token else ""
    with_headers = ", additional_headers=headers" if call.needs_token else ""
    return (
        f"import json\n{os}from websockets.sync.client import connect\n\n"
        f"sample = {_sample(call, wide=_python_escape)}\n{headers}"
        f"with connect({_text(call.stream)}{with_headers}) as stream:\n"
        "    stream.recv()  # the model\n"
        '    stream.send(json.dumps({"id": 1, "sample": sample}))\n'
        "    answer = json.loads(stream.recv())\n"
        'print(answer["label"], answer["probabilities"])\n'
    )


def tritonclient(call: SnippetContext) -> str:
    """Return a Python program that asks by the Open Inference Protocol; it needs the package tritonclient[http]."""
    url = urlsplit(call.address)
    server = _text(url.netloc + url.path.rstrip("/")) + (", ssl=True" if url.scheme == "https" else "")
    os = "import os\n" if call.needs_token else ""
    headers = f"headers = {_python_headers()}\n" if call.needs_token else ""
    with_headers = ", headers=headers" if call.needs_token else ""
    rows = _filled([one.value for one in call.inputs], "[]")
    return (
        f"{os}import numpy as np\nimport tritonclient.http as triton\n\n"
        f"client = triton.InferenceServerClient({server})\n"
        f"{headers}rows = np.array([{rows}], float)\n"
        f'samples = triton.InferInput("{SAMPLES}", rows.shape, "FP64").set_data_from_numpy(rows)\n'
        f"answer = client.infer({_text(call.model, wide=_python_escape)}, [samples]{with_headers})\n"
        'print(answer.as_numpy("label"), answer.as_numpy("probabilities"))\n'
    )


def javascript(call: SnippetContext) -> str:
    """Return a JavaScript module that posts the sample as JSON: for Node, and for pages of this service."""
    # A page of this service has a cookie instead, and no process.
    token = f'"Authorization": `Bearer ${{globalThis.process?.env.{TOKEN_VARIABLE}}}`' if call.needs_token else ""
    headers = _filled(['"Content-Type": "application/json"', *([token] if token else [])], "{}", indent=1)
    return (
        f"const sample = {_sample(call, in_javascript=True)};\n"
        f"const response = await fetch({_text(call.address + 'predict')}, {{\n"
        '  method: "POST",\n'
        f"  headers: {headers},\n"
        "  body: JSON.stringify({ sample }),\n"
        "});\n"
        "const { label, probabilities } = await response.json();\n"
        "console.log(label, JSON.stringify(probabilities));\n"
    )


def htmx(call: SnippetContext) -> str:
    """Return the HTML of a form that shows the prediction, for a page elsewhere that has loaded htmx 2."""
    inputs = "".join(
        f"  <label>{_html(one.title)} <input name={_attribute(one.key)} value={_attribute(one.value)}></label>\n"
        for one in call.inputs
    )
    return (
        """<meta name="htmx-config" content='{"selfRequestsOnly": false}'>\n"""
        f'<form hx-get={_attribute(call.address + "predict")} hx-trigger="load, input"\n'
        '  hx-target="#answer" hx-sync="this:queue last">\n'
        f'{inputs}</form>\n<div id="answer"></div>\n'
    )


def _post(call: SnippetContext, path: str, body: str) -> str:
    lines = [f"curl -s {shlex.quote(call.address + path)}", "-H 'Content-Type: application/json'"]
    if call.needs_token:
        lines.append(f'-H "Authorization: Bearer ${TOKEN_VARIABLE}"')
    return " \\\n  ".join([*lines, f"-d {shlex.quote(body)}"]) + "\n"


def _python_headers() -> str:
    return f'{{"Authorization": "Bearer " + os.environ["{TOKEN_VARIABLE}"]}}'


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def _python_escape(character: str) -> str:
    # Python takes a surrogate pair for two characters.
    return _json_escape(character) if ord(character) < 2**16 else f"\\U{ord(character):08x}"


def _text(text: str, *, wide: Callable[[str], str] = _json_escape) -> str:
    """Return text in double quotes as JSON, JavaScript and Python read it.

    Invisible characters are escaped; so is `<`, which ends a script in a page.
    """
    plain = json.dumps(text, ensure_ascii=False)
    if plain.isprintable() and "<" not in plain:
        return plain
    return "".join(
        "\\u003c" if character == "<" else character if character.isprintable() else wide(character)
        for character in plain
    )


def _sample(
    call: SnippetContext, *, indent: int = 0, wide: Callable[[str], str] = _json_escape, in_javascript: bool = False
) -> str:
    """Return the sample as an object, or as an array when it is long."""
    if len(call.inputs) > NAMED_FEATURES:
        return _filled([one.value for one in call.inputs], "[]", indent=indent)
    key_of = _javascript_key if in_javascript else functools.partial(_text, wide=wide)
    return _filled([f"{key_of(one.key)}: {one.value}" for one in call.inputs], "{}", indent=indent)


def _javascript_key(key: str) -> str:
    if key == "__proto__":
        return f"[{_text(key)}]"  # else it sets the object's prototype
    return key if _JAVASCRIPT_NAME.fullmatch(key) else _text(key)


def _filled(items: Iterable[str], brackets: str, *, indent: int = 0) -> str:
    """Return items between brackets: on one line if it is short, else on as many lines as it takes."""
    items = list(items)
    margin = "  " * indent
    if sum(len(item) + 2 for item in items) + len(margin) <= LINE_CHARACTERS:
        return brackets[0] + ", ".join(items) + brackets[1]
    lines = [""]
    for item in items:
        if lines[-1] and len(lines[-1]) + len(item) + 2 > LINE_CHARACTERS:
            lines.append("")
        lines[-1] += f" {item}," if lines[-1] else f"{margin}  {item},"
    lines[-1] = lines[-1].removesuffix(",")
    return "\n".join([brackets[0], *lines, margin + brackets[1]])


def _html(text: str) -> str:
    """Return text as HTML; invisible characters are escaped where HTML has an escape."""
    escaped = html.escape(text, quote=False)
    if escaped.isprintable():
        return escaped
    return "".join(
        character if character.isprintable() or 0x7F <= ord(character) < 0xA0 else f"&#{ord(character)};"
        for character in escaped
    )


def _attribute(text: str) -> str:
    return '"' + _html(text).replace('"', "&quot;") + '"'
