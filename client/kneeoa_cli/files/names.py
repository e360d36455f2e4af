"""Names that other people chose: what they may do to a terminal, to a table that a spreadsheet opens, to a folder."""

import hashlib
import re

LONGEST = 120  # bytes of a stem, of the 255 that a file's name may have
KINDS = {".csv": ".csv", ".jsonl": ".jsonl", ".parquet": ".jsonl"}  # of tables; of their rows while they come


def printable(text: str) -> str:
    """Text with all escaped that is not seen or steers a terminal: controls, direction marks, bytes in no encoding."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def cell(text: str) -> str:
    """The same for a table: what a spreadsheet would take for a formula begins with an apostrophe."""
    return re.sub(r"(^|;)(?=\s*[=+\-@])", r"\1'", printable(text))


def file_stem(text: str) -> str:
    """What a file may be called: at most `LONGEST` bytes that can be seen, in one folder."""
    clean = "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in text)
    return clean.encode()[:LONGEST].decode(errors="ignore")


def digest(name: str) -> str:
    """SHA-256 of a name; a file's may be in no encoding."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
