"""The counter of the receipts that this host has signed (threats T39, T41).

Owns `trust/receipts.json`. The counter lies beside the floors. A disk image that sets the floors back sets it back
as well, and a reader of the receipts of this host sees it fall.

Rules:
- it rises durably before the receipt that carries it exists, so no two receipts share a number;
- a file that cannot be read is a refusal, never "no receipts yet".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import Prefix
from signing.errors import BusyError, DamagedError, NotTrustedError
from signing.roles import parse_time
from signing.strictjson import MAX_INT, load_canonical, to_file


@dataclass(frozen=True, slots=True)
class ReceiptCounter:
    """The number of the last receipt, 0 where there is none, and the time of this host's clock when it was signed."""

    counter: int = 0
    time: str = ""


def read_counter(prefix: Prefix) -> ReceiptCounter:
    """Read the number of the last receipt.

    Raises:
        DamagedError: the file is not what this host wrote.
    """
    path = _file(prefix)
    try:
        value = load_canonical(path.read_bytes(), str(path), 4096)
        if not isinstance(value, dict) or set(value) != {"counter", "time"}:
            raise _damaged(path, "other members")
        if type(value["counter"]) is not int or not 1 <= value["counter"] < MAX_INT:
            raise _damaged(path, "another counter")
        return ReceiptCounter(value["counter"], parse_time(value["time"], "time", str(path)))
    except FileNotFoundError:
        return ReceiptCounter()
    except NotTrustedError as error:
        raise _damaged(path, error.found) from None


def take_number(prefix: Prefix, wanted: ReceiptCounter) -> None:
    """Record that a number is taken, durably.

    Args:
        prefix: the host; its lock is held.
        wanted: one above the last, and the time of the receipt.

    Raises:
        BusyError: another receipt has taken it in the meantime.
    """
    if wanted.counter != read_counter(prefix).counter + 1:
        raise BusyError(
            "receipt.busy",
            str(_file(prefix)),
            expected=f"receipt {wanted.counter} to be the next one",
            found="another receipt with this number",
            hint="write the receipt again",
        )
    write_file(_file(prefix), to_file(asdict(wanted)))


def _file(prefix: Prefix) -> Path:
    return prefix.trust / "receipts.json"


def _damaged(path: Path, found: str) -> DamagedError:
    return DamagedError(
        "receipts.damaged",
        str(path),
        expected="the number of the last receipt, as this host wrote it",
        found=found,
        hint="restore this file from a backup. Without it, move it away: the count begins at 1, and the workspace that "
        "reads the receipts wants this host's fingerprint once more",
    )
