"""`decode` for files that nobody vouches for: in a process of its own, with limits, which dies in the server's place."""

import fcntl
import json
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import Any, get_type_hints

import numpy as np

import kneeoa
from kneeoa.errors import CorruptImage, EmptyBody, InternalError, TooExpensive, error_of
from kneeoa.imaging.confined import Limits
from kneeoa.imaging.radiograph import MAX_PIXELS, Radiograph, check_size

log = logging.getLogger(__name__)
START_S = 180.0  # a second, but for a machine that has no time
GRACE_S = 0.3  # the process stops itself; after so long it did not
_CRASHED = tuple(-s for s in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL))
_TYPES = {name: np.dtype(name) for name in ("uint16", "float32")}  # of pixels
_KINDS = get_type_hints(Radiograph)


class GuardedDecoder:
    """Called as `decode` is. Threads may share it; they wait for each other.

    The process ends with its owner: it stops when the socket closes, and its timers end what it is at.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._lock = Lock()
        self._start()
        self._await_start()

    def __call__(self, data: bytes) -> Radiograph:
        """Read a radiograph.

        Raises
        ------
        TooExpensive
            If it takes more than the limits.
        InternalError
            If the process ended twice and the film was not the cause.
        EmptyBody, UnsupportedMedia, UnsupportedDicom, CorruptImage, TooLarge
            As `decode` does; also CorruptImage where a decoder crashed.
        """
        if not data:
            raise EmptyBody
        with self._lock:
            for _ in range(2):  # again where the process died for no reason that the film gave
                desk = _lay_out(data)
                try:
                    answer = self._ask(desk, len(data))
                    if "died" not in answer:
                        return _film(answer, desk)
                finally:
                    os.close(desk)
                if answer["overstepped"]:
                    raise TooExpensive
                if answer["died"] in _CRASHED:
                    raise CorruptImage
        raise InternalError(stage="decode")

    def close(self) -> None:
        """End the process."""
        self._link.close()
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        self._link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kneeoa.imaging.confined", json.dumps(asdict(self.limits))],
                cwd=Path(kneeoa.__file__).parent.parent,  # from there the module is imported, whatever is installed
                env=_environment(),
                stdin=other.fileno(),
                stdout=subprocess.DEVNULL,  # what decoders say quotes the film
                stderr=subprocess.DEVNULL,
            )
        self._started = False

    def _await_start(self) -> None:
        self._link.settimeout(START_S)
        ready = self._link.recv(4096)
        if not ready:
            raise ConnectionError("the decoding process did not start")
        if json.loads(ready)["network"]:
            log.warning("films are decoded in a process that has the network: this system allows no namespaces")
        self._link.settimeout(self.limits.wall_s + GRACE_S)
        self._started = True

    def _ask(self, desk: int, size: int) -> dict[str, Any]:
        """The process's answer; where it has none, a new process, and how the old one ended."""
        overstepped = False
        try:
            if not self._started:
                self._await_start()
            socket.send_fds(self._link, [str(size).encode()], [desk])
            if answer := self._link.recv(65536):
                return json.loads(answer)
        except TimeoutError:
            overstepped = self._started
        except OSError:  # somebody killed the supervisor
            pass
        log.warning("the decoding process is started again")
        self.close()
        self._start()  # and nobody waits for it but the next film
        return {"died": None, "overstepped": overstepped}


def _environment() -> dict[str, str]:
    """What Python itself may need of ours; no secret gets into that process."""
    kept = {name: os.environ[name] for name in ("HOME", "LD_LIBRARY_PATH") if name in os.environ}
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **kept}  # one thread, or there is no namespace for it


def _lay_out(data: bytes) -> int:
    """A memory file that holds a film's bytes, has room for its pixels, and cannot shrink under its reader."""
    desk = os.memfd_create("film", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(desk, "wb", closefd=False) as file:
        file.write(data)
        file.truncate(max(len(data), MAX_PIXELS * _TYPES["float32"].itemsize))
    fcntl.fcntl(desk, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return desk


def _film(answer: dict[str, Any], desk: int) -> Radiograph:
    if error := answer.get("error"):
        raise error_of(error)
    rows, columns = answer["shape"]
    check_size(rows, columns)
    kind = _TYPES[answer["type"]]
    pixels = np.frombuffer(mmap.mmap(desk, rows * columns * kind.itemsize), kind).reshape(rows, columns)
    return Radiograph(pixels=pixels, **{name: _typed(name, value) for name, value in answer["facts"].items()})


def _typed(name: str, value: Any) -> Any:
    """A field of `Radiograph` as it was before it became JSON."""
    kind = _KINDS[name]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return tuple(value) if isinstance(value, list) else value
