"""Looks at pages in a browser without a window, and asks axe what hinders people with disabilities there."""

from __future__ import annotations

import html
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_HOST = """<!DOCTYPE html><html lang="en"><title>pages</title><body><script id="axe" type="text/plain">{axe}</script>
<script>
onload = async () => {{
  const found = {{}};
  for (const [name, page] of Object.entries({pages})) for (const width of {widths}) {{
    const frame = document.createElement("iframe");
    frame.style = `width: ${{width}}px; height: 1200px; border: 0`;
    frame.srcdoc = page;
    await new Promise(done => {{ frame.onload = done; document.body.append(frame); }});
    const inside = frame.contentWindow, script = frame.contentDocument.createElement("script");
    frame.contentDocument.querySelectorAll("details").forEach(each => each.open = true);
    script.textContent = document.getElementById("axe").textContent;
    frame.contentDocument.head.append(script);
    const {{violations, passes}} = await inside.axe.run({rules});
    found[`${{name}}, ${{width}} px`] = {{passes: passes.map(each => each.id), violations: violations.flatMap(each =>
      each.nodes.map(node => `${{each.impact}}: ${{each.id}}: ${{node.html}}: ${{node.failureSummary}}`))}};
    frame.remove();
  }}
  document.getElementById("out").textContent = JSON.stringify(found);
}};
</script><pre id="out"></pre></body></html>
"""


def axe(
    pages: Mapping[str, str], folder: Path, *, widths: Sequence[int], dark: bool = False, rules: Sequence[str] = ()
) -> dict[str, Any]:
    """What axe finds on each page at each width: the rules that it `passes`, and its `violations`.

    widths: of the window, in pixels. rules: only these of axe's; without any, all.

    Skips the test if the browser or axe is not here.
    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), "") or ""
    if not browser:
        pytest.skip(f"no browser: none of {', '.join(_BROWSERS)} is on PATH (Debian's package chromium)")
    spec = importlib.util.find_spec("axe_core_python")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("no axe: the package axe-core-python is not installed (it is one of dev)")
    source = Path(spec.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8")
    quoted = json.dumps(dict(pages)).replace("</", "<\\/")  # a script ends with its end tag, wherever that is
    host = folder / "host.html"
    only = json.dumps({"runOnly": list(rules)} if rules else {})
    host.write_text(_HOST.format(axe=source, pages=quoted, widths=list(widths), rules=only), encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=60000", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run([*command, host.as_uri()], capture_output=True, text=True, timeout=300, check=False)
    text = done.stdout.rpartition('<pre id="out">')[2].partition("</pre>")[0]
    assert text, f"the browser ended with {done.returncode} and without a result: {done.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(html.unescape(text))
    return found
