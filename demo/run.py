"""The demo's story, from the data to the drift report."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from analysis import compare, outcomes_by_variant, read_profile, write_html
from demo.configuration import write_configuration
from demo.patients import Patients, read_patients, shifted, view_tables
from demo.results import Results
from demo.served_model import MODEL
from demo.system import DemoSystem
from demo.traffic import Answer, Clinic, Visit
from demo.training import PROFILE_FILE, train_and_publish
from feature_store import apply_views, open_redis, read_feature_views, read_views
from feature_store.row_loader import load_rows

ROUNDS: Final = 6
"""How often each held-out patient is asked about, in each half."""

SEED: Final = 11


class Demo:
    """One run of one system."""

    def __init__(self, system: DemoSystem, console: Console) -> None:
        self.system, self._console = system, console
        self._directory, self._ports = system.directory, system.ports

    def run(self) -> Results:
        """Train, publish, start, load, replay, shift, replay, compare. Raises what any part raises."""
        with self._progress() as progress:
            return self._run(progress)

    def _run(self, progress: Progress) -> Results:
        patients = read_patients()
        repository = self._directory / "repository"
        train_and_publish(patients, repository, datetime.now(UTC).isoformat(), lambda step: self._step(progress, step))
        defaults = np.median(patients.features[patients.training], axis=0)
        files = write_configuration(
            self._directory / "config", self._ports.workers, [float(value) for value in defaults]
        )
        self._step(progress, "starting Redis")
        self.system.start_redis()
        self._step(progress, "registering feature views and loading 569 patients")
        asyncio.run(self._load(files.features, patients, patients.features, register=True))
        self._step(progress, "starting two workers and the gateway")
        self.system.start_servers(repository, files)
        answers, refused = self._replay(progress, patients, "replaying held-out patients")
        self._step(progress, "shifting the stream: a badly set microscope")
        shift_at = datetime.now(UTC)
        asyncio.run(self._load(files.features, patients, shifted(patients.features), register=False))
        more_answers, more_refused = self._replay(progress, patients, "replaying shifted patients")
        self._step(progress, "writing the prediction log out")
        self.system.wait_for_log()
        self._step(progress, "comparing served features and scores with the training data")
        log = self.system.log_directory
        first, second = (read_profile(repository / MODEL / version / PROFILE_FILE) for version in ("1", "2"))
        before = compare(first, log, MODEL, end=shift_at, rows_served=len(answers), score_profiles=[second])
        after = compare(first, log, MODEL, start=shift_at, rows_served=len(more_answers), score_profiles=[second])
        report = self._directory / "drift.html"
        write_html(after, report)
        return Results(
            answers=[*answers, *more_answers],
            refused=[*refused, *more_refused],
            outcomes_before=outcomes_by_variant(log, MODEL, metric="correct", end=shift_at),
            outcomes_after=outcomes_by_variant(log, MODEL, metric="correct", start=shift_at),
            before=before,
            after=after,
            report=report,
            rows_dropped=sum(self.system.status()["log"]["rows_dropped"].values()),
        )

    def _replay(self, progress: Progress, patients: Patients, title: str) -> tuple[list[Answer], list[str]]:
        task = progress.add_task(title, total=ROUNDS * len(patients.held_out))
        answers: list[Answer] = []
        refused: list[str] = []
        for answer in Clinic(self._ports.gateway).replay(list(_visits(patients))):
            progress.advance(task)
            if isinstance(answer, Answer):
                answers.append(answer)
            else:
                refused.append(str(answer))
            if len(answers) % 100 == 0:
                self.tell_of_deaths()
        return answers, refused

    def tell_of_deaths(self) -> list[str]:
        """Print which children have died since the last call, and return it."""
        found = self.system.newly_dead()
        for death in found:
            self._console.print(f"[bold red]{death}[/]", soft_wrap=True, highlight=False)
        return found

    async def _load(self, file: Path, patients: Patients, features: "np.ndarray", *, register: bool) -> None:
        redis = open_redis(self.system.redis_url)
        try:
            if register:
                await apply_views(redis, read_feature_views(file))
            views = await read_views(redis)
            now_us = time.time_ns() // 1000
            ids = patients.ids(np.arange(len(features)))
            for view, table in view_tables(ids, features, now_us).items():
                await load_rows(
                    redis,
                    views[view],
                    table,
                    now_us=lambda: now_us,
                    entity_column="patient",
                    event_time_column="event_time",
                )
        finally:
            await redis.aclose()

    def _step(self, progress: Progress, title: str) -> None:
        for task in progress.tasks:
            if not task.finished and task.total is None:
                progress.update(task.id, total=1, completed=1)
        progress.add_task(title, total=None)
        if not self._console.is_terminal:
            self._console.print(title)

    def _progress(self) -> Progress:
        return Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )


def _visits(patients: Patients) -> Iterator[Visit]:
    order = np.random.default_rng(SEED)
    for _ in range(ROUNDS):
        for row in order.permutation(patients.held_out):
            yield Visit(f"p{row}", int(patients.malignant[row]))
