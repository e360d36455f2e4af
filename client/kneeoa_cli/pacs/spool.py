"""What the PACS loop has taken and not yet given back, on disk: a crash loses nothing and repeats nothing.

A film walks from ``incoming`` through ``outgoing`` to ``done``, or to ``failed``; each step is one rename, and a step that was
cut off is taken again. Names are digests of SOP Instance UIDs: a listing tells nothing of a patient.
"""

import fcntl
import os
import shutil
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from kneeoa_cli.files.names import digest

STATES = ("incoming", "outgoing", "done", "failed")


class Spool:
    """One process at a time, else ``ValueError``.

    ``incoming/NAME``, a film; ``outgoing/NAME/``, what goes back for it; ``done/NAME``, empty; ``failed/NAME.CODE``, a film that
    could not be graded, kept for a person to look at.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for state in STATES:
            (folder / state).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = open(folder / "lock", "w")  # noqa: SIM115  (held as long as the process lives)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is using {folder}") from None
        for rest in (*folder.glob("incoming/*.part"), *folder.glob("outgoing/*.part")):
            _remove(rest)

    @staticmethod
    def name(sop_instance_uid: str) -> str:
        return digest(sop_instance_uid)[:32]

    def knows(self, name: str) -> bool:
        """Whether a film was taken before, whatever became of it."""
        places = (self.folder / state / name for state in STATES[:3])
        return any(place.exists() for place in places) or any((self.folder / "failed").glob(f"{name}.*"))

    def take(self, name: str, film: bytes) -> None:
        """Keep a film; once this returns, neither a kill nor a power cut loses it."""
        target = self.folder / "incoming" / name
        part = target.with_suffix(f".{threading.get_ident()}.part")  # a film may come twice at once
        try:
            _write(part, film)
        except OSError:
            part.unlink(missing_ok=True)  # it would keep a full disk full
            raise
        part.rename(target)
        _sync(target.parent)

    def incoming(self) -> list[Path]:
        """Films that wait to be graded, the oldest first."""
        return self._listed("incoming")

    def graded(self, film: Path, files: Mapping[str, bytes]) -> None:
        """What goes back for a film, by ending."""
        folder = self.folder / "outgoing" / film.name
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)  # of an attempt that met a full disk
        part.mkdir()
        for ending, file in files.items():
            _write(part / ending, file)
        _sync(part)
        part.rename(folder)
        _sync(folder.parent)
        film.unlink()

    def failed(self, film: Path, code: str) -> None:
        film.rename(self.folder / "failed" / f"{film.name}.{code}")

    def retry(self, codes: Collection[str]) -> None:
        """Films that failed with one of these codes wait to be graded again."""
        for film in (self.folder / "failed").iterdir():
            if film.suffix[1:] in codes:
                film.rename(self.folder / "incoming" / film.stem)

    def outgoing(self) -> list[Path]:
        """Folders of files that wait to be delivered, the oldest first."""
        return self._listed("outgoing")

    def finished(self, item: Path) -> None:
        """Done with a film, or with what went back for it: it is no longer needed."""
        (self.folder / "done" / item.name).touch()
        _sync(self.folder / "done")
        _remove(item)

    def _listed(self, state: str) -> list[Path]:
        """Those that are whole; what is done already was cut off while it was tidied up."""
        found = [path for path in (self.folder / state).iterdir() if path.suffix != ".part"]
        for path in [path for path in found if self._is_past(path, state)]:
            _remove(path)
            found.remove(path)
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def _is_past(self, path: Path, state: str) -> bool:
        return any((self.folder / later / path.name).exists() for later in STATES[STATES.index(state) + 1 : 3])


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
