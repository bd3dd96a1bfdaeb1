"""`appliance serve` with TLS: it gets ready by its own checks over TLS, and starts nothing with wrong files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from appliance.host.release.release import Release
from appliance.host.tls.files import TlsFiles
from appliance.host.tls.local_connection import connect_locally
from appliance.serve.supervisor import serving as serving_module
from appliance.serve.supervisor.serving import serving
from bundles.progress import ignore
from signing.errors import UsageError
from tests.certificates import NOW, files_of, make_folder
from tests.sim.releases import install_toy, write_config

Install = Callable[[str, TlsFiles], Release]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    def made(bind: str, tls: TlsFiles) -> Release:
        release = install_toy(tmp_path)
        config: dict[str, Any] = json.loads((release.config / "gateway.json").read_bytes())
        write_config(release, "gateway.json", {**config, "bind": bind, "tls": tls.to_json(), "cors": []})
        monkeypatch.setattr(serving_module, "open_current", lambda *_: release)
        monkeypatch.setattr(serving_module, "check_release", lambda *_, **__: None)
        return release

    return made


@pytest.mark.ci
@pytest.mark.parametrize(("bind", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "::1")])
def test_host_that_the_network_reaches_checks_itself_over_loopback_with_its_own_certificate(
    install: Install, tmp_path: Path, bind: str, shown: str
) -> None:
    folder = make_folder(tmp_path / "tls", ("ai.example",))
    release = install(bind, files_of(folder, client_ca=True))
    with serving(release.prefix, None, lambda: NOW, lambda _event: None, ignore) as found:
        url = urlsplit(found.url)
        assert (url.scheme, url.hostname) == ("https", shown)
        assert url.port is not None
        connection = connect_locally(bind, url.port, files_of(folder), 10)
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        assert (reply.status, reply.headers["appliance-release"]) == (200, release.bundle.value.manifest)
        connection.close()


def test_wrong_key_starts_nothing(install: Install, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "tls")
    release = install("127.0.0.1", files_of(folder))
    shutil.copyfile(folder.authority_key, folder.key)
    with (
        pytest.raises(UsageError) as caught,
        serving(release.prefix, None, lambda: NOW, lambda _event: None, ignore),
    ):
        pass
    assert caught.value.subject == f"{release.prefix.site_file} field tls.key"
    assert caught.value.exit_code == 2


def test_network_without_tls_starts_nothing(install: Install, tmp_path: Path) -> None:
    release = install("127.0.0.1", files_of(make_folder(tmp_path / "tls")))
    config: dict[str, Any] = json.loads((release.config / "gateway.json").read_bytes())
    write_config(release, "gateway.json", {**config, "bind": "0.0.0.0", "tls": {}})
    with (
        pytest.raises(UsageError) as caught,
        serving(release.prefix, None, lambda: NOW, lambda _event: None, ignore),
    ):
        pass
    assert caught.value.code == "serve.not-loopback"
