"""The options of the command line, read and checked."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml.cli import arguments
from ml.cli.console import RELEASE
from ml.model.card import Recipe
from ml.tables.headers import word_of
from ml.tables.marks import THOUSANDS
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
        "data",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="table with a column to predict; default: the built-in data",
    )
    train.add_argument(
        "--out", type=Path, default=DEFAULT_PATH, metavar="FILE", help="model file to write; default: %(default)s"
    )
    _add_reading(train)
    recipe = Recipe()
    train.add_argument(
        "--estimator", choices=ESTIMATORS, default=recipe.estimator,
        help=f"scikit-learn estimator to fit: {', '.join(ESTIMATORS)}; default: %(default)s", metavar="NAME",
    )  # fmt: skip
    train.add_argument(
        "--trees", type=arguments.count, default=recipe.n_estimators, metavar="N",
        help="number of trees (n_estimators); default: %(default)s",
    )  # fmt: skip
    train.add_argument(
        "--depth", type=arguments.count, metavar="N",
        help="maximum depth of a tree (max_depth); default: no maximum; for gradient-boosting 3",
    )  # fmt: skip
    train.add_argument(
        "--leaf", type=arguments.count, metavar="N",
        help="minimum number of rows in a leaf (min_samples_leaf); default: 1; for hist-gradient-boosting 20",
    )  # fmt: skip
    train.add_argument(
        "--seed", type=arguments.seed, default=recipe.seed, metavar="N",
        help="seed of the random numbers (random_state); default: %(default)s",
    )  # fmt: skip
    train.add_argument(
        "--test-size", type=arguments.share, default=recipe.test_size, metavar="SHARE",
        help="share of the rows for testing, between 0 and 1; default: %(default)s",
    )  # fmt: skip
    train.add_argument(
        "--balanced",
        action="store_true",
        help="balance the class weights (class_weight); default: all rows weigh the same",
    )
    _add_threshold(train)
    train.add_argument(
        "--no-samples",
        action="store_true",
        help="store no training rows, which pictures and examples need, in the model file",
    )


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="measure a model file on a table, or again on the rows it was not trained on"
    )
    evaluate.add_argument("model", nargs="?", type=Path, default=DEFAULT_PATH, help="model file; default: %(default)s")
    evaluate.add_argument(
        "table", nargs="?", type=Path, metavar="FILE", help="table with the true answers in the column --target"
    )
    evaluate.add_argument("--data", type=Path, metavar="FILE", help="training table; default: the built-in data")
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
    predict.add_argument("--model", type=Path, metavar="FILE", help="model file, whatever its name ends in")
    predict.add_argument("--json", action="store_true", help="print the answer as JSON, as POST /predict gives it")
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
    importing.add_argument(
        "--data", type=Path, metavar="FILE", help="table with features and true answers, best of rows not trained on"
    )
    importing.add_argument(
        "--out", type=Path, default=DEFAULT_PATH, metavar="FILE", help="model file to write; default: %(default)s"
    )
    importing.add_argument(
        "--labels", type=arguments.names, default=(), metavar="A,B,...",
        help="names of the classes in the order of the model's; default: those in the file, or else in the table",
    )  # fmt: skip
    importing.add_argument(
        "--insist", action="store_true", help="write a model that is worse than always giving the most frequent answer"
    )
    _add_threshold(importing)
    _add_columns(importing)


def _add_inspect(commands: Commands) -> None:
    inspect = commands.add_parser("inspect", help="show the card of a model file")
    inspect.add_argument("model", nargs="?", type=Path, default=DEFAULT_PATH, help="model file; default: %(default)s")


def _add_rollback(commands: Commands) -> None:
    rollback = commands.add_parser(
        "rollback",
        help="restore a replaced model file",
        description=f"Training keeps the last {history.KEPT_FILES} replaced files beside the new one, named by their "
        "versions. Rolling back restores one of them and keeps the file that it replaces, so that a second rollback "
        "undoes the first. A running server loads the restored file.",
    )
    rollback.add_argument("model", nargs="?", type=Path, default=DEFAULT_PATH, help="model file; default: %(default)s")
    choice = rollback.add_mutually_exclusive_group()
    choice.add_argument(
        "--to", type=arguments.version, metavar="VERSION", help="version to restore; default: the last replaced one"
    )
    choice.add_argument("--list", action="store_true", help="list the kept files, and restore none")


def _add_scoring(commands: Commands) -> None:
    scoring = commands.add_parser("score", help="add label and probabilities to the rows of tables")
    scoring.add_argument("model", type=Path, help="model file")
    scoring.add_argument(
        "rows", nargs="+", metavar="INPUT",
        help="CSV, Excel, JSON or Parquet file to score, folder or pattern of them; -: standard input",
    )  # fmt: skip
    scoring.add_argument(
        "--out", default="-", metavar="OUTPUT",
        help="file to write, or for several inputs a folder; default: -, standard output",
    )  # fmt: skip
    scoring.add_argument(
        "--to", choices=("csv", "parquet"), default="", help="kind of file to write; default: that of the input"
    )
    _add_marks(scoring)
    _add_file(scoring)
    scoring.add_argument(
        "--explain",
        action="store_true",
        help="add a column with the contribution of each feature: with contribution_base they sum up to the answer",
    )
    scoring.add_argument("--strict", action="store_true", help="stop at the first row without a prediction")
    scoring.add_argument(
        "--guarded", action="store_true", help="quote cells that a spreadsheet would take for formulas"
    )
    scoring.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="engine that scores the files: local, one after the other, or ray, several at once; default: local",
    )
    scoring.add_argument("--address", help="HOST:PORT of a Ray cluster, or auto; default: Ray on this machine")
    scoring.add_argument(
        "--workers", type=arguments.count, metavar="N", help="number of Ray processes; default: one for each processor"
    )


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-header", action="store_false", dest="has_header", help="read no header: columns are column_1 and so on"
    )
    parser.add_argument("--encoding", help="encoding of text; default: found out from the file")
    parser.add_argument("--sheet", metavar="NAME", help="sheet of an Excel file; default: the first one with cells")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    _add_columns(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--classes", action="store_const", const="classes", dest="kind", help="predict a class, even of numbers"
    )
    kind.add_argument(
        "--quantity", action="store_const", const="quantity", dest="kind",
        help="predict a number; default: where the column has many different ones",
    )  # fmt: skip
    parser.add_argument(
        "--keep", action="append", default=[], metavar="COLUMN",
        help="name of a column to learn from even if it looks like an identifier, text or dates; may be repeated",
    )  # fmt: skip


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", metavar="COLUMN",
        help="name of the column to predict; default: one called class, target, label, species or outcome, else the "
        "last one",
    )  # fmt: skip
    parser.add_argument(
        "--drop", action="append", default=[], metavar="COLUMN", help="name of a column to ignore; may be repeated"
    )
    parser.add_argument(
        "--missing", action="append", default=[], type=word_of, metavar="TEXT",
        help="text of a cell that stands for no value, besides NA, ? and the like; may be repeated",
    )  # fmt: skip
    _add_marks(parser)
    _add_file(parser)
    parser.add_argument(
        "--limits", action="append", default=[], type=arguments.limits, metavar="KEY=MIN:MAX",
        help="lowest and highest value of a feature, e.g. length=0:20, 0: or :20; may be repeated",
    )  # fmt: skip
    parser.add_argument("--name", help="name of the model; default: the name of the file")


def _add_threshold(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threshold", type=arguments.threshold, metavar="[CLASS=]SHARE",
        help="least probability with which CLASS, or else the second of two classes, is the answer; default: the most "
        "probable class is",
    )  # fmt: skip


def _add_marks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decimal", choices=(".", ","), help="decimal mark of all numbers; default: that of each column"
    )
    parser.add_argument(
        "--thousands", choices=THOUSANDS, metavar="MARK",
        help="mark between thousands in all numbers; default: each column's own",
    )  # fmt: skip
