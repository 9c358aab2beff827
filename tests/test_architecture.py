"""The architecture: which module may import which, and what a server never loads."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import for_each

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("ml/**/*.py"), *ROOT.glob("web/**/*.py")])
ML = [path for path in SOURCES if path.is_relative_to(ROOT / "ml")]
WEB = [path for path in SOURCES if path.is_relative_to(ROOT / "web")]
# Where models are trained: scikit-learn may be imported there, inside functions.
TRAINING = {"ml/training/iris.py", "ml/training/fitting.py"}
# Packages and modules, layer by layer: each may import from layers below its own, and nothing else of ours. A package
# stands here as one name; so does a module that lies in `ml/` or `web/` itself.
LAYERS = (
    {"ml.errors"},
    {"ml.tables"},
    {"ml.model"},
    {"ml.importing", "ml.scoring"},
    {"ml.estimators"},
    {"ml.training"},
    {"ml"},
    {"ml.cli"},
    {"ml.jobs"},
    {"ml.__main__"},
    {"web", "web.settings", "web.logs", "web.problems"},
    {"web.requests"},
    {"web.responses", "web.metrics", "web.models"},
    {"web.middleware"},
    {"web.service"},
    {"web.server", "web.api"},
    {"web.oip", "web.scoring"},
    {"web.client", "web.page"},
    {"web.errors", "web.predict"},
    {"web.app"},
    {"web.__main__"},
)
MOST_MODULES = 12  # directly in `ml/` or `web/`
MOST_LINES = 300
# Compiled code, imported by models that need it.
COMPILED = {"ml/model/kernels.py", "ml/model/explanation_kernels.py"}
# What each side may import besides Python's own library.
ML_PACKAGES = {"ml", "numpy", "msgspec"}
WEB_PACKAGES = {
    "web", "ml", "numpy", "msgspec", "starlette", "jinja2", "uvicorn", "python_multipart", "prometheus_client",
    "babel", "markupsafe",
}  # fmt: skip
SERVER_PACKAGES = {"httptools", "websockets"}  # the parsers beneath uvicorn
COMMAND_LINE = {"ml/__main__.py", "ml/jobs/command.py", "ml/training/progress.py"}
COMMAND_LINE_PACKAGES = {"tqdm"}  # progress on a terminal
CLIENT_PACKAGES = {"websockets", "tqdm"}  # a program that streams to the server is none itself
# What reads files that are no text; imported when there is such a file.
READERS = {
    "ml/tables/sheet.py": {"openpyxl"},
    "ml/tables/parquet.py": {"pyarrow"},
    "ml/tables/typed.py": {"pyarrow"},
    "ml/scoring/answers.py": {"pyarrow"},
    "ml/scoring/parquet_process.py": {"pyarrow"},
    "ml/scoring/parquet.py": {"pyarrow"},
    "ml/jobs/copying.py": {"pyarrow"},
    "ml/jobs/cluster.py": {"ray"},
}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv"}
UNSAFE_CALLS = {
    "np.load", "numpy.load", "np.save", "np.savez", "np.fromfile", "eval", "exec", "__import__",
}  # fmt: skip
SERIALIZERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "copyreg", "dbm"}
FLOWERS = re.compile(r"setosa|versicolor|virginica|petal|sepal|iris", re.IGNORECASE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Return all nodes of a module: to walk through every module takes 0.2 s, and most rules look at all of them."""
    return list(ast.walk(tree_of(path)))


