"""The levels at which the bytes that are served are bound to the signed ones.

Owns their names, their order, and the refusal of a level that is too low for a model.

Levels, from the strongest:
- `E4`: the file has a seal of fs-verity, measured on the descriptor that is served. The kernel refuses changed pages;
- `E2`: the file was hashed while it was copied once into new memory, and that memory is sealed. What happens to the
  disk later does not matter. Costs memory of the model's size;
- `E1`: the file was hashed, and is served through the same descriptor. A later change on disk is noticed when the file
  is read again: at the next start, or by a scrub.
"""

from __future__ import annotations

from signing.errors import HostUnfitError

E1, E2, E4 = "E1", "E2", "E4"
LADDER = (E4, E2, E1)
"""From the strongest to the weakest."""
LEVEL_CODE = "model.level"
ANY = ""
"""The minimum of a site that demands none."""

_NEEDS = {
    E4: "a seal of fs-verity on the model's file",
    E2: "memory for a copy of the model, or a seal of fs-verity",
    E1: "the model's file",
}
_REMEDIES = {
    E4: "see docs/team.md, Levels and scrub: how to give the file system the feature verity; then install again",
    E2: "add memory, or give the file system the feature verity (docs/team.md, Levels and scrub)",
    E1: "run the same `appliance install` again",
}


def is_enough(level: str, minimum: str) -> bool:
    """Whether a level is at least the minimum of the site.

    Args:
        level: one of the ladder.
        minimum: one of the ladder, or `ANY`.
    """
    return minimum == ANY or LADDER.index(level) <= LADDER.index(minimum)


def too_low(model: str, minimum: str, found: str) -> HostUnfitError:
    """The error for a model that cannot be served at the level which the site demands.

    Args:
        model: its name, or its path in the bundle.
        minimum: the level that the site demands.
        found: what there is instead.
    """
    return HostUnfitError(
        LEVEL_CODE,
        model,
        expected=f"level {minimum}: {_NEEDS[minimum]}",
        found=found,
        hint=f"{_REMEDIES[minimum]}; or lower min_level in site.yaml",
    )
