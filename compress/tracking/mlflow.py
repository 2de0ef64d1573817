"""MLflow: an experiment for each recipe, a run of it for each run, in a folder or on a server."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.tracking.tracker import Fact, missing

__all__ = ["MlflowTracker"]

_FOLDER = "mlruns"
_STATUS = {"done": "FINISHED", "interrupted": "KILLED"}
_MOST_AT_ONCE = 100  # parameters that a store takes in one call
_LONGEST = 500  # characters of a parameter that every store takes
_REFUSED = re.compile(r"[^\w\-. /]", re.ASCII)  # in names


class MlflowTracker:
    """Writes to ``place``: a folder, or the address of a server or a database.

    Without one, to what ``MLFLOW_TRACKING_URI`` says, or to ``mlruns`` here.

    Raises:
        MissingExtra: MLflow is not installed.
    """

    name = "mlflow"

    def __init__(self, place: str) -> None:
        # MLflow reports its use to its makers unless it is told not to before it is imported.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            import mlflow
            import mlflow.entities
        except ImportError as error:
            raise missing("mlflow", error) from error
        self._mlflow: Any = mlflow
        self._place = place or os.environ.get("MLFLOW_TRACKING_URI") or _FOLDER
        self._client: Any = None
        self._run = ""

    def begin(self, name: str, facts: Mapping[str, Fact]) -> None:
        """Make a run in the experiment ``name``, with the facts as its parameters."""
        self._client = self._mlflow.MlflowClient(tracking_uri=self._address())
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        self._run = self._client.create_run(experiment).info.run_id
        parameters = [
            self._mlflow.entities.Param(_REFUSED.sub("_", key), str(value)[:_LONGEST])
            for key, value in facts.items()
        ]
        for start in range(0, len(parameters), _MOST_AT_ONCE):
            self._client.log_batch(self._run, params=parameters[start : start + _MOST_AT_ONCE])

    def _address(self) -> str:
        if "://" in self._place:
            return self._place
        # A folder needs no server and no database; MLflow, which has stopped adding to its store of
        # files, asks that whoever uses it says so.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        return Path(self._place).absolute().as_uri()

    def add(self, group: str, axis: str, step: int, values: Mapping[str, float]) -> None:
        """One metric for each number, named ``group/number``."""
        now_ms = int(time.time() * 1000)
        metrics = [
            self._mlflow.entities.Metric(_REFUSED.sub("_", f"{group}/{name}"), value, now_ms, step)
            for name, value in values.items()
        ]
        self._client.log_batch(self._run, metrics=metrics)

    def end(self, status: str) -> None:
        """Mark the run as finished, failed or killed."""
        self._client.set_terminated(self._run, _STATUS.get(status, "FAILED"))
