"""Work on thousands of files, in parallel, that goes on where it was cut off."""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

Job = tuple[Any, ...]


def stamp(path: Path) -> str:
    """What changes when a file does: its size and its time; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def resumed(
    work: Callable[..., Any], jobs: Mapping[str, Job], journal: Path, workers: int | None = None, unit: str = "film"
) -> dict[str, Any]:
    """What ``work(*job)`` answers, by the job's key; with a progress bar where someone looks.

    Parameters
    ----------
    jobs : mapping
        Keys say all that the answer hangs on, since a job whose key the journal holds is not done again.
    journal : Path
        One line of JSON an answer, written as it comes.
    workers : int, optional
        Processes, by default one a core; 1 works in this one.
    """
    known = dict(_lines(journal))
    answers = {key: known[key] for key in jobs if key in known}
    left = {key: job for key, job in jobs.items() if key not in known}
    bar = tqdm(total=len(jobs), initial=len(answers), unit=unit, disable=None)
    with journal.open("a") as file, bar:
        for key, answer in _done(work, left, workers):
            answers[key] = answer
            file.write("\n" + json.dumps([key, answer]))  # the break first: a line that was cut off harms itself alone
            file.flush()
            bar.update()
    return answers


def _done(work: Callable[..., Any], jobs: Mapping[str, Job], workers: int | None) -> Iterator[tuple[str, Any]]:
    if workers == 1:
        yield from ((key, work(*job)) for key, job in jobs.items())
        return
    with ProcessPoolExecutor(workers) as pool:
        try:
            futures = {pool.submit(work, *job): key for key, job in jobs.items()}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, what waits is not begun


def _lines(journal: Path) -> Iterator[tuple[str, Any]]:
    if journal.exists():
        for line in journal.read_text().splitlines():
            try:
                key, answer = json.loads(line)
                yield key, answer
            except ValueError:  # cut off while it was written
                continue
