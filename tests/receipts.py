"""Receipts for tests: of a host that has nothing but a key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from appliance.keys.signers.pem import PemKey, create_key
from bundles.bundle import Bundle
from bundles.receipt import HeldBundle, Receipt, write_receipt
from signing.floors import Floors

FLOORS = Floors(1, 2, 2, 2, "2026-01-02T03:04:05Z")


def make_key(folder: Path, name: str = "host") -> PemKey:
    """A key that signs receipts."""
    return create_key(folder / f"{name}.pem")


def receipt_of(key: PemKey, *bundles: Bundle, counter: int = 1, **values: object) -> Receipt:
    """A receipt that names bundles; `values` replaces members of it."""
    held = tuple(HeldBundle(one.manifest, one.contents.name, one.contents.version) for one in bundles)
    release = held[0].manifest if held else None
    made = Receipt(key.public, counter, "2026-01-03T00:00:00Z", 2, FLOORS, None, release, held)
    return replace(made, **values)  # type: ignore[arg-type]


def put_receipt(folder: Path, key: PemKey, receipt: Receipt) -> Path:
    """The file of a receipt, signed with a key."""
    path = folder / f"receipt-{receipt.counter}.json"
    path.write_bytes(write_receipt(receipt, key.sign))
    return path
