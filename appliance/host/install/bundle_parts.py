"""Whether this program applies every part of a bundle of format 2 (FORMAT 3.4).

Owns which parts it applies. A part can be read and verified, and still have no effect here. A bundle with such a part
is refused, so that nobody relies on an adapter or a check that is not there.

Rules:
- what a site may add, advisories, documents and accepted templates change nothing that serves: they are allowed;
- the golden sets of a model that chats are asked by its candidate before the switch;
- all else of format 2 is refused until this program applies it.
"""

from __future__ import annotations

from collections.abc import Iterator

from bundles.contents.contents import Contents
from signing.errors import ApplianceError

STATE_FORMAT = 1
"""The format of the stored state of a host, which this program reads and writes."""


def check_parts(contents: Contents) -> None:
    """Refuse a bundle with a part that this program does not apply.

    Args:
        contents: verified; of format 1, too, which may lack models.

    Raises:
        ApplianceError: code `install.unknown-parts`, naming each of them.
    """
    found = ", ".join(_not_applied(contents))
    if found:
        raise ApplianceError(
            "install.unknown-parts",
            f"{contents.name} {contents.version}",
            expected="a bundle of which this program applies every part",
            found=found,
            hint="update the appliance on this machine first: a later version applies them",
        )


def _not_applied(contents: Contents) -> Iterator[str]:
    if contents.is_light:
        yield "no runtime: it adds to a release that has one"
    elif not contents.models:
        yield "no models: there is nothing to serve"
    if contents.adapters:
        yield f"adapters {', '.join(adapter.name for adapter in contents.adapters)}"
    if contents.of_kind("tool-server"):
        yield "tool servers"
    for model in contents.models:
        if model.golden and model.purpose != "chat":
            yield f"golden sets of {model.name}, which does not chat"
    state = contents.state
    if state and (STATE_FORMAT not in state.reads or state.writes != STATE_FORMAT):
        yield f"stored state of format {state.writes}"
