"""How much may wait at a gateway, and for how long an engine may be silent: the group `limits` of `site.yaml`.

Owns the values on their way from the site's file to the gateway. A limit bounds work; none can turn off a check.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_WAITING = 65536
MIN_SILENCE_S, MAX_SILENCE_S = 10, 3600


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a gateway.

    Args:
        waiting: requests that may wait for each model; 0 for some for each slot, as the gateway decides.
        waiting_per_key: those of them that may be of one key; 0 for a half of all.
        silence: seconds for which an engine may produce nothing for a piece of work, before that is ended.
    """

    waiting: int = 0
    waiting_per_key: int = 0
    silence: int = 120

    def to_json(self) -> dict[str, int]:
        """The values that differ from the defaults, by name."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) != getattr(USUAL_LIMITS, name)}

    @classmethod
    def from_json(cls, value: object) -> Limits:
        """Parse what `to_json` gave, of this version or an older one.

        Raises:
            ValueError: an unknown name, or a value out of range.
        """
        if not isinstance(value, dict) or not set(value) <= set(LIMITS):
            raise ValueError(f"fields among {', '.join(LIMITS)}")
        for name, number in value.items():
            minimum, maximum = LIMITS[name]
            if type(number) is not int or not minimum <= number <= maximum:
                raise ValueError(f"{name} from {minimum} to {maximum}")
        return cls(**value)


LIMITS = {
    "waiting": (1, MAX_WAITING),
    "waiting_per_key": (1, MAX_WAITING),
    "silence": (MIN_SILENCE_S, MAX_SILENCE_S),
}
"""The least and the greatest value of each."""
USUAL_LIMITS = Limits()
"""What a gateway does where a site decides nothing."""
