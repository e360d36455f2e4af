"""Processes that outlive the command that starts them: which is whose, and how one is stopped without hitting another."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

SAID = 1 << 20  # bytes that are kept of what a process says


class DeployError(RuntimeError):
    """Something could not be started; the message says what to do."""


def launch(folder: Path, command: list[str], **options: Any) -> psutil.Process:
    """Start a command in a session of its own; ``folder/pid`` says who it is. ``options``: as of `subprocess.Popen`."""
    started = subprocess.Popen(command, start_new_session=True, **options)
    process = psutil.Process(started.pid)
    with contextlib.suppress(psutil.Error):  # it may have ended already
        while not process.cmdline():  # which an exec that has only just begun leaves empty for a moment
            time.sleep(0.001)
    # its number comes first, alone on its line; the arguments that stay whatever an interpreter or a reload puts around them
    told = {"started": _started(process.pid), "arguments": command[-3:]}
    (folder / "pid").write_text(f"{process.pid}\n{json.dumps(told)}\n")
    return process


def process_of(folder: Path) -> psutil.Process | None:
    """The process that was launched there, if it still lives; never another one that has got its number since."""
    try:
        number, told = (folder / "pid").read_text().splitlines()
        known = json.loads(told)
        process = psutil.Process(int(number))
        same = _started(process.pid) == known["started"] and {*known["arguments"]} <= {*process.cmdline()}
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None


def _started(pid: int) -> int:
    """When it began, in clock ticks since the machine did: whoever sets the clock does not move it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def running(folder: Path) -> bool:
    """Whether the process that was launched there is alive."""
    return process_of(folder) is not None


def stop(folder: Path) -> None:
    """End it and all of its session; waits until they are gone."""
    if leader := process_of(folder):
        group = [process for process in psutil.process_iter() if _group_of(process) == leader.pid]
        for sign, seconds in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader.pid, sign)
            _, group = psutil.wait_procs(group, timeout=seconds)
            if not group:
                break
    (folder / "pid").unlink(missing_ok=True)


def _group_of(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None
