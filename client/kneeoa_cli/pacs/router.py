"""The PACS loop: films come in, are kept on disk, graded by the running server, and answered with reports in their study."""

import argparse
import logging
import signal
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kneeoa.errors import KneeOaError, TooLarge
from kneeoa.imaging.radiograph import MAX_BYTES
from kneeoa.reporting.dicom import deliverables
from kneeoa_cli.pacs.dicomweb import WebPeer
from kneeoa_cli.pacs.dimse import DeliveryFailed, DimsePeer, Peer, PeerAway, header_of, says_knee
from kneeoa_cli.pacs.provider import listen
from kneeoa_cli.pacs.spool import Spool
from kneeoa_client.client import EXPLAIN, Client, ServerError

log = logging.getLogger(__name__)
NO_KNEE = ("no_knee_like_region", "low_score")  # reasons that the detector has for what is no knee
FAILURES = ("server_failed", "internal_error", "unavailable", "timeout", "busy")  # codes that say nothing of the film
RETRY = 2.0, 60.0  # s: the first pause after a failure, and the longest


@dataclass
class Loop:
    """Grades what the spool holds and delivers what it graded, each in a thread of its own, until ``closing`` is set."""

    spool: Spool
    client: Client
    peer: Peer
    closing: threading.Event = field(default_factory=threading.Event)
    _work: dict[str, threading.Event] = field(
        default_factory=lambda: {n: threading.Event() for n in ("grade", "deliver")}
    )

    def start(self) -> list[threading.Thread]:
        self.client.closing = self.closing
        self.client.headers = {EXPLAIN: "KL"}
        self.spool.retry(FAILURES)
        jobs = {"grade": self._grade_all, "deliver": self._deliver_all}
        threads = [threading.Thread(target=self._run, args=(name, job), name=name) for name, job in jobs.items()]
        for thread in threads:
            thread.start()
        return threads

    def stop(self) -> None:
        self.closing.set()
        for event in self._work.values():
            event.set()

    def take(self, uid: str, film: bytes) -> None:
        """A film, once: one that was taken before is known, whatever became of it."""
        name = Spool.name(uid)
        if self.spool.knows(name):
            log.info("a film came again")
            return
        self.spool.take(name, film)
        log.info("a film came in")
        self._work["grade"].set()

    def look(self, web: WebPeer, every: float) -> None:
        """Take films from a DICOMweb service, every so many seconds, until ``closing`` is set."""
        while not self.closing.is_set():
            try:
                for uid, film in web.films(lambda uid: self.spool.knows(Spool.name(uid))):
                    self.take(uid, film)
                    if self.closing.is_set():
                        return
            except Exception as error:  # its answers may break a parser, in words that quote them: the type only
                log.warning("the DICOMweb service could not be asked: %s", type(error).__name__)
            self.closing.wait(every)

    def _run(self, name: str, job: Callable[[], bool]) -> None:
        """A job for as long as there is work; where some of it failed, again after a pause, longer each time."""
        pause = RETRY[0]
        while not self.closing.is_set():
            self._work[name].clear()
            if self.closing.is_set():  # set between the two lines above
                return
            try:
                whole = job()
            except Exception as error:  # what nobody foresaw: the thread lives on; its words may quote a film
                log.error("could not %s: %s", name, type(error).__name__)
                whole = False
            self._work[name].wait(RETRY[1] if whole else pause)  # a person may have put a film back
            pause = RETRY[0] if whole else min(2 * pause, RETRY[1])

    def _grade_all(self) -> bool:
        whole = True
        for film in self.spool.incoming():
            if self.closing.is_set():
                break
            try:
                self._grade(film)
            except ServerError as error:
                log.warning("%s; the films wait", error)
                return False
            except OSError as error:
                log.error("the spool could not be read or written: %s", type(error).__name__)
                whole = False
            self._work["deliver"].set()
        return whole

    def _grade(self, film: Path) -> None:
        data = film.read_bytes()
        try:
            if len(data) > MAX_BYTES:
                raise TooLarge
            reply = self.client.post_patiently(data)
            if reply["status"] == "error":
                code = reply["error"]["code"]
            elif all(knee["reason"] in NO_KNEE for knee in reply["knees"]) and not says_knee(header_of(data)):
                log.info("a film shows no knee, and does not say that it does")
                self.spool.finished(film)
                return
            else:
                self.spool.graded(film, deliverables(data, reply))
                log.info("a film is graded: %s", reply["status"])
                return
        except (ServerError, OSError):
            raise
        except Exception as error:  # ours have a code; any other must not keep the films behind it
            code = error.code if isinstance(error, KneeOaError) else type(error).__name__
        log.warning("a film could not be graded and is kept in %s: %s", self.spool.folder / "failed", code)
        self.spool.failed(film, code)

    def _deliver_all(self) -> bool:
        whole = True
        for item in self.spool.outgoing():
            try:
                self.peer.deliver(sorted(item.iterdir()))
            except (DeliveryFailed, OSError) as error:
                reason = error if isinstance(error, DeliveryFailed) else type(error).__name__
                log.warning("a report could not be delivered: %s; it waits", reason)
                whole = False
                if isinstance(error, PeerAway):
                    break
            else:
                self.spool.finished(item)
                log.info("a report is delivered")
            if self.closing.is_set():
                break
        return whole


def run(arguments: argparse.Namespace) -> int:
    """Take films from a PACS, and give reports back, until it is told to stop: 0."""
    credential = arguments.dicomweb_auth.read_text().strip() if arguments.dicomweb_auth else None
    web = WebPeer(arguments.dicomweb, arguments.days, credential, arguments.proxy) if arguments.dicomweb else None
    peer = DimsePeer.parse(arguments.peer, arguments.aet) if arguments.peer else web
    provider = None
    assert peer is not None
    _tell()
    loop = Loop(Spool(arguments.spool), Client.find(arguments.server, arguments.key_file, arguments.proxy), peer)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # told to stop is told to stop
    threads = loop.start()
    try:
        if web:
            loop.look(web, arguments.every)
        else:
            host, _, port = arguments.listen.rpartition(":")
            callers = arguments.accept or [arguments.peer.partition("@")[0]]
            provider = listen((host or "127.0.0.1", int(port)), arguments.aet, callers, loop.take)
            print(f"{arguments.aet} listens on {arguments.listen} for {', '.join(callers)}", flush=True)
            loop.closing.wait()
    except KeyboardInterrupt:
        log.info("stopping; what is under way goes on at the next start")
    finally:
        if provider:
            provider.shutdown()  # the associations too: their threads would outlive us
        loop.stop()
        for thread in threads:
            thread.join()
    return 0


def _tell() -> None:
    """Our own words go to stderr; the parsers', which quote what is in a file, nowhere."""
    warnings.simplefilter("ignore")
    for name in ("pydicom", "dicomweb_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("kneeoa_cli")
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)
