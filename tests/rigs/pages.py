"""The parts of a page that tests look at."""

from __future__ import annotations

from html.parser import HTMLParser


class Outline(HTMLParser):
    """Its ids, links, and what it loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        self.loads += [values[name] for name in ("src", "data", "poster") if name in values]
        self.loads += [values["href"]] if tag == "link" else []
