"""The command `ml score`: one file into another, or many files into a folder, in this process or on Ray."""

from __future__ import annotations

import argparse
import gc
import os
import shlex
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from ml.cli import console
from ml.errors import MLError, ModelFileError, TableError
from ml.jobs import cluster, record
from ml.jobs.copying import SHOWN_BAD_ROWS, Done, How, copy, do
from ml.jobs.plan import Job, Plan, is_folder, planned
from ml.model.contributions import OBSTACLES, contributions, obstacle
from ml.scoring.batch import BatchScorer, Model, load
from ml.scoring.parquet import is_parquet
from ml.scoring.rows import BadRow
from ml.scoring.text import Scored
from ml.tables.files import refuse_same_file
from ml.training import history

_KIND_OF = {".parquet": "parquet", ".csv": "csv"}


def score(options: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        MLError: something could not be scored. Copies that are complete stay.
    """
    # Rows come and go without cycles: looking for some again and again costs a fifth of the time.
    gc.disable()
    if not is_folder(options.rows, options.out):
        _score_file(options)
        return
    if options.out == "-" or "-" in options.rows:
        raise TableError("several files are read by their names and written to a folder: name it with --out")
    how = _how_of(options, options.to)
    plan = planned(options.rows, Path(options.out), how.to)
    model = _load(options)
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
        with history.locked(plan.out / record.NAME):
            _score_folder(options, model, how, plan)
    except OSError as error:
        raise TableError(f"{error.filename or plan.out} cannot be written: {error.strerror or error}") from error


def _load(options: argparse.Namespace) -> Model:
    try:
        model = load(options.model)
    except ModelFileError as error:
        swapped = options.rows[0].endswith(".npz") and str(options.model) != options.rows[0]
        hint = f"; the model file comes first: python -m ml score {shlex.join([options.rows[0], str(options.model)])}"
        raise ModelFileError(f"{error}{hint if swapped else ''}") from error
    if options.explain:
        known = model.loaded
        if found := obstacle(known):
            raise MLError(
                f"{options.model} does not say what each feature adds to an answer: {OBSTACLES[found]}; score without "
                "--explain"
            )
        divided = contributions(known, [feature.example for feature in known.features], 0)
        assert divided is not None  # no `obstacle`
        scale = divided.scale.replace("_", " ") + (" of the predicted label" if known.labels else "")
        console.complain(f"contributions, by the method {divided.method}, are in the scale {scale}")
    return model


def _how_of(options: argparse.Namespace, to: str) -> How:
    chosen = {name: getattr(options, name) for name in How.__struct_fields__}
    return How(**chosen | {"to": to, "encoding": options.encoding or ""})


def _score_file(options: argparse.Namespace) -> None:
    (source,) = options.rows
    if options.engine == "ray":
        raise TableError("Ray writes to a folder: give --out the name of one that exists, or one that ends with /")
    refuse_same_file(source, options.out)
    model = _load(options)
    how = _how_of(options, options.to or _KIND_OF.get(Path(options.out).suffix.lower(), ""))
    said: list[str] = []
    with _bar(os.path.getsize(source) if os.path.isfile(source) else None) as bar:
        on_bad = partial(_Shown(), "", source)
        scored = copy(model, source, options.out, how, on_bad=on_bad, on_bytes=bar.update, on_said=said.append)
    for sentence in said:
        console.complain(sentence)
    if options.out != "-":
        console.complain(f"{options.out}: {scored.rows} rows")
    _complain_of_blanks(scored)


def _score_folder(options: argparse.Namespace, model: Model, how: How, plan: Plan) -> None:
    """Do the jobs of a plan that are not done; the folder is locked."""
    record.remove_parts(plan.jobs)
    kept = record.Record(plan.out, model.version, how)
    todo = kept.begin(plan.jobs)
    _complain_of_copies(plan, todo)
    shown, finished, scored, failed = _Shown(), 0, Scored(0, 0), 0

    def do_here(job: Job) -> Done:
        on_bad = partial(shown, f"{job.source}: ", str(job.source))
        return do(model, job, how, on_bad=on_bad, on_bytes=bar.update)

    results = _done_on_ray(options, model, how, todo) if options.engine == "ray" else (do_here(job) for job in todo)
    try:
        with _bar(sum(job.size for job in todo)) as bar, closing(results):
            for done in results:
                finished += done.job.size
                bar.update(finished - bar.n)
                _show(done, shown)
                if not done.error:
                    kept.add(done.job)
                    scored = Scored(scored.rows + done.scored.rows, scored.bad + done.scored.bad)
                elif how.strict:
                    raise TableError(done.error)
                else:
                    failed += 1
                    _say(f"error: {done.error}")
    finally:
        record.remove_parts(plan.jobs)
    _complain_of_blanks(scored)
    if failed:
        raise TableError(f"{failed} of {len(plan.jobs)} files were not scored; the same command does them again")


def _done_on_ray(
    options: argparse.Namespace, model: Model, how: How, jobs: Iterable[Job]
) -> Generator[Done, None, None]:
    scorer = BatchScorer(options.model)
    if scorer.version != model.version:
        raise ModelFileError(f"{options.model} was replaced just now: run the command again")
    return cluster.run(scorer, [*jobs], how, address=options.address, workers=options.workers)


def _bar(size: int | None) -> tqdm[NoReturn]:
    return tqdm(total=size, unit="B", unit_scale=True, disable=None)


class _Shown:
    """Shows the first rows without an answer, above the bar."""

    def __init__(self) -> None:
        self._left = SHOWN_BAD_ROWS

    def __call__(self, prefix: str, source: str, bad: BadRow) -> None:
        if self._left:
            self._left -= 1
            _say(f"{prefix}{'row' if is_parquet(source) else 'line'} {bad.line}: {bad.message}")


def _say(sentence: str) -> None:
    """Write a sentence above the bar, if there is one."""
    tqdm.write(console.printable(sentence), file=sys.stderr)


def _show(done: Done, shown: _Shown) -> None:
    source = str(done.job.source)
    for row in done.bad:
        shown(f"{source}: ", source, row)
    for sentence in done.said:
        _say(f"{source}: {sentence}")


def _complain_of_copies(plan: Plan, todo: Mapping[Job, str]) -> None:
    """Say which files are not scored, and which copies that are there are written anew, and why."""
    for sentence in plan.said:
        console.complain(sentence)
    if n_kept := len(plan.jobs) - len(todo):
        console.complain(f"{n_kept} of {len(plan.jobs)} files were scored before, and their copies are kept")
    faults = [f"{job.sink}: {fault}" for job, fault in todo.items() if fault]
    for sentence in faults[:SHOWN_BAD_ROWS]:
        console.complain(f"written anew: {sentence}")
    if len(faults) > SHOWN_BAD_ROWS:
        console.complain(f"written anew: {len(faults) - SHOWN_BAD_ROWS} more")


def _complain_of_blanks(scored: Scored) -> None:
    if scored.bad:
        console.complain(f"{scored.bad} of {scored.rows} rows have no answer and were left blank")
