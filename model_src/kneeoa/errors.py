"""What can go wrong with a request: one base class, one stable code and HTTP status each.

Messages are written by us and never quote the input: no DICOM value, file name or parser text may reach a log or a reply.
"""


class KneeOaError(Exception):
    """A request that cannot be graded, with the code a client can act on.

    Attributes
    ----------
    code : str
        Stable identifier, documented in docs/api.md.
    http_status : int
        Sent on ``/predictions/…``; carried in the envelope through the workflow, which drops HTTP codes.
    stage : str
        ``receive``, ``decode``, ``prepare``, ``detect`` or ``grade``.
    """

    code = "internal_error"
    http_status = 500
    stage = "receive"

    def __init__(self, message: str | None = None, *, stage: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").splitlines()[0])
        self.stage = stage or self.stage


class EmptyBody(KneeOaError):
    """The request has no body; send the file itself, e.g. curl -T film.dcm."""

    code, http_status = "empty_body", 400


class BadRequest(KneeOaError):
    """The service does not understand this request."""

    code, http_status = "bad_request", 400


class TooLarge(KneeOaError):
    """The image is larger than this service accepts."""

    code, http_status, stage = "too_large", 413, "decode"


class UnsupportedMedia(KneeOaError):
    """The file is neither DICOM nor PNG, JPEG or TIFF."""

    code, http_status, stage = "unsupported_media_type", 415, "decode"


class UnsupportedDicom(KneeOaError):
    """This kind of DICOM object is not graded."""

    code, http_status, stage = "unsupported_dicom", 415, "decode"


class CorruptImage(KneeOaError):
    """The file is damaged or incomplete and cannot be decoded."""

    code, http_status, stage = "corrupt_image", 422, "decode"


class TooExpensive(KneeOaError):
    """Reading this file takes more time or memory than any radiograph does."""

    code, http_status, stage = "too_expensive", 422, "decode"


class NotARadiograph(KneeOaError):
    """The image has no usable contrast or is too small to show a knee joint."""

    code, http_status, stage = "not_a_radiograph", 422, "prepare"


class UnreadableFile(KneeOaError):
    """The file could not be read from the disk or the archive."""

    code = "unreadable_file"


class InternalError(KneeOaError):
    """Something failed on our side; the log has a line with this request's id."""


BY_CODE = {kind.code: kind for kind in KneeOaError.__subclasses__()}  # the service's own: clients derive more of them


def error_of(problem: dict) -> KneeOaError:
    """The error that a message tells of, of the service's own."""
    return BY_CODE[problem["code"]](problem["message"], stage=problem["stage"])
