"""What `sekisho-features` does: each command is one function from its arguments to an exit code."""

import asyncio
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from feature_store.entity_lookup import FeatureReading, look_up
from feature_store.errors import FeatureStoreUnavailable, UnknownView
from feature_store.feature_views import read_feature_views
from feature_store.freshness import ViewFreshness, sample_freshness
from feature_store.load_progress import LoadCutOff, progress_path, read_progress, write_progress
from feature_store.redis_client import open_redis
from feature_store.registered_view import RegisteredView
from feature_store.registry import apply_views, read_views
from feature_store.row_files import RowFile, open_row_file
from feature_store.row_loader import LoadReport, RowLoader

OK, FAILED, BAD_USAGE, STALE = 0, 1, 2, 3

Clock = Callable[[], int]
"""Now, in µs since 1970, UTC."""


async def apply(arguments: Namespace, console: Console, _now_us: Clock) -> int:
    """Bring the registry to what a features.yaml declares, and print what that changed."""
    views = read_feature_views(arguments.features)
    async with open_redis(arguments.redis) as redis:
        changes = await apply_views(redis, views, dry_run=arguments.dry_run)
    table = _table("view", "change", "schema", "revision", "details")
    for change in changes:
        table.add_row(
            change.view, change.kind, str(change.schema_id), str(change.revision), "\n".join(change.details) or "—"
        )
    console.print(table)
    if arguments.dry_run:
        console.print("dry run: nothing was written")
    return OK


async def load(arguments: Namespace, console: Console, now_us: Clock) -> int:
    """Load a file of rows into one view, and print how many were written and how many newer ones kept."""
    path: Path = arguments.file
    async with open_redis(arguments.redis) as redis:
        view = _chosen(await read_views(redis), [arguments.view])[0]
        kept_in = arguments.progress_file or progress_path(path, view.name)
        rows_before = read_progress(kept_in, path, view.name) if arguments.resume else 0
        loader = RowLoader(
            redis,
            view,
            now_us,
            entity_column=arguments.entity_column,
            event_time_column=arguments.event_time_column,
            chunk_rows=arguments.chunk_rows,
            ignore_extra=arguments.ignore_extra,
            rows_before=rows_before,
        )
        text_columns = {arguments.entity_column or view.entity, arguments.event_time_column}
        with open_row_file(path, view.current, text_columns, rows_before) as file:
            loader.check_columns(file.column_names)
            with _progress_bar(console, path.name, file.rows, rows_before) as show:

                def on_progress(report: LoadReport) -> None:
                    write_progress(kept_in, path, view.name, rows_before + report.rows)
                    show(rows_before + report.rows)

                await _load_batches(loader, file, on_progress, rows_before)
    kept_in.unlink(missing_ok=True)
    _print_report(console, view, loader.report, rows_before)
    return OK


async def get(arguments: Namespace, console: Console, now_us: Clock) -> int:
    """Print what the store knows of one entity."""
    entity, _equals, entity_id = arguments.entity.partition("=")
    async with open_redis(arguments.redis) as redis:
        views = await read_views(redis)
        chosen = [view for view in _chosen(views, arguments.view) if view.entity == entity]
        if not chosen:
            kinds = ", ".join(sorted({view.entity for view in views.values()})) or "none"
            console.print(f"no view of entity {entity} among those asked for; registered entities: {kinds}")
            return FAILED
        readings = await look_up(redis, chosen, entity_id, now_us())
    if arguments.json:
        # Not through the console, which would wrap it.
        console.file.write(msgspec.json.encode(readings).decode() + "\n")
    else:
        console.print(_readings_table(readings))
    return OK


async def check(arguments: Namespace, console: Console, now_us: Clock) -> int:
    """Print how fresh the rows are; STALE where a view has too large a share of rows that are not, or no row at all."""
    async with open_redis(arguments.redis) as redis:
        views = _chosen(await read_views(redis), arguments.view)
        samples = await sample_freshness(redis, views, now_us(), arguments.sample)
    table = _table("view", "rows seen", "fresh", "stale", "unreadable", "oldest", "newest", "schemas")
    for found in samples:
        table.add_row(*_freshness_cells(found))
    console.print(table)
    late = [found for found in samples if found.stale_share > arguments.max_stale_share]
    for found in late:
        share = f"{found.stale_share:.1%} of rows are not fresh" if found.rows else "there are no rows"
        console.print(f"{found.view}: {share} (allowed: {arguments.max_stale_share:.1%})")
    return STALE if late else OK


async def _load_batches(
    loader: RowLoader, file: RowFile, on_progress: Callable[[LoadReport], None], rows_before: int
) -> None:
    try:
        await _load_every_batch(loader, file, on_progress)
    except FeatureStoreUnavailable as error:
        rows = rows_before + loader.report.rows
        if rows:
            raise LoadCutOff(error, rows) from error
        raise


async def _load_every_batch(loader: RowLoader, file: RowFile, on_progress: Callable[[LoadReport], None]) -> None:
    # Reading a file blocks, on disk and in decoding: in a thread, while Redis takes the rows before.
    while True:
        batch = await asyncio.to_thread(next, file.batches, None)
        if batch is None:
            return
        await loader.load(batch, on_progress)


def _chosen(views: Mapping[str, RegisteredView], names: Iterable[str] | None) -> list[RegisteredView]:
    for name in names or ():
        if name not in views:
            raise UnknownView(name, tuple(views))
    return [views[name] for name in names or views]


class _RowsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} rows/s")


@contextmanager
def _progress_bar(console: Console, name: str, rows: int | None, done: int) -> Iterator[Callable[[int], None]]:
    if not console.is_terminal:
        yield lambda _rows: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _RowsPerSecond())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(name, total=rows, completed=done)
        yield lambda rows_done: progress.update(task, completed=rows_done)


def _print_report(console: Console, view: RegisteredView, report: LoadReport, rows_before: int) -> None:
    console.print(f"{view.name}: rows: {report.rows:,}, written: {report.written:,}, kept newer: {report.kept_newer:,}")
    if rows_before:
        console.print(f"resumed after row {rows_before:,}")
    if report.absent:
        console.print(f"null in every row, as the file has no such column: {', '.join(report.absent)}")
    if report.ignored:
        console.print(f"ignored columns: {', '.join(report.ignored)}")


def _readings_table(readings: list[FeatureReading]) -> Table:
    table = _table("view", "feature", "value", "status", "age")
    for reading in readings:
        status = reading.status if reading.fault is None else f"{reading.status} ({reading.fault})"
        age = "—" if reading.age_s is None else f"{reading.age_s:,.1f} s"
        table.add_row(reading.view, reading.feature, _shown(reading.value), status, age)
    return table


def _freshness_cells(found: ViewFreshness) -> list[str]:
    def share(count: int) -> str:
        return f"{count / found.rows:.1%}" if found.rows else "—"

    schemas = ", ".join(f"{schema_id} ({count:,})" for schema_id, count in sorted(found.schema_ids.items()))
    counts = [f"{found.rows:,}", share(found.fresh), share(found.stale), share(found.unreadable)]
    return [found.view, *counts, _time(found.oldest_us), _time(found.newest_us), schemas or "—"]


def _time(at_us: int | None) -> str:
    if at_us is None:
        return "—"
    try:
        return datetime.fromtimestamp(at_us // 1_000_000, UTC).isoformat()
    except (ValueError, OverflowError):  # a foreign row may hold any 64 bits
        return f"{at_us} µs"


def _shown(value: object) -> str:
    if value is None:
        return "—"
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table
