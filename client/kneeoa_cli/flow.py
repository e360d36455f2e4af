"""Many films, a few at a time: each is asked for, and kept as soon as it is answered."""

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from tqdm import tqdm

from kneeoa.errors import KneeOaError
from kneeoa.messages import REPLY_SCHEMA, Message, envelope
from kneeoa_cli.files.inputs import Source
from kneeoa_client.client import Client, is_failure

LINE_SECONDS = 10  # between progress lines where no terminal shows a bar


@dataclass(frozen=True)
class Answer:
    """A film's reply, and the film, where it could be read and is wanted."""

    reply: Message
    film: bytes = b""


@dataclass
class Flow:
    """Asks for films, ``in_flight`` at a time, and keeps each answer as it comes, in the caller's thread.

    Where the server failed on a film, it is asked once more when all others are answered, alone: what killed the worker may
    have been another film of its batch. When interrupted, what is under way is still answered and kept.

    Attributes
    ----------
    known
        Whether a film need not be asked for.
    """

    ask: Callable[[Source], Answer]
    keep: Callable[[Source, Answer], None]
    client: Client
    in_flight: int
    known: Callable[[Source], bool] = lambda film: False
    _waiting: dict[Future[Answer], Source] = field(default_factory=dict)
    _failed: dict[Source, Answer] = field(default_factory=dict)

    def run(self, films: Iterable[Source], total: int) -> None:
        pool, progress = ThreadPoolExecutor(self.in_flight), Progress(total)
        try:
            for film in films:
                if self.known(film):
                    progress.known_before()
                    continue
                if len(self._waiting) == self.in_flight:
                    self._settle(wait(self._waiting, return_when=FIRST_COMPLETED).done, progress)
                self._waiting[pool.submit(self._careful, film)] = film
            self._settle(wait(self._waiting).done, progress)
            for film in list(self._failed):
                self.keep(film, self._careful(film))
                del self._failed[film]
                progress.one_more()
        finally:  # interrupted: what would be asked again is not
            self.client.closing.set()
            pool.shutdown(cancel_futures=True)
            self._settle([f for f in self._waiting if not f.cancelled() and not f.exception()], progress)
            for film, answer in self._failed.items():
                self.keep(film, answer)
            self.client.closing.clear()
            progress.close()

    def _settle(self, answered: Iterable[Future[Answer]], progress: "Progress") -> None:
        for future in answered:
            film, answer = self._waiting.pop(future), future.result()
            if is_failure(answer.reply):
                self._failed[film] = answer
            else:
                self.keep(film, answer)
                progress.one_more()

    def _careful(self, film: Source) -> Answer:
        try:
            return self.ask(film)
        except KneeOaError as error:  # what cannot be read here, or not by the server, is an answer too
            return Answer(envelope(REPLY_SCHEMA, error))


class Progress:
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
