"""The lowest versions and time that a host accepts (threats T2, T3, T4).

Owns the values and how they rise. Where they are kept is the host's (`appliance.host.trust.trust_store`); they are
values here.

Rules:
- floors only rise, but for those that a replaced builder's key resets (TUF 5.3.11); only root and targets, which
  people sign by threshold, raise the time;
- a version more than 10 000 above a floor is refused, so nobody can make newer ones unreachable; a host without floors
  takes any, or nobody could install after 10 000 publications.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from signing.errors import NotTrustedError
from signing.roles import parse_time
from signing.strictjson import MAX_INT, load_canonical

MAX_STEP = 10_000


@dataclass(frozen=True)
class Floors:
    """Lowest accepted versions, and the signed time that has passed at least.

    Args:
        root, timestamp, snapshot, targets: versions; 0 where nothing was ever accepted.
        time: `YYYY-MM-DDThh:mm:ssZ`, compared as text; empty where nothing was ever accepted.
    """

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    targets: int = 0
    time: str = ""

    def check(self, role: str, version: int, subject: str) -> None:
        """Refuse a version below the floor or far above it.

        Raises:
            NotTrustedError: code `version.rollback` or `version.fast-forward`.
        """
        floor: int = getattr(self, role)
        if version < floor:
            raise NotTrustedError(
                "version.rollback",
                subject,
                expected=f"{role} version {floor} or newer",
                found=f"version {version}",
                hint="these files are older than what this host has already accepted; ask for a newer stick",
            )
        if floor and version > floor + MAX_STEP:
            raise NotTrustedError(
                "version.fast-forward",
                subject,
                expected=f"{role} version at most {floor + MAX_STEP}",
                found=f"version {version}",
                hint="ask a key holder: nobody publishes that often, so somebody may have taken the builder's key",
            )

    def after_rotation(self) -> Floors:
        """Without the floors of timestamp and snapshot: replaced keys may have been stolen (5.3.11)."""
        return replace(self, timestamp=0, snapshot=0)

    def raised(self, other: Floors) -> Floors:
        """The higher of both, field by field; timestamp and snapshot as a newer root has left them.

        Args:
            other: proved by a walk that began from these floors.
        """
        mine = self.after_rotation() if other.root > self.root else self
        return Floors(
            root=max(self.root, other.root),
            timestamp=max(mine.timestamp, other.timestamp),
            snapshot=max(mine.snapshot, other.snapshot),
            targets=max(self.targets, other.targets),
            time=max(self.time, other.time),
        )


def parse_floors(data: bytes, subject: str) -> Floors:
    """Read floors from the file in which they are kept: all five fields, as a walk can prove them.

    Args:
        data: canonical JSON; somebody may have edited it.
        subject: the file's name, for the error.

    Raises:
        NotTrustedError: other fields, a version that is not from 1 to 2^63 - 1, or a time of another form. The time may
            be empty.
    """
    value = load_canonical(data, subject)
    if not isinstance(value, dict) or set(value) != {spec.name for spec in fields(Floors)}:
        raise NotTrustedError("floors.refused", subject, expected="the five fields of floors", found="other fields")
    time = value.pop("time")
    wrong = [name for name, number in value.items() if type(number) is not int or not 1 <= number <= MAX_INT]
    if wrong:
        raise NotTrustedError(
            "floors.refused", subject, expected="versions of at least 1", found=f"other values in {', '.join(wrong)}"
        )
    return Floors(**value, time=time if time == "" else parse_time(time, "time", subject))
