"""The films of files, folders, globs, zip archives and DICOMDIRs, one at a time: a month of them is never in memory."""

import glob
import hashlib
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

import pydicom

from kneeoa.errors import KneeOaError, TooLarge, UnreadableFile
from kneeoa.imaging.radiograph import MAX_BYTES
from kneeoa_cli.files.names import digest, file_stem

ENDINGS = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ""}  # without an ending: taken for DICOM
DICOMDIR = "DICOMDIR"
WRITTEN = {
    ".sr.dcm": b"kneeoa",
    ".sc.dcm": b"kneeoa",
    ".png": b"Software\0kneeoa",
}  # endings of our own files → what they hold
NEAR = 8192  # bytes from the beginning, within which they hold it


class SourceError(ValueError):
    """Something named is not there or cannot be listed."""


class NoRadiographs(SourceError):
    """All that was named is there, and no radiograph is in it."""


@dataclass(frozen=True)
class Source:
    """One film: a file, or a member of a zip archive.

    Attributes
    ----------
    below : Path, optional
        The folder that listed it: where a link or a ``..`` leads out of it, it is not read.
    listed : str
        Size and checksum as an archive lists them.
    """

    path: Path
    member: str | None = None  # empty: of an archive that cannot be listed
    below: Path | None = field(default=None, compare=False)
    listed: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """What results call it: the path, and after an exclamation mark the archive's member."""
        return f"{self.path}!{self.member}" if self.member else str(self.path)

    @cached_property
    def place(self) -> str:
        """Where it is, from whichever folder it was named."""
        place = os.path.realpath(self.path)
        return f"{place}!{self.member}" if self.member else place

    @cached_property
    def stamp(self) -> str:
        """What changes when the film there becomes another one: size and time; checksums where media are exchanged."""
        if self.listed:
            return self.listed
        try:
            found = self.path.stat()
            return f"{found.st_size} {hashlib.sha256(self.read()).hexdigest() if removable(found.st_dev) else found.st_mtime_ns}"
        except (OSError, KneeOaError):
            return "unreadable"

    @property
    def written_by_us(self) -> bool:
        """Whether it is a report or a figure of ours: nothing to grade."""
        mark = next((mark for ending, mark in WRITTEN.items() if self.path.name.lower().endswith(ending)), None)
        if mark is None or self.member is not None:
            return False
        try:
            with _opened(self.path) as file:
                return mark in file.read(NEAR)
        except OSError:
            return False

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
            if self.below and not Path(os.path.realpath(self.path)).is_relative_to(os.path.realpath(self.below)):
                raise UnreadableFile
            with _opened(self.path) as file:
                if self.member is None:
                    if os.fstat(file.fileno()).st_size > MAX_BYTES:
                        raise TooLarge
                    return file.read()
                with zipfile.ZipFile(file) as archive:
                    return member_bytes(archive, self.member)
        except TooLarge:
            raise
        except Exception:
            raise UnreadableFile from None


