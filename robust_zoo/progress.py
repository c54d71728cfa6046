"""Progress bars: shown on a terminal, silent in a pipe."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(
    title: str, total: int, *, done: int = 0, enabled: bool = True
) -> Iterator[Callable[[int], None]]:
    """A bar on stderr that starts at `done` of `total`; yields the function that moves it on by a number of units."""
    # Imported here: rich takes a noticeable part of the library's import time.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    hidden = not (enabled and console.is_terminal)
    with Progress(*columns, console=console, disable=hidden, transient=True) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda count: progress.advance(task, count)
