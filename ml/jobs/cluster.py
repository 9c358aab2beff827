"""Jobs on Ray: a pool of processes, here or on other machines, each of which loads the model once.

Ray Data hands out the files, one after the other, to whoever is free, and again where a process has died. It imports
Ray, which nothing else needs. All machines have to see the files, and that of the model, under the same names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import ml
from ml.errors import MLError
from ml.jobs.copying import SHOWN_BAD_ROWS, Done, How, do
from ml.jobs.plan import Job
from ml.scoring.batch import BatchScorer
from ml.scoring.rows import BadRow


def run(
    scorer: BatchScorer, jobs: Sequence[Job], how: How, *, address: str | None, workers: int | None
) -> Generator[Done, None, None]:
    """Do jobs, and yield each when it is done.

    Args:
        scorer: made of the path of a model file.
        address: of a cluster; without it one of this machine's processors is started, and ended.
        workers: how many processes score; default: one for each processor of the cluster.

    Raises:
        MLError: Ray is not installed, or the cluster cannot be reached.
    """
    if address:
        # Ray would wait a quarter of an hour for a cluster that has gone; one try of its twenty takes 40 seconds.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext
    except ImportError as error:
        raise MLError("Ray is not installed, which --engine ray needs: python -m pip install 'ray[data]'") from error
    if not jobs:
        return
    try:
        # Without "local" Ray would look for a cluster of this machine, and wait without end for one that has gone.
        ray.init(
            address=address or "local", include_dashboard=None if address else False, log_to_driver=False,
            logging_level=logging.ERROR, runtime_env={"py_modules": [str(Path(ml.__file__).parent)]},
        )  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        if not address:
            raise MLError(f"Ray cannot be started: {error}") from error
        raise MLError(
            f"no Ray cluster at {address}: {error}; run this on one of its machines, with RAY_AUTH_MODE=token if it"
            " asks for a token"
        ) from error
    try:
        DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        workers = min(len(jobs), workers or max(1, int(ray.cluster_resources().get("CPU", 1))))
        # A block for each file: what is done again where a process has died is one file.
        rows = ray.data.from_items([{"job": job} for job in jobs], override_num_blocks=len(jobs))
        results = rows.map_batches(
            Worker, fn_constructor_args=[scorer, how, os.getcwd()], batch_size=1, num_cpus=1,
            compute=ActorPoolStrategy(size=workers),
        )  # fmt: skip
        for row in results.iter_rows():
            yield row["done"]
    except ray.exceptions.RayError as error:
        raise MLError(f"Ray has given up: {str(error).strip().splitlines()[-1]}") from error
    finally:
        ray.shutdown()


class Worker:
    """Does jobs in a process of its own.

    Args:
        folder: where the names of files begin that are not absolute: a worker of a cluster starts elsewhere.
    """

    def __init__(self, scorer: BatchScorer, how: How, folder: str) -> None:
        self._model = scorer.model
        self._how = how
        self._folder = folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do the jobs of a batch."""
        return {"done": [*map(self._done, batch["job"])]}

    def _done(self, job: Job) -> Done:
        try:
            os.chdir(self._folder)
        except OSError as error:
            return Done(job, error=f"{job.source}: a machine of the cluster has no {self._folder}: {error.strerror}")
        bad: list[BadRow] = []

        def on_bad(row: BadRow) -> None:
            if len(bad) < SHOWN_BAD_ROWS:
                bad.append(row)

        done = do(self._model, job, self._how, on_bad=on_bad)
        return Done(job, done.scored, done.error, done.said, tuple(bad))
