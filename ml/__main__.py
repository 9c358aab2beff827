"""The command line: python -m ml train | import | evaluate | predict | score | inspect | rollback."""

from __future__ import annotations

import signal

if __name__ == "__main__":
    # Until main answers it: else Ctrl-C shows a traceback of the imports. Who starts this may have it ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import gc
import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from ml import console, score
from ml.batch import Model
from ml.errors import DatasetError, MLError
from ml.estimators.saved import read_model
from ml.model import classifier
from ml.model.classifier import Classifier
from ml.model.explain import explain
from ml.model.labelling import decision_of
from ml.options import parser, recipe_of
from ml.score_parquet import is_parquet, score_parquet
from ml.scored import BadRow
from ml.streams import Input, placed, sink_of
from ml.tables.dataset import Dataset
from ml.tables.files import read_table, refuse_same_file
from ml.tables.marks import marks_named
from ml.tables.reading import Options, as_text, read_dataset
from ml.tables.source import Source
from ml.training import fitting, history, importing, iris, labelled, measuring, writing

SHOWN_BAD_ROWS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    console.open_standard_streams()
    try:
        try:
            options = parser().parse_args(arguments)
            COMMANDS[options.command](options)
        finally:
            console.write_lines([])  # what argparse has written
    except MLError as error:
        console.complain(f"error: {error}")
        if isinstance(error, DatasetError):
            console.complain_more(error, sys.argv[1:] if arguments is None else arguments)
        return 1
    except ModuleNotFoundError as error:
        if error.name != "sklearn":
            raise
        install = f"python -m pip install --requirement {Path(__file__).parent.parent / 'requirements.txt'}"
        console.complain(f"error: scikit-learn is not installed, by which models are trained: {install}")
        return 1
    except KeyboardInterrupt:
        return 130  # the convention of shells: 128 and the number of the signal
    except BrokenPipeError:
        return 0  # the reader of our output has ended, as in `... | head`
    return 0


def _read(options: argparse.Namespace) -> Dataset:
    if options.data is None:
        console.write_lines([(dataset := iris.load()).source])
        return dataset
    wanted = Options(
        target=options.target, kind=options.kind, drop=options.drop, keep=options.keep, limits=dict(options.limits),
        missing=options.missing, decimal=options.decimal, thousands=options.thousands, name=options.name,
    )  # fmt: skip
    reading = read_dataset(
        options.data, wanted, encoding=options.encoding, sheet=options.sheet, has_header=options.has_header
    )
    console.write_lines([reading.dataset.source, *(f"  {sentence}" for sentence in reading.inferred)])
    return reading.dataset


def _train(options: argparse.Namespace) -> None:
    dataset = _read(options)
    recipe = recipe_of(options)
    decision = decision_of(dataset.target.labels, *reversed(options.threshold or (None, None)))
    console.write_lines(console.estimator_lines(recipe))
    with _Progress() as progress:
        trained = fitting.fit(dataset, recipe, decision=decision, progress=progress.show)
        folds = fitting.cross_validate(dataset, recipe, decision=decision, progress=progress.show)
        model = writing.model_of(
            trained, cross_validation=folds, keep_samples=not options.no_samples, progress=progress.show
        )
    loaded = writing.write(model, options.out, trained=trained)
    console.write_lines(console.report_lines(loaded.card.report, loaded.labels))
    console.write_lines(console.importance_lines(loaded.card))
    done = (
        f"{options.out}: version {loaded.version}, read back, and all {trained.report.test_rows} test rows give "
        f"scikit-learn's {'probabilities' if loaded.labels else 'values'} to the last bit"
    )
    console.write_lines(["", done, console.promise_of(loaded.card)])
    console.write_lines([f"serve it: MODEL_FILE={shlex.quote(str(options.out))} python -m web"])


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


def _import(options: argparse.Namespace) -> None:
    with _Progress() as progress:
        imported = read_model(options.model, progress=lambda done, steps: progress.show("trees", done, steps))
        console.write_lines(console.imported_lines(imported))
        if options.data is None:
            raise MLError(f"no model file is written: name a table with --data, so that {options.model} is measured")
        table = read_table(options.data, encoding=options.encoding, sheet=options.sheet, has_header=options.has_header)
        wanted = Options(
            target=options.target, drop=options.drop, limits=dict(options.limits), missing=options.missing,
            decimal=options.decimal, thousands=options.thousands,
        )  # fmt: skip
        try:
            found = importing.measurable(imported, table, wanted, file_name=options.data.name, labels=options.labels)
        except DatasetError as error:
            raise error.of(options.data) from error
        console.write_lines([found.source, *(f"  {sentence}" for sentence in found.said)])
        name = options.name or as_text(options.model.stem)
        loaded = importing.write_imported(
            imported, found, options.out, name=name, insist=options.insist, progress=progress.show
        )
    console.write_lines(console.report_lines(loaded.card.report, loaded.labels))
    console.write_lines(console.importance_lines(loaded.card))
    done = f"{options.out}: version {loaded.version}, read back, and all rows give the same answers"
    console.write_lines(["", done, f"serve it: MODEL_FILE={shlex.quote(str(options.out))} python -m web"])


