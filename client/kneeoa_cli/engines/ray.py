"""`kneeoa batch --engine ray`: an archive on all machines of a Ray cluster, through Ray Data; docs/scale.md.

The driver lists films, leaves out what the output already holds, and hands blocks of the others to actors, which read and grade
them; it alone writes. A block whose actor dies comes back without an answer: its films are asked for again in smaller blocks, in
the end one by one, and a film that ends its actor even then gets an error's row.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any
from warnings import catch_warnings, simplefilter

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.annotations import RayDeprecationWarning

from kneeoa.errors import InternalError
from kneeoa.messages import REPLY_SCHEMA, envelope
from kneeoa_cli.batch import Summary
from kneeoa_cli.engines.actors import LONGEST, Detect, Film, Grade, Whole, as_block, unpacked
from kneeoa_cli.files.inputs import NoRadiographs, skipped_line, walk
from kneeoa_cli.files.parts import Entry, Parts, digest, prefix_of
from kneeoa_cli.files.remote import Stores, bare, is_remote
from kneeoa_cli.files.tables import rows_of
from kneeoa_cli.flow import Progress
from kneeoa_client.client import ServerError

WAVE = 10**6  # films that the driver hands over at once
BLOCKS = (128, 8, 1)  # films of a block; of one whose actor died; and then
TRIES = 2  # of a block, on whichever machine, before it is divided
MEMORY = 2**30  # bytes of the object store of a cluster that is ours: no films are in it


def run(
    names: Sequence[str],
    out: str,
    address: str | None = None,
    identify: bool = False,
    any_view: bool = False,
    *,
    actors: int | None = None,
    detect: type[Detect] = Detect,
    longest: float = LONGEST,
) -> Summary:
    """Grade what ``out`` does not hold yet, and keep each film's rows once.

    Parameters
    ----------
    names
        Files, folders, patterns, archives, and addresses of buckets or what is in them.
    out
        A folder or an address, for `Parts`.
    address
        Of the cluster, as `ray.init` takes it; without one this machine is it.
    actors
        At most; by default one a core of the cluster.
    detect, longest
        The first stage, and the seconds that a film may take in it.

    Raises
    ------
    ValueError, OSError
        If a source cannot be listed, or the output not be written; what was written stays, and the same call goes on.
    ServerError
        If there is no cluster, or its workers cannot start.
    """
    started, skipped, stores = time.monotonic(), list[Any](), Stores()
    sources = [name if is_remote(name) else os.path.abspath(name) for name in names]
    films = _listed(sources, stores, skipped)
    films = chain([next(films)], films)  # what is wrong with a source is told before anything starts
    parts = Parts(out, identify)
    try:
        parts.load()
        connect(address)
        asked = {"stores": stores, "any_view": any_view, "identify": identify, "longest": longest}
        _grade(films, parts, [bare(source) for source in sources], Pool(detect, asked, actors))
        summary = Summary(skipped=skipped, seconds=time.monotonic() - started, records="files of the output")
        return _counted(summary, parts)
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise ServerError(f"the Ray cluster failed ({type(error).__name__}); its logs say more") from None
    finally:
        try:
            parts.flush()  # interrupted or not
        finally:
            parts.close()
            ray.shutdown()


def _listed(sources: list[str], stores: Stores, skipped: list[Any]) -> Iterator[Film]:
    """Films of all sources, each once."""
    seen: set[bytes] = set()
    for film in _all(sources, stores, skipped):
        if (key := digest(film.place)) not in seen:
            seen.add(key)
            yield film
    if not seen:
        raise NoRadiographs("; ".join([f"no radiographs in {', '.join(map(bare, sources))}", *skipped_line(skipped)]))


def _all(sources: list[str], stores: Stores, skipped: list[Any]) -> Iterator[Film]:
    for source in sources:
        if is_remote(source):
            yield from stores.films(source, skipped)
    if here := [source for source in sources if not is_remote(source)]:
        yield from walk(here, skipped)


def connect(address: str | None, **own: Any) -> None:
    """Join a cluster, or start one here with what is said of it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # on our terminal; Ray's own logs have the rest
    here = {} if address else {"object_store_memory": MEMORY, "include_dashboard": False, **own}
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **here)
    except Exception:  # Ray raises that very class, with pages of text
        told = f"no Ray cluster answers at {address}: start one with `ray start --head`, or leave --address out"
        raise ServerError(
            told if address else "Ray could not be started here; a busy machine may need another try"
        ) from None
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # a block without an answer is asked for again, by us
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # every such block is told, with its traceback


