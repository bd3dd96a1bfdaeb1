"""The end of the gateway's certificate: a warning 30 days before it, and a difference after it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from appliance.host.maintenance.doctor import Patient, examine
from appliance.host.maintenance.status import read_status
from appliance.host.site.config import parse_site
from appliance.host.tls.authority import AuthorityFolder, ServerNames, create_authority
from appliance.host.tls.expiry import certificate_problems, describe_served, read_served
from appliance.host.tls.files import TlsFiles
from signing.errors import UsageError
from tests.appliance.sim_card import CARD
from tests.appliance.sim_host import SimHost, new_host
from tests.certificates import NOW, write_pair
from tests.toy import NOW as TOY_NOW


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    """A host whose gateway has a certificate for 60 days."""
    made = new_host(tmp_path_factory.mktemp("expiry"))
    made.prefix.create()
    folder = AuthorityFolder(made.prefix.etc / "tls")
    create_authority(folder, ServerNames.check(["ai.example"], []), 60, TOY_NOW)
    made.install(parse_site(f"tls: {{certificate: {folder.certificate}, key: {folder.key}}}\n".encode()))
    return made


def test_status_states_the_end_and_an_expired_certificate_is_a_difference(host: SimHost) -> None:
    status = read_status(host.prefix, TOY_NOW)
    assert status.failure() is None
    assert status.certificate is not None
    assert (status.certificate.days_left, status.certificate.is_near_end) == (60, False)
    near = read_status(host.prefix, TOY_NOW + timedelta(days=40))
    assert near.certificate is not None
    assert (near.failure(), near.certificate.is_near_end) == (None, True)
    failure = read_status(host.prefix, TOY_NOW + timedelta(days=61)).failure()
    assert failure is not None
    assert (failure.code, failure.exit_code, failure.subject) == ("tls.unusable", 9, "site.yaml field tls.certificate")


def test_doctor_advises_before_the_end_and_finds_it_wrong_after(host: SimHost) -> None:
    def seen(days: int) -> list[tuple[str, str]]:
        patient = Patient(host.prefix, CARD, TOY_NOW + timedelta(days=days), None, (), ())
        return [(one.state, one.command) for one in examine(patient, lambda *_: ()) if "certificate" in one.found]

    renew = f"appliance tls renew{host.prefix.option}"
    assert seen(0) == []
    assert seen(40) == [("note", renew)]
    [(state, command)] = seen(61)
    assert (state, command.startswith(renew)) == ("wrong", True)


@pytest.mark.parametrize(
    ("days", "left", "warns"), [(100, 99, False), (31, 30, False), (30, 29, True), (1, 0, True), (0, -1, True)]
)
def test_warning_begins_30_days_before_the_end(tmp_path: Path, days: int, left: int, warns: bool) -> None:
    write_pair(tmp_path, days=(-200, 0))
    files = TlsFiles(str(tmp_path / "server.pem"), str(tmp_path / "server.key"))
    now = NOW - timedelta(days=days) + timedelta(hours=1)
    served = read_served(files, now)
    assert (served.days_left, served.is_near_end) == (left, warns)
    assert ("renew it now: appliance tls renew --prefix /h" in describe_served(served, " --prefix /h")) == warns
    assert [one.code for one in certificate_problems(files, now, "")] == (["tls.unusable"] if left < 0 else [])


def test_end_is_that_of_the_first_certificate_of_the_chain_to_end(tmp_path: Path) -> None:
    root = write_pair(tmp_path, "root", is_authority=True, days=(-1, 5))
    write_pair(tmp_path, signer=root, days=(-1, 100))
    chain = tmp_path / "chain.pem"
    chain.write_bytes((tmp_path / "server.pem").read_bytes() + (tmp_path / "root.pem").read_bytes())
    assert read_served(TlsFiles(str(chain), ""), NOW).days_left == 4


def test_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_served(TlsFiles(str(tmp_path / "none"), ""), NOW)
    assert caught.value.subject == "site.yaml field tls.certificate"