def _opened(path: Path) -> BinaryIO:
    """A file; a pipe would be waited for, and is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"not a file: {path}")
    return os.fdopen(descriptor, "rb")


@cache
def removable(device: int) -> bool:
    """Whether a disk can be exchanged for another one with films of the same names, by what the kernel says of it."""
    block = Path(os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
    told = [folder / "removable" for folder in (block, block.parent)]  # of the disk, or of the partition's disk
    return any(file.is_file() and file.read_text().strip() == "1" for file in told)


def distinct_stems(films: Sequence[Source]) -> dict[Source, str]:
    """A name for what is made from each film: its stem; with a digest where it is long or odd, or several have the same."""
    stems = {film: file_stem(film.stem) for film in films}
    seen = Counter(stem.casefold() for stem in stems.values())
    return {
        film: stem if stem == film.stem and seen[stem.casefold()] == 1 else f"{stem}-{digest(film.name)[:8]}"
        for film, stem in stems.items()
    }


def walk(names: Sequence[str], skipped: list[Source] | None = None) -> Iterator[Source]:
    """Files as named, globs expanded, folders and zip archives searched for images, DICOMDIRs followed; each film once.

    What kneeoa wrote itself is passed over, and added to ``skipped``.

    Raises
    ------
    NoRadiographs
        At the end, if there was nothing.
    SourceError
        If a name matches nothing, or a folder, an archive or a DICOMDIR cannot be read.
    """
    seen: set[str] = set()
    ours = [] if skipped is None else skipped
    empty = True
    for source in _walk(names):
        if (place := source.place) in seen:
            continue
        seen.add(place)
        if source.written_by_us:
            ours.append(source)
        else:
            empty = False
            yield source
    if empty:
        raise NoRadiographs("; ".join([f"no radiographs in {', '.join(names)}", *skipped_line(ours)]))


def skipped_line(skipped: Sequence[Source]) -> list[str]:
    """How many files of our own were passed over, as a line to print; none where none was."""
    return [f"{len(skipped)} {'file' if len(skipped) == 1 else 'files'} written by kneeoa skipped"] if skipped else []


def _walk(names: Sequence[str]) -> Iterator[Source]:
    for name in names:
        matches = [Path(name)] if Path(name).exists() else map(Path, sorted(glob.glob(name, recursive=True)))
        empty = True
        for path in matches:
            empty = False
            if path.is_dir():
                yield from _folder(path, path)
            else:
                yield from _file(path)
        if empty:
            raise SourceError(f"no such file, folder or pattern: {name}")


def _folder(folder: Path, top: Path) -> Iterator[Source]:
    """What is in it. Below ``top`` one that cannot be listed is a film that cannot be read: it must not end the run."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        if folder == top:
            raise SourceError(f"cannot read the folder {folder}: {error.strerror}") from None
        paths = []
        yield Source(folder)
    for path in paths:
        if os.path.isdir(path):
            if not path.is_symlink():  # it may lead back here
                yield from _folder(path, top)
        elif path.suffix.lower() == ".zip":
            try:
                yield from _archive(path, top)
            except SourceError:
                yield Source(path, "", top)
        elif is_film(path):
            yield Source(path, None, top)


def _file(path: Path) -> Iterator[Source]:
    if path.suffix.lower() == ".zip":
        yield from _archive(path)
    elif path.name == DICOMDIR:
        yield from _listed(path)
    else:
        yield Source(path)


def _archive(path: Path, below: Path | None = None) -> Iterator[Source]:
    try:
        with _opened(path) as file, zipfile.ZipFile(file) as archive:
            members = film_members(archive)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        raise SourceError(f"cannot read the archive {path}") from None
    for member, stamp in members:
        yield Source(path, member, below, stamp)


def film_members(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    """The films of a zip archive by name, each with its size and checksum."""
    return [
        (member.filename, f"{member.file_size} {member.CRC:08x}")
        for member in sorted(archive.infolist(), key=lambda member: member.filename)
        if not member.is_dir() and is_film(PurePosixPath(member.filename))
    ]


def member_bytes(archive: zipfile.ZipFile, member: str) -> bytes:
    """A film's bytes; `TooLarge` if they are more than the server accepts, before they are read."""
    if archive.getinfo(member).file_size > MAX_BYTES:
        raise TooLarge
    return archive.read(member)


def is_film(path: PurePath) -> bool:
    """Whether a file is taken for a film by its name; what a DICOMDIR lists is found beside it anyway."""
    return path.suffix.lower() in ENDINGS and path.name != DICOMDIR


def _listed(path: Path) -> Iterator[Source]:
    try:
        with _opened(path) as file:
            records = pydicom.dcmread(file).DirectoryRecordSequence
    except Exception:  # the parser raises nearly anything
        raise SourceError(f"cannot read {path} as a DICOMDIR") from None
    for record in records:
        parts = record.get("ReferencedFileID")
        if record.get("DirectoryRecordType") == "IMAGE" and parts:
            yield Source(path.parent.joinpath(*([parts] if isinstance(parts, str) else parts)), None, path.parent)
