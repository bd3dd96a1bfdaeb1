"""`appliance tls`: what an operator types, sees and gets, and what is refused with which exit code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.console.terminal import Terminal
from appliance.cli.main import run
from appliance.host.layout.prefix import Prefix
from appliance.host.site.config import read_site
from appliance.host.tls import key_owner
from appliance.host.tls.files import TlsFiles
from appliance.host.tls.key_owner import give_key
from appliance.host.trust.trust_store import write_root
from tests.appliance.sim_host import new_host
from tests.attacks.harness import command
from tests.certificates import make_folder

NAMES = ("--name", "ai.example", "--address", "192.0.2.7")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return tmp_path / "host"


def tls(capsys: pytest.CaptureFixture[str], host: Path, *words: str) -> tuple[int, str, str]:
    code = run(["tls", *words, "--prefix", str(host)], Terminal())
    said = capsys.readouterr()
    return code, said.out, said.err


def answer(capsys: pytest.CaptureFixture[str], host: Path, *words: str) -> Any:
    code, out, err = tls(capsys, host, *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_certificates_are_made_renewed_and_shown(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    made = answer(capsys, host, "create", *NAMES)
    folder = host / "etc/appliance/tls"
    assert (made["names"], made["addresses"]) == (["ai.example"], ["192.0.2.7"])
    assert made["authority"]["certificate"] == str(folder / "ca.pem")
    renewed = answer(capsys, host, "renew", "--days", "20")
    assert renewed["names"] == made["names"]
    assert renewed["sha256"] != made["sha256"]
    shown = answer(capsys, host, "show")
    assert shown == {"serves": None, "authority": made["authority"]}
    text = f"tls: {{certificate: {folder}/server.pem, key: {folder}/server.key}}\n"
    (host / "etc/appliance/site.yaml").write_text(text)
    assert answer(capsys, host, "show")["serves"] == {**renewed, "days_left": 19}
    person = answer(capsys, host, "client", "ada")
    assert (person["certificate"], person["key"]) == (f"{folder}/clients/ada.pem", f"{folder}/clients/ada.key")


def test_answer_names_what_to_write_and_prints_no_private_key(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    code, out, err = tls(capsys, host, "create", *NAMES)
    assert code == 0
    assert f"certificate: {host}/etc/appliance/tls/server.pem" in err
    assert f"appliance config apply --prefix {host}" in err
    _, more, _ = tls(capsys, host, "client", "ada")
    for path in host.rglob("*.key"):
        secret = path.read_text().splitlines()[1]
        assert secret not in out + err + more
    lines = [line for line in err.splitlines() if line.startswith(("bind:", "tls:"))]
    site = host / "etc/appliance/site.yaml"
    site.write_text("\n".join(lines))
    assert read_site(site).tls == TlsFiles(
        *(str(host / "etc/appliance/tls" / name) for name in ("server.pem", "server.key"))
    )


def test_what_cannot_be_done_is_refused_with_exit_2(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    assert tls(capsys, host, "renew")[0] == 2
    assert tls(capsys, host, "client", "ada")[0] == 2
    assert tls(capsys, host, "create")[0] == 2
    assert tls(capsys, host, "create", "--name", "10.0.0.1")[0] == 2
    assert not host.exists()
    assert tls(capsys, host, "create", *NAMES)[0] == 0
    before = {path: path.read_bytes() for path in host.rglob("*") if path.is_file()}
    assert tls(capsys, host, "create", *NAMES)[0] == 2
    assert tls(capsys, host, "renew", "--days", "0")[0] == 2
    assert tls(capsys, host, "client", "../ada")[0] == 2
    assert {path: path.read_bytes() for path in host.rglob("*") if path.is_file()} == before


def test_wrong_files_stop_the_check_of_the_configuration(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    assert tls(capsys, host, "create", *NAMES)[0] == 0
    folder, site = host / "etc/appliance/tls", host / "etc/appliance/site.yaml"

    def check(certificate: str, key: str) -> tuple[int, str]:
        site.write_text(f"bind: 0.0.0.0\ntls: {{certificate: {folder}/{certificate}, key: {folder}/{key}}}\n")
        code = run(["config", "check", "--prefix", str(host)], Terminal())
        return code, capsys.readouterr().err

    assert check("server.pem", "server.key") == (0, "")
    for certificate, key, field in (
        ("server.pem", "ca.key", "tls.key"),
        ("server.pem", "none.key", "tls.key"),
        ("none.pem", "server.key", "tls.certificate"),
        ("server.key", "server.key", "tls.certificate"),
    ):
        code, err = check(certificate, key)
        assert (code, f"{site} field {field}" in err) == (2, True), err


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_key_is_given_to_the_user_of_the_gateway_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "server.key"
    key.write_text("secret")
    key.chmod(0o600)
    give_key(Prefix(tmp_path), key)
    assert key.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(key_owner, "_GATEWAY", "nobody-of-that-name")
    give_key(Prefix(Path("/")), key)
    assert (key.stat().st_uid, key.stat().st_mode & 0o777) == (0, 0o600)
    monkeypatch.setattr(key_owner, "_GATEWAY", "daemon")
    give_key(Prefix(Path("/")), key)
    assert (key.stat().st_uid, key.stat().st_gid, key.stat().st_mode & 0o777) == (1, 0, 0o400)
    link = tmp_path / "link.key"
    link.symlink_to(key)
    with pytest.raises(OSError, match="symbolic"):
        give_key(Prefix(Path("/")), link)


@pytest.mark.parametrize("line", [("plan",), ("install", "--yes"), ("host", "check")])
def test_wrong_certificate_stops_what_would_serve_with_it_before_anything_is_written(
    tmp_path: Path, line: tuple[str, ...]
) -> None:
    host = new_host(tmp_path)
    host.prefix.create()
    write_root(host.prefix, host.trust)
    folder = make_folder(host.prefix.etc / "tls")
    folder.key.write_bytes(folder.authority_key.read_bytes())
    host.prefix.site_file.write_text(f"tls: {{certificate: {folder.certificate}, key: {folder.key}}}\n")
    before = sorted(host.prefix.root.rglob("*"))
    found = command(*line, host.source, "--prefix", host.prefix.root)
    if line[0] == "host":
        assert (found.code, "certificate" in found.out + found.talk) == (6, True)
    else:
        assert (found.code, "field tls.key" in found.talk) == (2, True), found.talk
    assert sorted(host.prefix.root.rglob("*")) == before
