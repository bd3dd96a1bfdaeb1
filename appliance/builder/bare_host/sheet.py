"""The sheet: lines of shell that the operator of a bare host has on paper (docs/architecture.md, The bare host).

Owns how the template `bundles/bare_host/sheet_template.sh` becomes the sheet of a trust root. It is never written to a
stick, because it serves to verify the stick.

Rules:
- nothing but digits and hexadecimal digits is put into it;
- directives for the linter are left out; at most 25 lines of 72 columns for up to four root keys.
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
        root: the sheet has the fingerprints of its root keys.
        serial: of the oldest `BOOT/` that a host may use.
    """
    text = (Path(bundles.__file__).parent / "bare_host" / "sheet_template.sh").read_text(encoding="ascii")
    lines = (line for line in text.splitlines(keepends=True) if not line.startswith(_FOR_THE_LINTER))
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    role = root.roles["root"]
    return environment.from_string("".join(lines)).render(
        version=root.version,
        threshold=role.threshold,
        serial=serial,
        fingerprints="\n".join(sorted(key.fingerprint for key in role.keys.values())),
    )
