"""The films of buckets: s3://, gs://, abfs:// and whatever else pyarrow opens, listed a folder at a time."""

import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

from pyarrow import ArrowException
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from kneeoa.errors import TooLarge, UnreadableFile
from kneeoa.imaging.radiograph import MAX_BYTES
from kneeoa_cli.files.inputs import WRITTEN, SourceError, film_members, is_film, member_bytes

REPORTS = tuple(ending for ending in WRITTEN if ending.endswith(".dcm"))  # to look into each would be a request each
SAID = {  # words of the storage's own errors → ours
    "NO_SUCH_BUCKET|NoSuchBucket|ContainerNotFound": "there is no such bucket",
    "ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE|InvalidAccessKey|Forbidden|UNAUTHORIZED"
    "|HTTP status 403|redentials": "there are no credentials, or they do not open it",
    "NETWORK_CONNECTION|resolve host|onnection refused|curlCode": "the storage does not answer",
}


@dataclass(frozen=True)
class Remote:
    """An object, or a member of a zip archive; it is called as a `kneeoa_cli.files.inputs.Source` is.

    Attributes
    ----------
    store : str
        The bucket, as in ``s3://films``: which of the `Stores` has it.
    path : str
        In pyarrow's words, with the bucket.
    stamp : str
        Size, and time of the last change; of a member size and checksum.
    """

    store: str
    path: str
    member: str | None
    stamp: str

    @property
    def name(self) -> str:
        name = f"{self.store}/{self.path.partition('/')[2]}"
        return f"{name}!{self.member}" if self.member else name

    @property
    def place(self) -> str:
        return self.name


class Stores:
    """Opens buckets, by the addresses that were named. It can be sent to other machines, which use their own credentials."""

    def __init__(self, filesystems: dict[str, FileSystem] | None = None) -> None:
        self.filesystems = filesystems or {}
        self._archive = lru_cache(4)(self._open_archive)  # a zip archive's directory is read once, not once a member

    def __reduce__(self) -> tuple[type, tuple[dict[str, FileSystem]]]:
        return Stores, (self.filesystems,)

    def films(self, uri: str, skipped: list[Remote]) -> Iterator[Remote]:
        """What ``uri`` names: an object, or all films below it; what kneeoa wrote goes to ``skipped``.

        Raises
        ------
        SourceError
            If it cannot be listed; says why in a sentence.
        """
        try:
            filesystem, path = opened(uri)
            store = store_of(uri)
            self.filesystems[store] = filesystem
            for info in _listed(filesystem, path):
                film = Remote(store, info.path, None, f"{info.size} {info.mtime_ns}")
                if info.path.lower().endswith(REPORTS):
                    skipped.append(film)
                elif info.path.lower().endswith(".zip"):
                    yield from self._members(film)
                elif is_film(PurePosixPath(info.path)):
                    yield film
        except (OSError, ArrowException) as error:
            raise SourceError(f"cannot list {bare(uri)}: {reason(error)}") from None

    def read(self, film: Remote) -> bytes:
        """A film's bytes.

        Raises
        ------
        TooLarge
            If they are more than the server accepts, before they are read.
        UnreadableFile
            Whatever else goes wrong.
        """
        try:
            if film.member is not None:
                return member_bytes(self._archive(film.store, film.path), film.member)
            with self.filesystems[film.store].open_input_file(film.path) as file:
                if file.size() > MAX_BYTES:
                    raise TooLarge
                return file.read()
        except TooLarge:
            raise
        except Exception:
            raise UnreadableFile from None

    def _members(self, film: Remote) -> Iterator[Remote]:
        try:
            members = film_members(self._archive(film.store, film.path))
        except Exception:  # a film that cannot be read, and not the end of the run
            yield Remote(film.store, film.path, "", film.stamp)
            return
        for member, stamp in members:
            yield Remote(film.store, film.path, member, stamp)

    def _open_archive(self, store: str, path: str) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.filesystems[store].open_input_file(path))


def is_remote(name: str) -> bool:
    """Whether a source or an output is named by an address."""
    return re.match(r"[a-z][a-z0-9+.-]*://", name) is not None


def opened(uri: str) -> tuple[FileSystem, str]:
    """The file system of an address, and the path in it.

    Raises
    ------
    SourceError
        If it holds credentials: rows and logs would show them.
    OSError, ArrowException
        As pyarrow does.
    """
    if "@" in uri.partition("://")[2].partition("/")[0] and not uri.startswith("abfs"):
        raise SourceError("credentials belong into the environment, not into an address")
    return FileSystem.from_uri(uri)


def store_of(uri: str) -> str:
    """Scheme and bucket."""
    scheme, _, rest = bare(uri).partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def bare(uri: str) -> str:
    """An address without its options."""
    return uri.partition("?")[0]


def reason(error: Exception) -> str:
    """Why a storage refuses, in our words where it is known."""
    text = str(error)
    known = (ours for theirs, ours in SAID.items() if re.search(theirs, text))
    told = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else text.splitlines()[0]
    return next(known, None) or told.partition(" Detail:")[0]


def _listed(filesystem: FileSystem, path: str) -> Iterator[FileInfo]:
    """Files below a path in the order of their names, each folder of its first level at once."""
    found = filesystem.get_file_info(path)
    if found.type is FileType.File:
        yield found
        return
    for entry in sorted(filesystem.get_file_info(FileSelector(path)), key=lambda info: info.path):
        if entry.type is FileType.Directory:
            below = filesystem.get_file_info(FileSelector(entry.path, recursive=True))
            yield from sorted((info for info in below if info.is_file), key=lambda info: info.path)
        elif entry.is_file:
            yield entry