def _evaluate(options: argparse.Namespace) -> None:
    model = classifier.load(options.model)
    if options.table is not None:
        _evaluate_on(options, model)
        return
    if model.card.recipe is None:
        raise MLError(f"{options.model} was fitted elsewhere, so its split is not known: name a table to measure it on")
    dataset = iris.load() if options.data is None else _read(options)
    if dataset.digest() != model.card.data_digest:
        raise MLError(
            f"{options.model} was trained on another table, or on one read with other options ({model.card.source}): "
            "name it with --data, and give the options as for training; or name a table to measure it on without --data"
        )
    if options.data is None:
        console.write_lines([dataset.source])
    report = measuring.report_of(model, fitting.split(dataset, model.card.recipe))
    console.write_lines(console.report_lines(report, model.labels))


def _evaluate_on(options: argparse.Namespace, model: Classifier) -> None:
    """Measure a model on a table that says what is true."""
    table = read_table(options.table, encoding=options.encoding, sheet=options.sheet, has_header=options.has_header)
    marks = marks_named(options.decimal, options.thousands)
    try:
        found = labelled.measured(model, table, target=options.target, missing=options.missing, marks=marks)
    except DatasetError as error:
        raise error.of(options.table) from error
    console.write_lines([f"{options.table}: {len(table.lines)} rows", *(f"  {sentence}" for sentence in found.said)])
    console.write_lines(console.report_lines(found.report, model.labels))


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
    if is_parquet(options.rows):
        _score_parquet(options, model)
        return
    with (
        io.BufferedReader(Input(options.rows)) as file,
        sink_of(options.out) as sink,
        tqdm(unit=" rows", disable=None) as bar,
    ):
        source = Source(file, encoding=options.encoding or "", sheet=options.sheet, has_header=options.has_header)
        scored = score.score(
            model, source, sink, on_bad=_Shown("line"), on_rows=bar.update,
            guarded=options.guarded, strict=options.strict, marks=marks_named(options.decimal, options.thousands),
        )  # fmt: skip
    for sentence in source.inferred:
        console.complain(sentence)
    _complain_of_blanks(scored)


def _score_parquet(options: argparse.Namespace, model: Classifier) -> None:
    if options.encoding or options.sheet or options.guarded or options.decimal or options.thousands:
        raise DatasetError(
            f"{options.rows} is a Parquet file, whose columns have types: --encoding, --sheet, --guarded, --decimal "
            "and --thousands are for other tables"
        )
    path = Path(options.out)
    if options.out == "-" or path.is_symlink() or (path.exists() and not path.is_file()):
        raise DatasetError(f"name a file with --out: Parquet is not written to a link or a pipe, {options.out}")
    try:
        with placed(path) as sink, tqdm(unit=" rows", disable=None) as bar:

            def show(rows: int, in_all: int) -> None:
                bar.total = in_all
                bar.update(rows)

            rows = Path(options.rows)
            scored = score_parquet(Model(model), rows, sink, on_bad=_Shown("row"), on_rows=show, strict=options.strict)
    except OSError as error:
        raise DatasetError(f"{options.out} cannot be written: {error.strerror or error}") from error
    _complain_of_blanks(scored)


class _Shown:
    """Shows the first rows without an answer, above the bar."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._left = SHOWN_BAD_ROWS

    def __call__(self, bad: BadRow) -> None:
        if self._left:
            self._left -= 1
            tqdm.write(console.printable(f"{self._unit} {bad.line}: {bad.message}"), file=sys.stderr)


def _complain_of_blanks(scored: score.Scored) -> None:
    if scored.bad:
        console.complain(f"{scored.bad} of {scored.rows} rows have no answer and were left blank")


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


COMMANDS = {
    "train": _train,
    "import": _import,
    "evaluate": _evaluate,
    "predict": _predict,
    "score": _score,
    "inspect": _inspect,
    "rollback": _rollback,
}


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
