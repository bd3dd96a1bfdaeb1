"""The guest that tests use: built once, resumed for each of them."""

from __future__ import annotations

from pathlib import Path

from tests.bed.cache import Say
from tests.bed.guest import Guest
from tests.bed.guest_frozen import freeze
from tests.bed.guest_frozen import place as place_frozen
from tests.bed.guest_image import build_image
from tests.bed.guest_image import place as place_image
from tests.bed.guest_machine import default_machine


def build(say: Say) -> Path:
    """Build and freeze the guest: about three minutes; instant when it was done before. Needs root."""
    return freeze(build_image(say), default_machine(), say).folder


def fresh_guest() -> Guest:
    """A fresh host, in about two seconds. Close it."""
    return Guest(place_frozen(place_image(), default_machine()))
