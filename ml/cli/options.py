"""The options of the command line, read and checked."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml.cli import arguments
from ml.cli.console import RELEASE
from ml.model.card import Recipe
from ml.tables.headers import word_of
from ml.training import history

DEFAULT_PATH = Path("model.npz")
ESTIMATORS = ("random-forest", "extra-trees", "decision-tree", "hist-gradient-boosting", "gradient-boosting")
# What scikit-learn itself takes where nothing is said, if that is not the same for all.
DEPTHS = {"gradient-boosting": 3}
LEAVES = {"hist-gradient-boosting": 20}

EXAMPLES = {
    "train": "table.csv --target species --out model.npz",
    "evaluate": "model.npz new.csv",
    "predict": "model.npz length=1.3 width=0.4",
    "score": "model.npz rows.csv --out answers.csv",
    "import": "model.json --data table.csv --out model.npz",
    "inspect": "model.npz",
    "rollback": "model.npz --list",
}

Commands = Any  # what `add_subparsers` returns, which has no public name
# The start of a negative number.
_NEGATIVE = re.compile(r"-[0-9.,]")


def read(words: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line; argparse wants all values of a sample side by side, and people do not."""
    whole = parser()
    options, left = whole.parse_known_args(words)
    if options.command == "predict" and all(word[:1] != "-" or _NEGATIVE.match(word) for word in left):
        options.values += left
    elif left:
        whole.error(f"unrecognized arguments: {' '.join(left)}")
    return options


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; the chosen one is `command`."""
    whole = argparse.ArgumentParser(prog="python -m ml", description="Train, check and use a model file.")
    whole.add_argument("--version", action="version", version=f"%(prog)s {RELEASE}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="command")
    for add in (_add_train, _add_evaluate, _add_predict, _add_scoring, _add_import, _add_inspect, _add_rollback):
        add(commands)
    for name, example in EXAMPLES.items():
        commands.choices[name].epilog = f"example: python -m ml {name} {example}"
    whole.epilog = f"example: python -m ml train {EXAMPLES['train']}"
    return whole


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Return the recipe that the options of `train` stand for."""
    return Recipe(
        estimator=options.estimator,
        n_estimators=options.trees,
        max_depth=options.depth or DEPTHS.get(options.estimator),
        min_samples_leaf=options.leaf or LEAVES.get(options.estimator, 1),
        seed=options.seed,
        test_size=options.test_size,
        balanced_class_weight=options.balanced,
    )


def _add_train(commands: Commands) -> None:
    train = commands.add_parser("train", help="train on a table, or on the built-in data, and write a model file")
    train.add_argument(
        "data", nargs="?", type=Path, metavar="FILE", help="table with a column to predict; default: the built-in data"
    )
    _add_out(train)
    _add_reading(train)
    recipe = Recipe()
    train.add_argument(
        "--estimator", choices=ESTIMATORS, default=recipe.estimator, metavar="NAME",
        help=f"scikit-learn estimator to fit: {', '.join(ESTIMATORS)}; default: %(default)s",
    )  # fmt: skip
    count = arguments.count
    _value(train, "--trees", "N", "number of trees (n_estimators)", count, default=recipe.n_estimators)
    _value(train, "--depth", "N", "maximum depth of a tree (max_depth); default: no maximum; for gradient-boosting 3",
           count)  # fmt: skip
    _value(train, "--leaf", "N", "minimum number of rows in a leaf (min_samples_leaf); default: 1; for "
           "hist-gradient-boosting 20", count)  # fmt: skip
    _value(train, "--seed", "N", "seed of the random numbers (random_state)", arguments.seed, default=recipe.seed)
    _value(train, "--test-size", "SHARE", "share of the rows for testing, between 0 and 1", arguments.share,
           default=recipe.test_size)  # fmt: skip
    _flag(train, "--balanced", "balance the class weights (class_weight); default: all rows weigh the same")
    _add_threshold(train)
    _flag(train, "--no-samples", "store no training rows, which pictures and examples need, in the model file")


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="measure a model file on a table, or again on the rows it was not trained on"
    )
    _add_model(evaluate)
    evaluate.add_argument(
        "table", nargs="?", type=Path, metavar="FILE", help="table with the true answers in the column --target"
    )
    _value(evaluate, "--data", "FILE", "training table; default: the built-in data", Path)
    _add_reading(evaluate)


def _add_predict(commands: Commands) -> None:
    predict = commands.add_parser(
        "predict",
        help="predict one sample, and say what would change the answer",
        usage="python -m ml predict [-h] [--json] [MODEL.npz] (NAME=VALUE ... | VALUE ...)",
    )
    predict.add_argument(
        "values", nargs="+", metavar="VALUE",
        help="values of the sample, each with the name of its feature, e.g. length=1.3, or all in the order of the "
        f"features; a model file, which ends in .npz, may come first; default: {DEFAULT_PATH}",
    )  # fmt: skip
    _value(predict, "--model", "FILE", "model file, whatever its name ends in", Path)
    _flag(predict, "--json", "print the answer as JSON, as POST /predict gives it")
    # argparse knows "-1" and "-.5" as numbers, but takes "-1e3" and "-,5" for options.
    predict._negative_number_matcher = _NEGATIVE


