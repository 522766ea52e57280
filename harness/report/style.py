"""The style of all pages."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

STYLE = Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8").strip())  # our own file
