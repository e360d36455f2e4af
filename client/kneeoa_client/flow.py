"""Many films, a few at a time: each is asked for, and kept as soon as it is answered."""

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from tqdm import tqdm

from kneeoa.errors import KneeOaError
from kneeoa.messages import REPLY_SCHEMA, Message, envelope
from kneeoa_client.server import Server, is_failure
from kneeoa_client.sources import Source

LINE_SECONDS = 10  # between progress lines where no terminal shows a bar


@dataclass(frozen=True)
class Answer:
    """A film's reply, and the film, where it could be read and is wanted."""

    reply: Message
    film: bytes = b""


def ask_all(
    films: Iterable[Source],
    total: int,
    ask: Callable[[Source], Answer],
    keep: Callable[[Source, Answer], None],
    server: Server,
    in_flight: int,
    known: Callable[[Source], bool] = lambda film: False,
) -> None:
    """Ask for each film that is not ``known``, ``in_flight`` at a time; keep each answer, in this thread, as it comes.

    Where the server failed on a film, it is asked once more when all others are answered, alone: what killed the worker may
    have been another film of its batch. When interrupted, what is under way is still answered and kept.
    """
    progress, waiting, failed = _Progress(total), dict[Future[Answer], Source](), dict[Source, Answer]()

    def settle(answered: Iterable[Future[Answer]]) -> None:
        for future in answered:
            film, answer = waiting.pop(future), future.result()
            if is_failure(answer.reply):
                failed[film] = answer
            else:
                keep(film, answer)
                progress.one_more()

    def careful(film: Source) -> Answer:
        try:
            return ask(film)
        except KneeOaError as error:  # what cannot be read here, or not by the server, is an answer too
            return Answer(envelope(REPLY_SCHEMA, error))

    pool = ThreadPoolExecutor(in_flight)
    try:
        for film in films:
            if known(film):
                progress.known_before()
                continue
            if len(waiting) == in_flight:
                settle(wait(waiting, return_when=FIRST_COMPLETED).done)
            waiting[pool.submit(careful, film)] = film
        settle(wait(waiting).done)
        for film in list(failed):
            keep(film, careful(film))
            del failed[film]
            progress.one_more()
    finally:  # interrupted: what would be asked again is not
        server.closing.set()
        pool.shutdown(cancel_futures=True)
        settle([future for future in waiting if not future.cancelled() and not future.exception()])
        for film, answer in failed.items():
            keep(film, answer)
        server.closing.clear()
        progress.close()


class _Progress:
    """A bar on a terminal; elsewhere a line now and then, with this run's rate."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.before, self.started = total, 0, 0, time.monotonic()
        self.told = self.started
        hidden = total < 2 or not sys.stderr.isatty()
        self.bar = tqdm(total=total, unit="film", smoothing=0.05, disable=hidden)

    def known_before(self) -> None:
        self.done, self.before = self.done + 1, self.before + 1
        self.bar.update()

    def one_more(self) -> None:
        self.done += 1
        self.bar.update()
        if self.bar.disable and time.monotonic() - self.told > LINE_SECONDS:
            self.told = time.monotonic()
            rate = (self.done - self.before) / (self.told - self.started)
            left = tqdm.format_interval((self.total - self.done) / rate)
            print(f"{self.done} of {self.total} films, {rate:.2f} films/s, {left} left", file=sys.stderr, flush=True)

    def close(self) -> None:
        self.bar.close()
