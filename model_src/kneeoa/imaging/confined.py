"""The process that films are decoded in: started by `kneeoa.imaging.guarded`, limited, and replaced when it dies.

A supervisor that has everything loaded forks the process that decodes, and forks again when that one dies, which takes
milliseconds. Both hold one end of a socket, as standard input; the server's process holds the other one.
"""

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from kneeoa.errors import KneeOaError, TooExpensive
from kneeoa.imaging import decode

FILMS = 200  # decoded by one process, so that what a library leaks does not add up
ENDED = 3  # exit status where the server's process is gone
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # unshare(2); only root may have the second without the first
_TIMES = -signal.SIGPROF, -signal.SIGALRM  # exit codes of one that took too long
_DIE_WITH_PARENT = 1  # prctl(2)


@dataclass(frozen=True)
class Limits:
    """What one film may cost.

    Attributes
    ----------
    cpu_s, cpu_s_per_mb : float
        Seconds of processor time, whatever the file's size, and for each megabyte of it. A file made to be expensive is
        small, and an honest one takes time by its size; never more than ``wall_s``.
    wall_s : float
        Seconds from the request on.
    memory : int
        Bytes of address space over those of the resting process.
    """

    cpu_s: float = 2.0
    cpu_s_per_mb: float = 0.07
    wall_s: float = 4.5
    memory: int = 2**30


def main(limits: Limits) -> None:
    """Forks the decoding process, tells of its death where a film was in it, and ends with the server's process."""
    link = socket.socket(fileno=0)
    libc = ctypes.CDLL(None)
    confined = any(libc.unshare(names) == 0 for names in (_NEW_USER | _NEW_NETWORK, _NEW_NETWORK))
    link.send(json.dumps({"network": not confined}).encode())
    busy = mmap.mmap(-1, 1)  # shared with the forked process
    resting = _address_space("VmSize")
    while True:
        pid = os.fork()
        if pid == 0:
            libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
            _confine(resting + limits.memory)
            _serve(link, busy, limits, resting + 0.8 * limits.memory)
            os._exit(0)
        _, status, used = os.wait4(pid, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == ENDED:
            return
        if busy[0]:
            busy[0] = 0
            died = os.waitstatus_to_exitcode(status)
            overstepped = died in _TIMES or used.ru_maxrss * 1024 > 0.8 * limits.memory
            link.send(json.dumps({"died": died, "overstepped": overstepped}).encode())


def _confine(address_space: int) -> None:
    for kind, limit in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(kind, (limit, limit))
    for time_out in (signal.SIGPROF, signal.SIGALRM):  # they kill, whatever was inherited
        signal.signal(time_out, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _serve(link: socket.socket, busy: mmap.mmap, limits: Limits, nearly_all: float) -> None:
    for _ in range(FILMS):
        request, descriptors, *_ = socket.recv_fds(link, 64, 1)
        if not request:
            os._exit(ENDED)
        busy[0] = 1
        size = int(request)
        signal.setitimer(signal.ITIMER_PROF, min(limits.cpu_s + limits.cpu_s_per_mb * size / 2**20, limits.wall_s))
        signal.setitimer(signal.ITIMER_REAL, limits.wall_s)
        answer, starved = _answer(descriptors[0], size, nearly_all)
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        os.close(descriptors[0])
        busy[0] = 0
        link.send(json.dumps(answer).encode())
        if starved:
            return


def _answer(desk: int, size: int, nearly_all: float) -> tuple[dict[str, Any], bool]:
    """Reads the film that lies on the desk, a memory file, and puts its pixels there; what is known of it, or the error."""
    try:
        film = decode(os.pread(desk, size, 0))
    except (KneeOaError, MemoryError) as error:
        starved = _out_of_memory(error) or _address_space("VmPeak") > nearly_all
        problem = TooExpensive() if starved or not isinstance(error, KneeOaError) else error
        return {"error": {"code": problem.code, "message": str(problem), "stage": problem.stage}}, starved
    with mmap.mmap(desk, film.pixels.nbytes) as there:
        np.copyto(np.frombuffer(there, film.pixels.dtype).reshape(film.pixels.shape), film.pixels)
    facts = {field.name: getattr(film, field.name) for field in fields(film) if field.name != "pixels"}
    return {"shape": film.pixels.shape, "type": film.pixels.dtype.name, "facts": facts}, False


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether running out of memory is behind an error, which the readers call a corrupt image."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__context__
    return False


def _address_space(line: str) -> int:
    """VmSize, or VmPeak, of this process in bytes."""
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(line + ":"):
            return int(text.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {line}")


if __name__ == "__main__":
    main(Limits(**json.loads(sys.argv[1])))