def _add_import(commands: Commands) -> None:
    importing = commands.add_parser(
        "import",
        help="read a model of XGBoost, LightGBM, CatBoost or scikit-learn from its file, and write a model file",
        description="Reads XGBoost's JSON or UBJSON, LightGBM's text, CatBoost's JSON, or an estimator of scikit-learn "
        "saved by skops, as data: none of these libraries is needed. The rows of --data give ranges, examples, the "
        "answers that the file is checked with at each start, and the report; without them the command says what the "
        "file says of itself.",
    )
    importing.add_argument("model", type=Path, metavar="FILE", help="model file of another library")
    _value(importing, "--data", "FILE", "table with the features and the true answers, best of rows not trained on",
           Path)  # fmt: skip
    _add_out(importing)
    _value(importing, "--labels", "A,B,...", "names of the classes in the order of the model's; default: those in the "
           "file, or else in the table", arguments.names, default=())  # fmt: skip
    _flag(importing, "--insist", "write a model that is worse than always giving the most frequent answer")
    _add_threshold(importing)
    _add_columns(importing)


def _add_inspect(commands: Commands) -> None:
    _add_model(commands.add_parser("inspect", help="show the card of a model file"))


def _add_rollback(commands: Commands) -> None:
    rollback = commands.add_parser(
        "rollback",
        help="restore a replaced model file",
        description=f"Training keeps the last {history.KEPT_FILES} replaced files beside the new one, named by their "
        "versions. Rolling back restores one of them and keeps the file that it replaces, so that a second rollback "
        "undoes the first. A running server loads the restored file.",
    )
    _add_model(rollback)
    choice = rollback.add_mutually_exclusive_group()
    _value(choice, "--to", "VERSION", "version to restore; default: the last replaced one", arguments.version)
    _flag(choice, "--list", "list the kept files, and restore none")


def _add_scoring(commands: Commands) -> None:
    scoring = commands.add_parser("score", help="add label and probabilities to the rows of tables")
    scoring.add_argument("model", type=Path, help="model file")
    scoring.add_argument(
        "rows", nargs="+", metavar="INPUT",
        help="CSV, Excel, JSON or Parquet file to score, folder or pattern of them; -: standard input",
    )  # fmt: skip
    _value(scoring, "--out", "OUTPUT", "file to write, or for several inputs a folder; default: -, standard output",
           default="-")  # fmt: skip
    scoring.add_argument(
        "--to", choices=("csv", "parquet"), default="", help="kind of file to write; default: that of the input"
    )
    arguments.add_marks(scoring)
    _add_file(scoring)
    _flag(scoring, "--explain", "add a column with the contribution of each feature: with contribution_base they sum "
          "up to the answer")  # fmt: skip
    _flag(scoring, "--strict", "stop at the first row without a prediction")
    _flag(scoring, "--guarded", "quote cells that a spreadsheet would take for formulas")
    scoring.add_argument(
        "--engine", choices=("local", "ray"), default="local",
        help="engine that scores the files: local, one after the other, or ray, several at once; default: local",
    )  # fmt: skip
    _value(scoring, "--address", None, "HOST:PORT of a Ray cluster, or auto; default: Ray on this machine")
    _value(scoring, "--workers", "N", "number of Ray processes; default: one for each processor", arguments.count)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", type=Path, default=DEFAULT_PATH, help="model file; default: %(default)s")


def _add_out(parser: argparse.ArgumentParser) -> None:
    _value(parser, "--out", "FILE", "model file to write", Path, default=DEFAULT_PATH)


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-header", action="store_false", dest="has_header", help="read no header: columns are column_1 and so on"
    )
    _value(parser, "--encoding", None, "encoding of text; default: found out from the file")
    _value(parser, "--sheet", "NAME", "sheet of an Excel file; default: the first one with cells")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    _add_columns(parser)
    kind = parser.add_mutually_exclusive_group()
    for name, what in (
        ("classes", "predict a class, even of numbers"),
        ("quantity", "predict a number; default: where the column has many different ones"),
    ):
        kind.add_argument(f"--{name}", action="store_const", const=name, dest="kind", help=what)
    _values(parser, "--keep", "COLUMN", "name of a column to learn from even if it looks like an identifier, text or "
            "dates")  # fmt: skip


def _add_columns(parser: argparse.ArgumentParser) -> None:
    _value(parser, "--target", "COLUMN", "name of the column to predict; default: one called class, target, label, "
           "species or outcome, else the last one")  # fmt: skip
    _values(parser, "--drop", "COLUMN", "name of a column to ignore")
    _values(parser, "--missing", "TEXT", "text of a cell that stands for no value, besides NA, ? and the like", word_of)
    arguments.add_marks(parser)
    _add_file(parser)
    _values(parser, "--limits", "KEY=MIN:MAX", "lowest and highest value of a feature, e.g. length=0:20, 0: or :20",
            arguments.limits)  # fmt: skip
    _value(parser, "--name", None, "name of the model; default: the name of the file")


def _add_threshold(parser: argparse.ArgumentParser) -> None:
    _value(parser, "--threshold", "[CLASS=]SHARE", "least probability with which CLASS, or else the second of two "
           "classes, is the answer; default: the most probable class is", arguments.threshold)  # fmt: skip


def _value(
    parser: Any, name: str, metavar: str | None, what: str, kind: Callable[[str], object] = str, *, default: Any = None
) -> None:
    """Add an option with a value; a default of its own is shown behind `what`, which says else what happens."""
    if default not in (None, ()) and "default" not in what:
        what += "; default: %(default)s"
    parser.add_argument(name, type=kind, default=default, metavar=metavar, help=what)


def _values(
    parser: argparse.ArgumentParser, name: str, metavar: str, what: str, kind: Callable[[str], object] = str
) -> None:
    """Add an option that may be repeated."""
    parser.add_argument(name, action="append", type=kind, default=[], metavar=metavar, help=f"{what}; may be repeated")


def _flag(parser: Any, name: str, what: str) -> None:
    parser.add_argument(name, action="store_true", help=what)
