"""T132: a foreign, expired or wrong certificate, or a key that others can read, put where the gateway's own is."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.tls.certificates import require_usable
from appliance.host.tls.files import TlsFiles
from tests.attacks.harness import guard_off, refused, row
from tests.certificates import NOW, write_pair

ROW = row(132)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    write_pair(tmp_path)
    write_pair(tmp_path, "other")
    return TlsFiles(str(tmp_path / "server.pem"), str(tmp_path / "server.key"))


def test_unattacked_pair_of_the_site_is_taken(files: TlsFiles) -> None:
    require_usable(files, NOW)


def test_attacked_by_a_key_of_another_certificate(files: TlsFiles, tmp_path: Path) -> None:
    (tmp_path / "other.key").replace(files.key)
    refused(ROW, lambda: require_usable(files, NOW), "site.refused", "site.yaml field tls.key")


def test_attacked_by_a_certificate_of_somebody_else(files: TlsFiles, tmp_path: Path) -> None:
    (tmp_path / "other.pem").replace(files.certificate)
    refused(ROW, lambda: require_usable(files, NOW), "site.refused", "site.yaml field tls.key")


def test_attacked_by_an_expired_certificate(files: TlsFiles, tmp_path: Path) -> None:
    write_pair(tmp_path, days=(-60, -1))
    error = refused(ROW, lambda: require_usable(files, NOW), "site.refused", "site.yaml field tls.certificate")
    assert "expired at" in error.found


def test_attacked_by_a_key_that_others_read(files: TlsFiles) -> None:
    Path(files.key).chmod(0o644)
    refused(ROW, lambda: require_usable(files, NOW), "site.refused", "site.yaml field tls.key")


def test_unguarded_the_wrong_key_would_be_taken(files: TlsFiles, tmp_path: Path) -> None:
    (tmp_path / "other.key").replace(files.key)
    with guard_off(ROW.guard, lambda *_: []):
        require_usable(files, NOW)
