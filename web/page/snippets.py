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
    """One value of the sample.

    Attributes:
        title: its name for people, with its unit.
        value: a number as JSON has it, a word, or what a person types for no value.
        is_word: whether the feature is a category.
        is_missing: whether there is no value.
    """

    key: str
    title: str
    value: str
    is_word: bool = False
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class SnippetContext:
    """The data of all snippets.

    Attributes:
        address: the address of the service as its callers see it, with a slash at its end.
        model: the model's name.
        inputs: the sample, in the order of the features.
        needs_token: whether programs must send a token.
        is_quantity: whether the answer is a value and not a label.
    """

    address: str
    model: str
    inputs: Sequence[Input]
    needs_token: bool
    is_quantity: bool = False

    @property
    def stream(self) -> str:
        """The address of the websocket."""
        return f"ws{self.address.removeprefix('http')}stream"

    @property
    def has_words(self) -> bool:
        """Whether some features are categories."""
        return any(one.is_word for one in self.inputs)

    @property
    def members(self) -> tuple[str, str]:
        """The members of the answer that are of interest."""
        return ("value", "interval") if self.is_quantity else ("label", "probabilities")

    @property
    def outputs(self) -> Sequence[str]:
        """The output tensors of the Open Inference Protocol."""
        return ("value",) if self.is_quantity else ("label", "probabilities")


def curl(call: SnippetContext) -> str:
    """Return a shell command that posts the sample as JSON."""
    return _post(call, "predict", f'{{"sample": {_sample(call, indent=1)}}}')


def inference(call: SnippetContext) -> str:
    """Return a shell command that asks by the Open Inference Protocol."""
    return _post(call, f"v2/models/{quote(call.model, safe='')}/infer", f'{{"inputs": [{_tensors(call)}]}}')


def _tensors(call: SnippetContext) -> str:
    """Return the input tensors in JSON: one of all features, or one a feature where some are words."""
    if not call.has_words:
        rows = _filled([_value(one) for one in call.inputs], "[]", indent=1)
        return f'{{"name": "{SAMPLES}", "shape": [1, {len(call.inputs)}], "datatype": "FP64",\n  "data": {rows}}}'
    tensors = (
        f'{{"name": {_text(one.key)}, "shape": [1], "datatype": "{"BYTES" if one.is_word else "FP64"}", '
        f'"data": [{_value(one)}]}}'
        for one in call.inputs
    )
    return "\n  " + ",\n  ".join(tensors)


def python(call: SnippetContext) -> str:
    """Return a Python program that asks on the websocket; it needs the package websockets."""
    os = "import os\n" if call.needs_token else ""
    headers = f"headers = {_python_headers()}\n" if call.needs_token else ""
    with_headers = ", additional_headers=headers" if call.needs_token else ""
    first, second = call.members
    return (
        f"import json\n{os}from websockets.sync.client import connect\n\n"
        f"sample = {_sample(call, wide=_python_escape, none='None')}\n{headers}"
        f"with connect({_text(call.stream)}{with_headers}) as stream:\n"
        "    stream.recv()  # the model\n"
        '    stream.send(json.dumps({"id": 1, "sample": sample}))\n'
        "    answer = json.loads(stream.recv())\n"
        f'print(answer["{first}"], answer["{second}"])\n'
    )


def tritonclient(call: SnippetContext) -> str:
    """Return a Python program that asks by the Open Inference Protocol; it needs the package tritonclient[http]."""
    url = urlsplit(call.address)
    server = _text(url.netloc + url.path.rstrip("/")) + (", ssl=True" if url.scheme == "https" else "")
    os = "import os\n" if call.needs_token else ""
    headers = f"headers = {_python_headers()}\n" if call.needs_token else ""
    with_headers = ", headers=headers" if call.needs_token else ""
    printed = ", ".join(f'answer.as_numpy("{name}")' for name in call.outputs)
    return (
        f"{os}import numpy as np\nimport tritonclient.http as triton\n\n"
        f"client = triton.InferenceServerClient({server})\n{headers}"
        f"{_triton_inputs(call)}"
        f"answer = client.infer({_text(call.model, wide=_python_escape)}, inputs{with_headers})\n"
        f"print({printed})\n"
    )


def _triton_inputs(call: SnippetContext) -> str:
    """Return the lines of Python that make the input tensors."""
    if not call.has_words:
        rows = _filled([_value(one, none="np.nan") for one in call.inputs], "[]")
        return (
            f"rows = np.array([{rows}], float)\n"
            f'inputs = [triton.InferInput("{SAMPLES}", rows.shape, "FP64").set_data_from_numpy(rows)]\n'
        )
    values = {
        one.key: '""' if one.is_word and one.is_missing else _value(one, wide=_python_escape, none="np.nan")
        for one in call.inputs
    }
    sample = _filled([f"{_text(key, wide=_python_escape)}: {value}" for key, value in values.items()], "{}")
    return (
        f"sample = {sample}\n"
        "inputs = []\n"
        "for name, value in sample.items():\n"
        '    datatype, dtype = ("BYTES", object) if isinstance(value, str) else ("FP64", float)\n'
        "    tensor = triton.InferInput(name, [1], datatype)\n"
        "    inputs.append(tensor.set_data_from_numpy(np.array([value], dtype)))\n"
    )


def javascript(call: SnippetContext) -> str:
    """Return a JavaScript module that posts the sample as JSON: for Node, and for pages of this service."""
    # A page of this service has a cookie instead, and no process.
    token = f'"Authorization": `Bearer ${{globalThis.process?.env.{TOKEN_VARIABLE}}}`' if call.needs_token else ""
    headers = _filled(['"Content-Type": "application/json"', *([token] if token else [])], "{}", indent=1)
    first, second = call.members
    return (
        f"const sample = {_sample(call, in_javascript=True)};\n"
        f"const response = await fetch({_text(call.address + 'predict')}, {{\n"
        '  method: "POST",\n'
        f"  headers: {headers},\n"
        "  body: JSON.stringify({ sample }),\n"
        "});\n"
        f"const {{ {first}, {second} }} = await response.json();\n"
        f"console.log({first}, JSON.stringify({second}));\n"
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
    call: SnippetContext,
    *,
    indent: int = 0,
    wide: Callable[[str], str] = _json_escape,
    none: str = "null",
    in_javascript: bool = False,
) -> str:
    """Return the sample as an object, or as an array when it is long."""
    values = [_value(one, wide=wide, none=none) for one in call.inputs]
    if len(call.inputs) > NAMED_FEATURES:
        return _filled(values, "[]", indent=indent)
    key_of = _javascript_key if in_javascript else functools.partial(_text, wide=wide)
    named = zip(call.inputs, values, strict=True)
    return _filled([f"{key_of(one.key)}: {value}" for one, value in named], "{}", indent=indent)


def _value(one: Input, *, wide: Callable[[str], str] = _json_escape, none: str = "null") -> str:
    """Return a value as JSON, JavaScript and Python have it, with their own word for none."""
    return none if one.is_missing else _text(one.value, wide=wide) if one.is_word else one.value


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
