"""mkdocs' hook: what pages say of the repository's other files stands on the site as a name, for the files are not there."""

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page's text without its links out of ``docs/``."""
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)
