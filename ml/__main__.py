"""The command line: python -m ml train | evaluate | predict | score | inspect | rollback."""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from tqdm import tqdm

from ml import console, score
from ml.errors import DatasetError, MLError
from ml.model import classifier
from ml.model.card import Recipe
from ml.model.explain import explain
from ml.score import BadRow
from ml.tables.csvfile import Limits, read_csv, refuse_same_file
from ml.tables.dataset import Dataset
from ml.tables.numbers import LARGEST, NotANumber, number_of
from ml.training import fitting, history, iris

DEFAULT_PATH = Path("model.npz")
SHOWN_BAD_ROWS = 20
LONGEST_SEED = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    console.open_standard_streams()
    try:
        try:
            options = _parser().parse_args(arguments)
            options.run(options)
        finally:
            console.write_lines([])  # what argparse has written
    except MLError as error:
        console.complain(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130  # the convention of shells: 128 and the number of the signal
    except BrokenPipeError:
        return 0  # the reader of our output has ended, as in `... | head`
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ml", description="Train, check and use a model file.")
    commands = parser.add_subparsers(required=True, metavar="command")

    train = commands.add_parser("train", help="train on a CSV file, or on the built-in data, and write a model file")
    train.add_argument(
        "data",
        nargs="?",
        type=Path,
        metavar="CSV",
        help="CSV file with a header, numeric columns and a class column; default: the built-in data",
    )
    train.add_argument(
        "--out", type=Path, default=DEFAULT_PATH, metavar="FILE", help="model file to write; default: %(default)s"
    )
    _add_reading(train)
    recipe = Recipe()
    train.add_argument(
        "--estimator", choices=("random-forest", "extra-trees", "decision-tree"), default=recipe.estimator,
        help="scikit-learn classifier to fit; default: %(default)s",
    )  # fmt: skip
    train.add_argument(
        "--trees", type=_count, default=recipe.n_estimators, metavar="N",
        help="number of trees (n_estimators); default: %(default)s",
    )  # fmt: skip
    train.add_argument(
        "--depth", type=_count, metavar="N", help="maximum depth of a tree (max_depth); default: no maximum"
    )
    train.add_argument(
        "--leaf", type=_count, default=recipe.min_samples_leaf, metavar="N",
        help="minimum number of rows in a leaf (min_samples_leaf); default: %(default)s",
    )  # fmt: skip
    train.add_argument(
        "--seed", type=_seed, default=recipe.seed, metavar="N",
        help="seed of the random numbers (random_state); default: %(default)s",
    )  # fmt: skip
    train.add_argument(
        "--test-size", type=_share, default=recipe.test_size, metavar="SHARE",
        help="share of the rows for testing, between 0 and 1; default: %(default)s",
    )  # fmt: skip
    train.add_argument(
        "--balanced",
        action="store_true",
        help="balance the class weights (class_weight); default: all rows weigh the same",
    )
    train.add_argument(
        "--no-samples",
        action="store_true",
        help="store no training rows, which pictures and examples need, in the model file",
    )
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="measure a model file again on the rows it was not trained on")
    evaluate.add_argument("model", nargs="?", type=Path, default=DEFAULT_PATH, help="model file; default: %(default)s")
    evaluate.add_argument(
        "--data", type=Path, metavar="CSV", help="CSV file of the training; default: the built-in data"
    )
    _add_reading(evaluate)
    evaluate.set_defaults(run=_evaluate)

    predict = commands.add_parser("predict", help="predict one sample, and say what would change the answer")
    predict.add_argument(
        "values", nargs="+", metavar="VALUE", help="values of the sample, in the order of the features"
    )
    predict.add_argument(
        "--model", type=Path, default=DEFAULT_PATH, metavar="FILE", help="model file; default: %(default)s"
    )
    # argparse knows "-1" and "-.5" as numbers, but takes "-1e3" and "-,5" for options.
    predict._negative_number_matcher = re.compile(r"-[0-9.,]")
    predict.set_defaults(run=_predict)

    scoring = commands.add_parser("score", help="add label and probabilities to the rows of a CSV file")
    scoring.add_argument("model", type=Path, help="model file")
    scoring.add_argument("rows", metavar="CSV", help="CSV file to score; -: standard input")
    scoring.add_argument("--out", default="-", metavar="CSV", help="CSV file to write; default: -, standard output")
    scoring.add_argument("--strict", action="store_true", help="stop at the first row without a prediction")
    scoring.add_argument(
        "--guarded", action="store_true", help="quote cells that a spreadsheet would take for formulas"
    )
    scoring.set_defaults(run=_score)

    inspect = commands.add_parser("inspect", help="show the card of a model file")
    inspect.add_argument("model", nargs="?", type=Path, default=DEFAULT_PATH, help="model file; default: %(default)s")
    inspect.set_defaults(run=_inspect)

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
        "--to", type=_version, metavar="VERSION", help="version to restore; default: the last replaced one"
    )
    choice.add_argument("--list", action="store_true", help="list the kept files, and restore none")
    rollback.set_defaults(run=_rollback)
    return parser


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="COLUMN", help="name of the class column; default: the last column")
    parser.add_argument(
        "--drop", action="append", default=[], metavar="COLUMN", help="name of a column to ignore; may be repeated"
    )
    parser.add_argument(
        "--limits", action="append", default=[], type=_limits, metavar="KEY=MIN:MAX",
        help="limits of a feature, of which one may be left out, e.g. length=0:; may be repeated",
    )  # fmt: skip
    parser.add_argument("--name", help="name of the model; default: the name of the CSV file")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > LONGEST_SEED or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def _version(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{1,12}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the start of a version")
    return text


def _share(text: str) -> float:
    try:
        share = number_of(text)
    except NotANumber:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return share


def _limits(text: str) -> tuple[str, Limits]:
    key, equals, span = text.partition("=")
    minimum, colon, maximum = span.partition(":")
    try:
        low, high = (number_of(end) if end.strip() else None for end in (minimum, maximum))
    except NotANumber:
        equals = ""
    if not (key and equals and colon) or (low is not None and high is not None and low > high):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=MIN:MAX with either end left out or MIN below MAX")
    if any(end is not None and not -LARGEST <= end <= LARGEST for end in (low, high)):
        raise argparse.ArgumentTypeError(f"{text!r} has an end that is too large for a 32-bit float")
    return key, Limits(low, high)


def _read(options: argparse.Namespace) -> Dataset:
    if options.data is None:
        dataset = iris.load()
        console.write_lines([dataset.source])
        return dataset
    limits = dict(options.limits)
    reading = read_csv(options.data, target=options.target, drop=options.drop, limits=limits, name=options.name)
    console.write_lines([reading.dataset.source, *(f"  {sentence}" for sentence in reading.inferred)])
    return reading.dataset


def _train(options: argparse.Namespace) -> None:
    dataset = _read(options)
    recipe = Recipe(
        estimator=options.estimator,
        n_estimators=options.trees,
        max_depth=options.depth,
        min_samples_leaf=options.leaf,
        seed=options.seed,
        test_size=options.test_size,
        balanced_class_weight=options.balanced,
    )
    with _Progress() as progress:
        trained = fitting.fit(dataset, recipe, progress=progress.show)
        folds = fitting.cross_validate(dataset, recipe, progress=progress.show)
        model = fitting.model_of(trained, cross_validation=folds, keep_samples=not options.no_samples)
    loaded = fitting.write(model, options.out, trained=trained)
    console.write_lines(console.report_lines(loaded.card.report, loaded.labels))
    console.write_lines(console.importance_lines(loaded.card))
    done = (
        f"{options.out}: version {loaded.version}, read back, and all {trained.report.test_rows} test rows give "
        "scikit-learn's probabilities to the last bit"
    )
    console.write_lines(["", done])


class _Progress:
    """Bars on a terminal for work that takes more than a moment; nothing elsewhere."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: tqdm[NoReturn] = tqdm(disable=True)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()

    def show(self, what: str, done: int, steps: int) -> None:
        """Show that `done` of `steps` are done."""
        if self._what != what:
            self._what = what
            self._bar.close()
            self._bar = tqdm(desc=what, total=steps, delay=1, leave=False, disable=None)
        self._bar.update(done - self._bar.n)


def _evaluate(options: argparse.Namespace) -> None:
    model = classifier.load(options.model)
    if model.card.recipe is None:
        raise MLError(f"{options.model} was fitted elsewhere, so its split is not known")
    dataset = _read(options)
    if dataset.digest() != model.card.data_digest:
        raise MLError(
            f"{options.model} was trained on another table, or on one read with other options ({model.card.source}): "
            "name it with --data, and give --target, --drop, --limits and --name as for training"
        )
    parts = fitting.split(dataset, model.card.recipe)
    answers = model.predict_batch(parts.test_rows).indices
    report = fitting.measure(answers, parts, n_labels=len(dataset.labels))
    console.write_lines(console.report_lines(report, dataset.labels))


def _predict(options: argparse.Namespace) -> None:
    model = classifier.load(options.model)
    row = model.validator.row(options.values)
    console.write_lines(console.prediction_lines(model, row))
    console.write_lines(console.explanation_lines(explain(model, row), model.card))


def _score(options: argparse.Namespace) -> None:
    # Rows come and go without cycles: looking for some again and again costs a fifth of the time.
    gc.disable()
    refuse_same_file(options.rows, options.out)
    model = classifier.load(options.model)
    shown = 0

    def tell(bad: BadRow) -> None:
        nonlocal shown
        shown += 1
        if shown <= SHOWN_BAD_ROWS:
            tqdm.write(console.printable(f"line {bad.line}: {bad.message}"), file=sys.stderr)

    with _Input(options.rows) as source, _sink(options.out) as sink, tqdm(unit=" rows", disable=None) as bar:
        scored = score.score(
            model, source, sink, on_bad=tell, on_rows=bar.update,
            guarded=options.guarded, strict=options.strict,
        )  # fmt: skip
    if scored.bad:
        console.complain(f"{scored.bad} of {scored.rows} rows have no answer and were left blank")


# Bytes that are not UTF-8 pass through as they are: a cell that nobody needs is no reason to stop.
_TEXT: dict[str, str] = {"errors": "surrogateescape", "newline": ""}


class _Input(io.TextIOWrapper):
    """A table that is read, or standard input where the name is `-`.

    Raises:
        DatasetError: it cannot be opened, or read.
    """

    def __init__(self, name: str) -> None:
        self._shown = console.file_name(name, "input")
        try:
            file = open(sys.stdin.fileno() if name == "-" else name, "rb", closefd=name != "-")  # noqa: SIM115
        except OSError as error:
            raise DatasetError(f"{self._shown}: {error.strerror}") from error
        super().__init__(file, encoding="utf-8", errors="surrogateescape", newline="")

    def read(self, size: int | None = -1, /) -> str:
        try:
            return super().read(size)
        except OSError as error:
            raise DatasetError(f"{self._shown}: {error.strerror}") from error


@contextlib.contextmanager
def _sink(name: str) -> Iterator[TextIO]:
    """Open the output; a file takes its name only when it is complete.

    Raises:
        DatasetError: it cannot be written.
    """
    try:
        path = Path(name)
        if name == "-" or (path.exists() and not path.is_file()):
            # A pipe or a device is written to as it is: a file in its place would break it for everybody.
            with open(
                sys.stdout.fileno() if name == "-" else path, "w", encoding="utf-8", closefd=name != "-", **_TEXT
            ) as file:  # type: ignore[call-overload]  # as above
                yield file
            return
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, suffix=".part", delete=False, encoding="utf-8", **_TEXT
        ) as file:  # type: ignore[call-overload]  # as above
            try:
                yield file
                file.flush()
                os.chmod(file.name, 0o644)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DatasetError(f"{console.file_name(name, 'output')} cannot be written: {error.strerror}") from error


def _inspect(options: argparse.Namespace) -> None:
    model = classifier.load(options.model)
    console.write_lines(console.card_lines(model.card, model.version))
    console.write_lines([""])
    console.write_lines(console.report_lines(model.card.report, model.labels))
    console.write_lines(console.importance_lines(model.card))


def _rollback(options: argparse.Namespace) -> None:
    if options.list:
        console.write_lines(console.kept_lines(history.kept(options.model)))
        return
    restored = history.restore(options.model, options.to or "")
    kept = f", in place of {restored.replaced}, which is kept" if restored.replaced else ""
    console.write_lines([f"{options.model}: version {restored.model.version} again{kept}"])


if __name__ == "__main__":
    sys.exit(main())