def imports_of(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the full name of everything imported by some statements."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level_imports_of(path: Path) -> set[str]:
    """Return the packages that importing the module imports: functions are left out."""
    inside = {
        id(node)
        for function in nodes_of(path)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    return {name.split(".")[0] for name in imports_of(node for node in nodes_of(path) if id(node) not in inside)}


def packages_of(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(nodes_of(path))}


def test_there_are_sources_to_look_at() -> None:
    assert {"ml/model/forest.py", *TRAINING} <= set(map(name_of, ML))
    assert {"web/app.py", "web/api/stream.py"} <= set(map(name_of, WEB))


def offenders(paths: list[Path], reasons: Callable[[Path], Iterable[str]]) -> list[str]:
    """Return, for each file that breaks a rule, its name and what breaks it."""
    return [f"{name_of(path)}: {reason}" for path in paths for reason in reasons(path)]


def test_ml_imports_numpy_msgspec_and_itself() -> None:
    def foreign(path: Path) -> set[str]:
        allowed = ML_PACKAGES | sys.stdlib_module_names
        if name_of(path) in TRAINING:
            allowed |= {"sklearn"}
        if name_of(path) in COMPILED:
            allowed |= {"numba"}
        allowed |= READERS.get(name_of(path), set())
        if name_of(path) in COMMAND_LINE:
            allowed |= COMMAND_LINE_PACKAGES
        return packages_of(path) - allowed

    assert offenders(ML, foreign) == []


def test_web_imports_what_serves_and_never_what_trains() -> None:
    def foreign(path: Path) -> set[str]:
        allowed = WEB_PACKAGES | sys.stdlib_module_names
        allowed |= {"client": CLIENT_PACKAGES, "server": SERVER_PACKAGES}.get(path.parent.name, set())
        training = {name for name in imports_of(nodes_of(path)) if name.startswith("ml.training")}
        return (packages_of(path) - allowed) | training

    assert offenders(WEB, foreign) == []


def test_scikit_learn_is_imported_only_inside_functions_that_train() -> None:
    def imports(path: Path) -> set[str]:
        imported = top_level_imports_of(path) if name_of(path) in TRAINING else packages_of(path)
        return imported & {"sklearn"}

    assert offenders(SOURCES, imports) == []


def attributes_of(path: Path) -> set[str]:
    return {node.attr for node in nodes_of(path) if isinstance(node, ast.Attribute)}


def test_ml_reads_no_environment_variables_and_speaks_no_http() -> None:
    def uses(path: Path) -> set[str]:
        elsewhere = ("os.environ", "os.getenv", "http", "urllib", "socket")
        found = set() if path.match("ml/jobs/cluster.py") else attributes_of(path) & ENVIRONMENT  # it sets one for Ray
        return found | {name for name in imports_of(nodes_of(path)) if name.startswith(elsewhere)}

    # How long Ray tries to reach a cluster is said to it by a variable alone, which is set there.
    others = [path for path in ML if path != ROOT / "ml/jobs/cluster.py"]
    assert offenders(others, uses) == []


def test_web_reads_the_environment_in_its_settings_alone() -> None:
    others = [path for path in WEB if path.name != "settings.py"]

    assert offenders(others, lambda path: attributes_of(path) & ENVIRONMENT) == []


def test_no_source_file_pickles() -> None:
    assert offenders(SOURCES, pickling_in) == []


def pickling_in(path: Path) -> Iterator[str]:
    yield from packages_of(path) & SERIALIZERS
    for node in nodes_of(path):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield "allow_pickle"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {keyword.arg for keyword in node.keywords}
            if name in UNSAFE_CALLS or (
                name.endswith(("read_array", "write_array")) and "allow_pickle" not in keywords
            ):
                yield name


# What may stand at the top of a module: definitions, and constants made by a class or by one of these.
MAKERS = {
    "re.compile", "math.nextafter", "logging.getLogger", "np.dtype", "np.uint64", "field", "msgspec.field",
    "dataclasses.field", "dict", "frozenset", "len", "list", "range", "set", "sorted", "tuple", "zip", "_setting",
    "_seconds", "_bytes",
}  # fmt: skip
DECORATORS = {"dataclass", "lru_cache", "cache", "contextmanager", "asynccontextmanager", "property", "classmethod",
              "cached_property", "staticmethod", "abstractmethod", "overload", "override", "total_ordering",
              "runtime_checkable", "contextlib.contextmanager", "contextlib.asynccontextmanager", "njit"}  # fmt: skip


def work_in(body: list[ast.stmt]) -> Iterator[str]:
    """Yield what statements do besides defining, each as source text."""
    for node in body:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant()):
                continue
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from (d for d in map(decorator_of, node.decorator_list) if d not in DECORATORS)
                if isinstance(node, ast.ClassDef):
                    yield from work_in(node.body)
            case ast.Assign() | ast.AnnAssign():
                yield from work_in_value(node)
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case _:
                yield ast.unparse(node)


def decorator_of(node: ast.expr) -> str:
    name = ast.unparse(node.func if isinstance(node, ast.Call) else node)
    return "property" if name.endswith((".setter", ".getter")) else name


def work_in_value(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            function = ast.unparse(part.func)
            last = function.rsplit(".", 1)[-1]
            is_class = last.lstrip("_")[:1].isupper()
            if not (is_class or function in MAKERS or last in {"encode", "items", "keys", "values"}):
                yield ast.unparse(part)
        elif isinstance(part, ast.Await | ast.NamedExpr | ast.Yield):
            yield ast.unparse(part)


def test_nothing_but_definitions_happens_at_import() -> None:
    assert offenders(SOURCES, lambda path: work_in(tree_of(path).body)) == []


AUDIT = """
import sys, threading
import {imports}
for name in [name for name in sys.modules if name.split(".")[0] in ("ml", "web")]:
    del sys.modules[name]

def own_work():
    # The nearest frame that is ours, unless Python's import machinery stands before it: reading a module is no work.
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return False
        if frame.f_code.co_filename.startswith({root!r}):
            return True
        frame = frame.f_back
    return False

watched = ("open", "socket.", "subprocess.", "os.", "tempfile.", "shutil.")
seen = []

def watch(event, arguments):
    if event.startswith(watched) and own_work():
        seen.append((event, arguments))

sys.addaudithook(watch)
import {imports}
assert not seen, seen
assert threading.active_count() == 1, threading.enumerate()
assert not {heavy!r} & set(sys.modules), {heavy!r} & set(sys.modules)
print(len([name for name in sys.modules if name.split(".")[0] in ("ml", "web")]))
"""
HEAVY = {
    "openpyxl",
    "pyarrow",
    "sklearn",
    "scipy",
    "joblib",
    "pandas",
    "django",
    "django_htmx",
    "threadpoolctl",
    "numba",
    "llvmlite",
}


def run(code: str, *, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_every_module_opens_no_file_and_no_connection(tmp_path: Path) -> None:
    sources = [path for path in SOURCES if name_of(path) not in COMPILED]
    modules = [name_of(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__") for path in sources]

    printed = run(AUDIT.format(imports=", ".join(modules), root=str(ROOT), heavy=HEAVY), cwd=tmp_path)

    assert int(printed) == len(sources)
    assert os.listdir(tmp_path) == []


SERVE = """
import sys
from starlette.testclient import TestClient
from web.app import create_app

with TestClient(create_app()) as client:
    query = "sepal_length=5.6&sepal_width=2.7&petal_length=4.2&petal_width=1.3"
    assert "versicolor" in client.get("/").raise_for_status().text
    answer = client.get("/predict?" + query, headers={{"Accept": "application/json"}}).raise_for_status().json()
    assert answer["label"] == "versicolor", answer
    fragment = client.get("/predict?" + query, headers={{"HX-Request": "true"}}).raise_for_status().text
    assert "versicolor" in fragment
    answers = client.post("/predict", json={{"samples": [[5.6, 2.7, 4.2, 1.3]] * 3}}).raise_for_status().json()
    assert [one["label"] for one in answers["predictions"]] == ["versicolor"] * 3
    with client.websocket_connect("/stream") as stream:
        assert stream.receive_json()["type"] == "model"
        stream.send_json({{"id": 1, "sample": [5.6, 2.7, 4.2, 1.3]}})
        assert stream.receive_json()["label"] == "versicolor"
    assert "htmx" in client.get("/static/htmx-2.min.js").raise_for_status().text
loaded = {heavy!r} & set(sys.modules)
assert not loaded, loaded
"""


def test_a_server_in_any_folder_with_a_model_file_never_loads_scikit_learn_or_django(
    model_path: Path, tmp_path: Path
) -> None:
    shutil.copy(model_path, tmp_path / "model.npz")

    run(SERVE.format(heavy=HEAVY), cwd=tmp_path)


def words_of(path: Path) -> Iterator[str]:
    """Yield the names and texts of a module; docstrings may tell an example, and comments a measurement."""
    docstrings = set()
    for node in nodes_of(path):
        # A text that stands alone is read by people only, as the docstring of what is above it.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(id(node.value))
    for node in nodes_of(path):
        match node:
            case ast.Constant(value=str() as text) if id(node) not in docstrings:
                yield text
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.keyword(arg=str() as name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name for alias in aliases)


def flowers_in(path: Path) -> list[str]:
    found = [word for word in words_of(path) if FLOWERS.search(word)]
    if name_of(path) == "ml/__main__.py":
        found = [word for word in found if word != "iris"]  # the built-in data set is imported, and loaded by default
    return found


def test_the_built_in_data_set_is_where_the_flowers_are() -> None:
    assert {"petal width", "iris"} <= set(flowers_in(ROOT / "ml/training/iris.py"))


def test_no_other_module_knows_about_flowers() -> None:
    assert offenders([path for path in SOURCES if path.name != "iris.py"], flowers_in) == []


def test_no_template_and_no_static_file_knows_about_flowers() -> None:
    files = [path for folder in ("templates", "static") for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = [path for path in files if path.suffix != ".png"]

    assert texts
    assert offenders(texts, lambda path: FLOWERS.findall(path.read_text())) == []


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(path): path for path in SOURCES}


def arrows_of(path: Path) -> set[str]:
    """Return the modules of ours that a module imports."""
    names = {name for name in imports_of(nodes_of(path)) if name.split(".")[0] in ("ml", "web")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names}


def package_of(module: str) -> str:
    """Return what stands in `LAYERS` for a module: its package in `ml/` or `web/`, or the module itself."""
    return ".".join(module.split(".")[:2])


def test_every_package_has_a_layer_and_imports_from_those_below_alone() -> None:
    layers = {package: number for number, layer in enumerate(LAYERS) for package in layer}

    def upward(path: Path) -> Iterator[str]:
        own = package_of(module_of(path))
        for module in arrows_of(path):
            package = package_of(module)
            if package != own and layers[package] >= layers[own]:
                yield f"imports {module}, which is not below"

    assert sorted(layers) == sorted({package_of(module) for module in MODULES})
    assert offenders(SOURCES, upward) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    arrows = {module: arrows_of(path) - {module} for module, path in MODULES.items()}

    while free := {name for name, targets in arrows.items() if not targets & arrows.keys()}:
        for name in free:
            del arrows[name]

    assert arrows == {}, "these import each other in a circle"


def test_every_package_says_what_it_is_for_and_what_it_must_not_know() -> None:
    packages = {module: path for module, path in MODULES.items() if path.name == "__init__.py"}

    said = {package: ast.get_docstring(tree_of(path)) or "" for package, path in packages.items()}

    assert [package for package, text in said.items() if "Knows no" not in text and "imports" not in text] == []


def test_a_folder_and_a_module_stay_small() -> None:
    assert [top for top in ("ml", "web") if len(list((ROOT / top).glob("*.py"))) > MOST_MODULES] == []
    assert (
        offenders(
            SOURCES, lambda path: [f"{n} lines"] if (n := len(path.read_text().splitlines())) > MOST_LINES else []
        )
        == []
    )


def test_a_test_with_cases_shows_each_one_that_fails() -> None:
    @for_each("number", [1, 2])
    @for_each(("word", "size"), [("one", 3), ("four", 3), ("five", 5)])
    def check(word: str, size: int, number: int, fixture: str) -> None:
        assert len(word) == size or number == 1 or not fixture

    with pytest.raises(BaseExceptionGroup, match="1 of 2 cases fail") as caught:
        check(fixture="given")

    (of_two,) = caught.value.exceptions
    assert isinstance(of_two, BaseExceptionGroup)
    assert [error.__notes__ for error in (of_two, *of_two.exceptions)] == [
        ["in the case {'number': 2}"],
        ["in the case {'word': 'four', 'size': 3}"],
        ["in the case {'word': 'five', 'size': 5}"],
    ]