class Pool:
    """Actors on the cluster: where it has no GPU, each does all; else those on GPUs grade what the others have found."""

    def __init__(self, detect: type[Detect], asked: dict[str, Any], actors: int | None) -> None:
        self.detect, self.asked = detect, asked
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.cores, self.gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        self.actors = min(actors or self.cores, self.cores)
        if not self.actors:
            raise ServerError("the Ray cluster has no processor: start it with --num-cpus")

    def answers(self, films: list[Film], block: int) -> Iterator[dict[str, Any]]:
        """What became of films, as it becomes known; those whose actors died are missing."""
        tables = [as_block(films[at : at + block]) for at in range(0, len(films), block)]
        found: ray.data.Dataset = ray.data.from_arrow(tables)
        # A film alone: none waits behind it in an actor's queue and dies of it, too.
        through = partial(self._through, queue=1 if block == 1 else 2)
        if self.gpus:
            found = through(found, self.detect, self.asked, self.actors, num_cpus=1)
            graded = through(found, Grade, {"longest": self.asked["longest"]}, self.gpus, num_cpus=0, num_gpus=1)
        else:
            graded = through(found, Whole, {"detect": self.detect, **self.asked}, self.actors, num_cpus=1)
        for table in graded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from unpacked(table)

    def _through(
        self, data: "ray.data.Dataset", stage: type, asked: dict[str, Any], most: int, queue: int, **needs: Any
    ) -> "ray.data.Dataset":
        pool = ActorPoolStrategy(min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=queue)
        needs |= {"batch_size": None, "batch_format": "pyarrow", "max_task_retries": TRIES - 1}
        with catch_warnings():  # Ray 2.64 takes the bound on retries away: hence ours on Ray in pyproject.toml
            simplefilter("ignore", RayDeprecationWarning)
            return data.map_batches(stage, fn_constructor_kwargs=asked, compute=pool, **needs)


def _grade(films: Iterator[Film], parts: Parts, sources: list[str], pool: Pool) -> None:
    new = (film for film in films if parts.known.get(digest(film.place)) != film.stamp)
    while wave := list(islice(new, WAVE)):
        progress = Progress(len(wave))
        left = {film.place: film for film in wave}
        try:
            # fewer where there are few: each actor gets some
            for block in dict.fromkeys(max(1, min(size, len(wave) // (4 * pool.actors))) for size in BLOCKS):
                for answer in pool.answers(list(left.values()), block):
                    entry = Entry(*answer["entry"])
                    if left.pop(entry.place, None):
                        parts.add(prefix_of(answer["name"], sources), entry, answer["rows"])
                        progress.one_more()
                if not left:
                    break
            for film in left.values():
                parts.add(prefix_of(film.name, sources), *_fatal(film))
                progress.one_more()
        finally:
            progress.close()


def _fatal(film: Film) -> tuple[Entry, list[dict[str, Any]]]:
    """The entry and row of a film that ended each actor that it came to."""
    error = InternalError()
    rows = rows_of(film.name, envelope(REPLY_SCHEMA, error))
    return Entry(film.place, film.stamp, "error", error.code, None, len(rows)), rows


def _counted(summary: Summary, parts: Parts) -> Summary:
    parts.flush()
    for entry in parts.settle():
        summary.films += 1
        summary.statuses[entry.status] += 1
        if entry.code:
            summary.errors[entry.code] += 1
        if entry.grader:
            summary.graders[entry.grader] += 1
    summary.before, summary.unread = summary.films - parts.added, parts.unread
    return summary
