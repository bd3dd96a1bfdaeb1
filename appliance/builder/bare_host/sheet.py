"""The sheet: the few lines of shell that a bare host's operator has on paper (DESIGN 7).

Owns how the template `bundles/bare_host/sheet.sh` becomes the sheet of a trust root. It is never written to a stick: it
is what the stick is checked with.

Rules:
- nothing but digits and hexadecimal digits is put into it;
- lines that speak to the linter stay out; at most 25 lines of 72 columns for up to four root keys.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, StrictUndefined

import bundles
from signing.roles import Root

_FOR_THE_LINTER = "# shellcheck "


def render_sheet(root: Root, serial: int) -> str:
    """The sheet of a trust root.

    Args:
        root: whose root keys' fingerprints go on paper.
        serial: of the oldest `BOOT/` that a host may take.
    """
    text = (Path(bundles.__file__).parent / "bare_host" / "sheet.sh").read_text(encoding="ascii")
    lines = (line for line in text.splitlines(keepends=True) if not line.startswith(_FOR_THE_LINTER))
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    role = root.roles["root"]
    return environment.from_string("".join(lines)).render(
        version=root.version,
        threshold=role.threshold,
        serial=serial,
        fingerprints="\n".join(sorted(key.fingerprint for key in role.keys.values())),
    )
