"""The command line: python -m ml train | evaluate | predict | inspect."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml import classifier, iris, training
from ml.card import Card, Report
from ml.errors import MLError
from ml.sample import shown_number

DEFAULT_PATH = Path("model.npz")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except MLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ml", description="Train, check and use a model file.")
    commands = parser.add_subparsers(required=True, metavar="command")

    train = commands.add_parser("train", help="train on the built-in data and write a model file")
    train.add_argument("--out", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="measure a model file again on the rows it was not trained on")
    evaluate.set_defaults(run=_evaluate)
    predict = commands.add_parser("predict", help="predict one sample")
    predict.add_argument("values", nargs="+", metavar="VALUE", help="one number a feature, in their order")
    predict.set_defaults(run=_predict)
    inspect = commands.add_parser("inspect", help="show what is known about a model file")
    inspect.set_defaults(run=_inspect)
    for command in (evaluate, predict, inspect):
        command.add_argument("--model", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    return parser


def _train(options: argparse.Namespace) -> None:
    dataset = iris.load()
    print(f"{dataset.source}")
    trained = training.fit(dataset)
    cross_validation = training.cross_validate(trained)
    model = training.model_of(trained, cross_validation=cross_validation)
    loaded = training.write(model, options.out, trained=trained)
    _print_report(loaded.card.report, loaded.labels)
    print(
        f"\n{options.out}: version {loaded.version}, read back, and all {trained.report.test_rows} test rows give "
        "scikit-learn's probabilities to the last bit"
    )


def _evaluate(options: argparse.Namespace) -> None:
    model, dataset = classifier.load(options.model), iris.load()
    if dataset.digest() != model.card.data_digest:
        raise MLError(f"{options.model} was not trained on {dataset.name}")
    parts = training.split(dataset, seed=model.card.seed, test_size=model.card.test_size)
    answers = model.predict_batch(parts.test_rows).indices
    _print_report(training.measure(answers, parts, n_labels=len(dataset.labels)), dataset.labels)


def _predict(options: argparse.Namespace) -> None:
    model = classifier.load(options.model)
    prediction = model.predict(row := model.validator.row(options.values))
    print(f"{prediction.label} (class {prediction.index})")
    width = max(map(len, model.labels))
    for label, probability in zip(model.labels, prediction.probabilities, strict=True):
        print(f"  {label:{width}}  {probability}")
    for note in model.validator.notes(row):
        print(f"note: {note.message}")


def _inspect(options: argparse.Namespace) -> None:
    model = classifier.load(options.model)
    _print_card(model.card, model.version)
    print()
    _print_report(model.card.report, model.labels)


def _print_card(card: Card, version: str) -> None:
    print(f"{card.name}, version {version}")
    print(f"data       {card.source}")
    print(f"estimator  {card.estimator}, {card.trees} trees, seed {card.seed}")
    print(f"libraries  {', '.join(f'{name} {number}' for name, number in sorted(card.libraries.items()))}")
    print(f"labels     {', '.join(card.labels)}")
    print("features")
    for feature in card.features:
        span = f"{shown_number(feature.low)} to {shown_number(feature.high)} {feature.unit}".rstrip()
        print(f"  {feature.key}: {span} in training, for example {shown_number(feature.example)}")


def _print_report(report: Report, labels: Sequence[str]) -> None:
    print(f"accuracy   {report.accuracy:.3f} on {report.test_rows} test rows (trained on {report.train_rows})")
    print(f"baseline   {report.baseline:.3f} for always answering the most frequent label")
    if report.cross_validation is not None:
        folds = report.cross_validation
        print(f"{folds.folds}-fold    {folds.mean:.3f} ± {folds.deviation:.3f} cross-validated accuracy")
    width = max(map(len, labels))
    columns = [max(len(label), 5) for label in labels]
    print(f"\n{'':{width}}  precision  recall   answered as")
    print(f"{'':{width}}{'':20} " + "  ".join(f"{label:>{size}}" for label, size in zip(labels, columns, strict=True)))
    for row, label in enumerate(labels):
        counts = "  ".join(f"{n:{size}d}" for n, size in zip(report.confusion[row], columns, strict=True))
        print(f"{label:{width}}  {report.precision[row]:9.3f}  {report.recall[row]:6.3f}   {counts}")


if __name__ == "__main__":
    sys.exit(main())
