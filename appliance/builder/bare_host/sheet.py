"""The sheet: lines of shell that the operator of a bare host has on paper (docs/architecture.md, The bare host).

Owns how the template `bundles/bare_host/sheet_template.sh` becomes the sheet of a trust root, and its second part from
`python_template.sh`. It is never written to a stick, because it serves to verify the stick.

Rules:
- nothing but digits and hexadecimal digits is put into it;
- directives for the linter are left out; each part has at most 25 lines of 72 columns, for up to four root keys;
- however it ends, the sheet removes the folder that it has made in memory, and nothing else;
- where the verifier only verifies, the folder stays after a right stick: it prints a command that reads a file there;
- the first part is whole without the second, which goes on where a host has no python3.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, StrictUndefined

import bundles
from signing.roles import Root

_FOR_THE_LINTER = "# shellcheck "
_PIN = ' --pin "$K"'
_KEEP = "; trap - 0"
_FOLDER = Path(bundles.__file__).parent / "bare_host"


def render_sheet(root: Root, serial: int, *, pins: bool = True) -> str:
    """The first part of the sheet of a trust root: all of it for a host with python3.

    Args:
        root: the sheet has the fingerprints of its root keys.
        serial: of the oldest `BOOT/` that a host may use.
        pins: whether that one's verifier copies the program and takes fingerprints; else it only verifies.
    """
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    role = root.roles["root"]
    return environment.from_string(_read("sheet_template.sh")).render(
        version=root.version,
        threshold=role.threshold,
        serial=serial,
        fingerprints="\n".join(sorted(key.fingerprint for key in role.keys.values())),
        pin=_PIN if pins else "",
        keep="" if pins else _KEEP,
    )


def python_part() -> str:
    """The second part, which follows the first in the same file: the same for every root."""
    return _read("python_template.sh")


def _read(name: str) -> str:
    lines = (_FOLDER / name).read_text(encoding="ascii").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(_FOR_THE_LINTER))
