"""The command line: python -m ml train | import | evaluate | predict | score | inspect | rollback."""

from __future__ import annotations

import signal

if __name__ == "__main__":
    # Until main answers it: else Ctrl-C shows a traceback of the imports. Who starts this may have it ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ml.cli import console, reports
from ml.cli.options import DEFAULT_PATH, read, recipe_of
from ml.errors import MLError, TableError
from ml.estimators.saved import read_model
from ml.importing.imported import Imported
from ml.jobs import command
from ml.model.labelling import decision_of
from ml.model.loaded import LoadedModel, load_model
from ml.model.nearest import explain
from ml.tables.dataset import Dataset
from ml.tables.encoding import as_text
from ml.tables.files import read_table
from ml.tables.marks import marks_named
from ml.tables.reading import TableOptions, read_dataset
from ml.training import fitting, history, importing, iris, labelled, measuring, unmeasured, writing
from ml.training.progress import Bars, Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    console.open_standard_streams()
    try:
        try:
            options = read(arguments)
            COMMANDS[options.command](options)
        finally:
            console.write_lines([])  # what argparse has written
    except MLError as error:
        console.complain(f"error: {error}")
        if isinstance(error, TableError):
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
        console.write_lines([(dataset := iris.load_dataset()).source])
        return dataset
    wanted = TableOptions(
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
    console.write_lines(reports.estimator_lines(recipe))
    with Bars() as progress:
        trained = fitting.fit(dataset, recipe, decision=decision, progress=progress.show)
        folds = fitting.cross_validate(dataset, recipe, decision=decision, progress=progress.show)
        model = writing.model_of(
            trained, cross_validation=folds, keep_samples=not options.no_samples, progress=progress.show
        )
        loaded = writing.write(model, options.out, trained=trained, progress=progress.show)
    console.write_lines(reports.measured_lines(loaded.card))
    done = (
        f"{options.out}: version {loaded.version}, read back, and all {len(trained.split.test_rows)} test rows give "
        f"scikit-learn's {'probabilities' if loaded.labels else 'values'} to the last bit"
    )
    console.write_lines(["", done, reports.promise_of(loaded.card)])
    console.write_lines([f"serve it: MODEL_FILE={shlex.quote(str(options.out))} python -m web"])


def _import(options: argparse.Namespace) -> None:
    with Bars() as bars:
        imported = read_model(options.model, progress=lambda done, steps: bars.show("trees", done, steps))
        console.write_lines(reports.imported_lines(imported))
        write = _write_unmeasured if options.data is None else _write_measured
        loaded = write(imported, options, options.name or as_text(options.model.stem), bars.show)
    console.write_lines(reports.measured_lines(loaded.card))
    rows = "its golden rows" if options.data is None else "all rows"
    done = f"{options.out}: version {loaded.version}, read back, and {rows} give the same answers"
    console.write_lines(["", done, f"serve it: MODEL_FILE={shlex.quote(str(options.out))} python -m web"])


def _write_unmeasured(imported: Imported, options: argparse.Namespace, name: str, progress: Progress) -> LoadedModel:
    """Write the model file of a model of which nothing is known but what its own file says."""
    of_tables = ("drop", "missing", "decimal", "thousands", "encoding", "sheet")
    if given := [f"--{option}" for option in of_tables if getattr(options, option)]:
        raise MLError(f"{', '.join(given)}: of a table, which --data names")
    if imported.inputs.has_gaps is None:
        console.write_lines(["  no feature may lack a value: a table would say which may, the file does not"])
    return unmeasured.write_unmeasured(
        imported, options.out, name=name, target=options.target, labels=options.labels, limits=dict(options.limits),
        threshold=options.threshold, progress=progress,
    )  # fmt: skip


def _write_measured(imported: Imported, options: argparse.Namespace, name: str, progress: Progress) -> LoadedModel:
    """Write the model file of a model that is measured on a table."""
    table = read_table(options.data, encoding=options.encoding, sheet=options.sheet, has_header=options.has_header)
    wanted = TableOptions(
        target=options.target, drop=options.drop, limits=dict(options.limits), missing=options.missing,
        decimal=options.decimal, thousands=options.thousands,
    )  # fmt: skip
    try:
        found = importing.measurable(imported, table, wanted, file_name=options.data.name, labels=options.labels)
    except TableError as error:
        raise error.of(options.data) from error
    console.write_lines([found.source, *(f"  {sentence}" for sentence in found.said)])
    decision = decision_of(found.target.labels, *reversed(options.threshold or (None, None)))
    return importing.write_imported(
        imported, found, options.out, name=name, decision=decision, insist=options.insist, progress=progress
    )


def _load(path: Path) -> LoadedModel:
    if path == DEFAULT_PATH and not path.exists():
        raise MLError(f"{path}: No such file or directory; python -m ml train writes it, or name another model file")
    return load_model(path)


def _evaluate(options: argparse.Namespace) -> None:
    model = _load(options.model)
    if options.table is not None:
        _evaluate_on(options, model)
        return
    if model.card.recipe is None:
        raise MLError(f"{options.model} was fitted elsewhere, so its split is not known: name a table to measure it on")
    dataset = iris.load_dataset() if options.data is None else _read(options)
    if dataset.digest() != model.card.data_digest:
        raise MLError(
            f"{options.model} was trained on another table, or on one read with other options ({model.card.source}): "
            "name it with --data, and give the options as for training; or name a table to measure it on without --data"
        )
    if options.data is None:
        console.write_lines([dataset.source])
    report = measuring.report_of(model, fitting.split(dataset, model.card.recipe))
    console.write_lines(reports.report_lines(report, model.labels))


def _evaluate_on(options: argparse.Namespace, model: LoadedModel) -> None:
    """Measure a model on a table that says what is true."""
    table = read_table(options.table, encoding=options.encoding, sheet=options.sheet, has_header=options.has_header)
    marks = marks_named(options.decimal, options.thousands)
    try:
        found = labelled.measured(model, table, target=options.target, missing=options.missing, marks=marks)
    except TableError as error:
        raise error.of(options.table) from error
    console.write_lines([f"{options.table}: {len(table.lines)} rows", *(f"  {sentence}" for sentence in found.said)])
    console.write_lines(reports.report_lines(found.report, model.labels))


def _predict(options: argparse.Namespace) -> None:
    path, values = options.model, options.values
    if path is None and len(values) > 1 and values[0].endswith(".npz"):
        path, values = Path(values[0]), values[1:]
    model = _load(path or DEFAULT_PATH)
    row = model.validator.row(reports.sample_of(model, values))
    if options.json:
        console.write_lines([reports.prediction_json(model, row)])
        return
    console.write_lines(reports.prediction_lines(model, row))
    console.write_lines(reports.explanation_lines(explain(model, row), model.card))


def _inspect(options: argparse.Namespace) -> None:
    model = _load(options.model)
    console.write_lines(reports.card_lines(model.card, model.version))
    console.write_lines([""])
    console.write_lines(reports.report_lines(model.card.report, model.labels))
    console.write_lines(reports.importance_lines(model.card))


def _rollback(options: argparse.Namespace) -> None:
    if options.list:
        console.write_lines(reports.kept_lines(history.kept(options.model)))
        return
    restored = history.restore(options.model, options.to or "")
    kept = f", in place of {restored.replaced}, which is kept" if restored.replaced else ""
    console.write_lines([f"{options.model}: version {restored.model.version} again{kept}"])


COMMANDS = {
    "train": _train,
    "import": _import,
    "evaluate": _evaluate,
    "predict": _predict,
    "score": command.score,
    "inspect": _inspect,
    "rollback": _rollback,
}


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
