"""The films of files, folders, globs, zip archives and DICOMDIRs, one at a time: a month of them is never in memory."""

import glob
import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from kneeoa.errors import KneeOaError, TooLarge

ENDINGS = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ""}  # without an ending: taken for DICOM
DICOMDIR = "DICOMDIR"
MAX_BYTES = 64 << 20  # what the server accepts


class SourceError(ValueError):
    """Something named is not there or cannot be listed."""


class UnreadableFile(KneeOaError):
    """The file could not be read from the disk or the archive."""

    code = "unreadable_file"


@dataclass(frozen=True)
class Source:
    """One film: a file, or a member of a zip archive."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """What results call it: the path, and after an exclamation mark the archive's member."""
        return str(self.path) if self.member is None else f"{self.path}!{self.member}"

    @property
    def stem(self) -> str:
        """For files made from it."""
        return Path(self.member or self.path).stem

    def read(self) -> bytes:
        """Its bytes.

        Raises
        ------
        TooLarge
            If they are more than the server accepts, before they are read.
        UnreadableFile
            Whatever else goes wrong: a broken archive raises what it likes.
        """
        try:
            if self.member is None:
                if self.path.stat().st_size > MAX_BYTES:
                    raise TooLarge
                return self.path.read_bytes()
            with zipfile.ZipFile(self.path) as archive:
                if archive.getinfo(self.member).file_size > MAX_BYTES:
                    raise TooLarge
                return archive.read(self.member)
        except TooLarge:
            raise
        except Exception:
            raise UnreadableFile from None


def distinct_stems(films: Sequence[Source]) -> dict[Source, str]:
    """A name for what is made from each film: its stem, and where several have the same, with a digest of its path."""
    seen = Counter(film.stem for film in films)
    return {film: film.stem if seen[film.stem] == 1 else f"{film.stem}-{digest(film.name)[:8]}" for film in films}


def digest(name: str) -> str:
    """SHA-256 of a name; a file's may be in no encoding."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()


def walk(names: Sequence[str]) -> Iterator[Source]:
    """Files as named, globs expanded, folders and zip archives searched for images, DICOMDIRs followed; each film once.

    Raises
    ------
    SourceError
        If a name matches nothing, or a folder, an archive or a DICOMDIR cannot be read.
    """
    seen = set()
    for source in _walk(names):
        if source.name not in seen:
            seen.add(source.name)
            yield source


def _walk(names: Sequence[str]) -> Iterator[Source]:
    for name in names:
        matches = [Path(name)] if Path(name).exists() else map(Path, sorted(glob.glob(name, recursive=True)))
        empty = True
        for path in matches:
            empty = False
            if path.is_dir():
                yield from _folder(path)
            else:
                yield from _file(path)
        if empty:
            raise SourceError(f"no such file, folder or pattern: {name}")


def _folder(folder: Path) -> Iterator[Source]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise SourceError(f"cannot read the folder {folder}: {error.strerror}") from None
    for path in paths:
        if path.is_dir():
            if not path.is_symlink():  # it may lead back here
                yield from _folder(path)
        elif path.suffix.lower() == ".zip":
            yield from _archive(path)
        elif path.suffix.lower() in ENDINGS and path.name != DICOMDIR:  # what it lists is found in the folder anyway
            yield Source(path)


def _file(path: Path) -> Iterator[Source]:
    if path.suffix.lower() == ".zip":
        yield from _archive(path)
    elif path.name == DICOMDIR:
        yield from _listed(path)
    else:
        yield Source(path)


def _archive(path: Path) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        raise SourceError(f"cannot read the archive {path}") from None
    for member in sorted(members):
        inner = Path(member)
        if not member.endswith("/") and inner.suffix.lower() in ENDINGS and inner.name != DICOMDIR:
            yield Source(path, member)


def _listed(path: Path) -> Iterator[Source]:
    try:
        records = pydicom.dcmread(path).DirectoryRecordSequence
    except (OSError, InvalidDicomError, AttributeError):
        raise SourceError(f"cannot read {path} as a DICOMDIR") from None
    for record in records:
        parts = record.get("ReferencedFileID")
        if record.get("DirectoryRecordType") == "IMAGE" and parts:
            yield Source(path.parent.joinpath(*([parts] if isinstance(parts, str) else parts)))
