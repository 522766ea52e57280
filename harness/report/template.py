"""What all pages share: their style, and how they are made from a template."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

_STYLE = Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8").strip())  # our own file
_ENVIRONMENT = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)


def filled(template: Path, **values: object) -> str:
    """A page: a template with these values, and with `style`."""
    return _ENVIRONMENT.from_string(template.read_text(encoding="utf-8")).render(style=_STYLE, **values)
