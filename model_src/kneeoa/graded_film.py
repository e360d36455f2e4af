"""A reply together with its film, for programs, notebooks and tables."""

import base64
import os
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import msgspec

from kneeoa.errors import KneeOaError, error_of
from kneeoa.imaging.inputs import Source, read
from kneeoa.imaging.prepare import for_display
from kneeoa.messages import Message
from kneeoa.reporting.tables import COLUMNS, rows_of
from kneeoa.tasks import TASKS
from kneeoa.wire import Reply

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, kw_only=True, repr=False)
class GradedFilm(Reply):
    """A reply, with the fields that docs/api.md describes, and its table, figure and notebook view.

    Attributes
    ----------
    message : dict
        The reply as a server sends it.
    source
        The film as it was given; a path is read again when the figure is drawn.
    """

    message: Message
    source: Source = field(compare=False)

    @classmethod
    def of(cls, message: Message, source: Source) -> "GradedFilm":
        """From the reply to a film."""
        reply = msgspec.convert(message, Reply)
        return cls(**vars(reply), message=message, source=source)

    def __repr__(self) -> str:
        if self.error:
            return f"<GradedFilm error: {self.error.code}>"
        told = [f"KL {knee.grades['KL'].grade}" if knee.grades else knee.status for knee in self.knees]
        knees = [f"{knee.knee.value} {said}" for knee, said in zip(self.knees, told, strict=True)]
        return f"<GradedFilm {self.status}: {', '.join(knees)}>"

    def to_frame(self) -> "DataFrame":
        """One row per knee, in the columns of ``kneeoa grade --out``; a film that could not be read is one row. Needs pandas."""
        from pandas import DataFrame

        name = os.fspath(self.source) if isinstance(self.source, str | os.PathLike) else ""
        frame = DataFrame(rows_of(name, self.message), columns=COLUMNS)
        return frame.astype({task.name: "Int64" for task in TASKS})  # whole numbers where some are missing

    def draw(self, opacity: float | None = None) -> "Figure":
        """The page that ``kneeoa grade --figures`` writes; ``opacity`` of the heat map at its maximum, 0 … 1.

        Raises
        ------
        KneeOaError
            If the film could not be read, now or then.
        """
        from kneeoa.reporting.figure import OPACITY, draw_figure

        if self.film is None:
            raise error_of(self.message["error"])
        shown = for_display(read(self.source), self.film.polarity)
        return draw_figure(shown, self.message, opacity=OPACITY if opacity is None else opacity)

    def _repr_html_(self) -> str:
        """For Jupyter: the page, or a sentence that says why there is none."""
        from kneeoa.reporting.figure import DPI

        try:
            self.draw().savefig(picture := BytesIO(), format="png", dpi=DPI)
        except KneeOaError as error:
            return f"<p>{escape(repr(self))} {escape(str(error))}</p>"
        encoded = base64.b64encode(picture.getvalue()).decode("ascii")
        return f'<img src="data:image/png;base64,{encoded}" alt="{escape(repr(self))}" style="max-width: 100%">'
