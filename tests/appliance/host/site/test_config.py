"""The site's file: every wrong field is named at once, and none can open the gateway to a network without TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.site.config import RESERVED, ModelChoice, SiteConfig, Trial, parse_site, read_site
from appliance.host.site.limits import Limits
from appliance.host.site.site_check import check_models
from appliance.host.tls.files import TlsFiles
from signing.digest import sha256
from signing.errors import UsageError


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert read_site(tmp_path / "site.yaml") == SiteConfig()


def test_site_has_a_name_where_the_file_gives_one() -> None:
    assert parse_site(b"site: north-2\n").site == "north-2"
    assert parse_site(b"port: 1\n").site == ""
    for text in (b"site: North\n", b"site: 5\n", b"site: ''\n", b"site: [north]\n", b"site: no\n", b"site: -a\n"):
        with pytest.raises(UsageError) as caught:
            parse_site(text)
        assert caught.value.subject == "site.yaml:1:7 field site"


def test_fields_are_read_and_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("bind: 127.0.0.2\nport: 0\nslots: 2\ncontext: 1024\n")
    assert read_site(path) == SiteConfig("127.0.0.2", 0, 2, 1024, sha256(path.read_bytes()))


def test_every_wrong_field_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("bind: everywhere\nport: 70000\nslots: many\ncontext: 0\ncolour: red\n")
    with pytest.raises(UsageError) as caught:
        read_site(path)
    subjects = [error.subject.rpartition(" ")[2] for error in (caught.value, *caught.value.others)]
    assert sorted(subjects) == ["bind", "colour", "context", "port", "slots"]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["[1]", "a: [", "\xff", "!!python/object:os.system {}", "true: 1"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError):
        read_site(path)


def test_fields_of_later_versions_are_reserved() -> None:
    assert RESERVED == ("keys", "retention", "energy", "agents")


@pytest.mark.parametrize("value", ["null", "{}", "{keep: [m], pin: [m], min_level: E2}", "true"])
@pytest.mark.parametrize("name", RESERVED)
def test_field_of_a_later_version_is_refused_as_one_without_effect_and_not_as_unknown(
    tmp_path: Path, name: str, value: str
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"port: 8443\n{name}: {value}\n")
    with pytest.raises(UsageError) as caught:
        read_site(path)
    assert caught.value.subject == f"{path}:2:1 field {name}"
    assert "a later version" in caught.value.expected
    assert caught.value.found == "a field without effect here"
    path.write_text("tsl: {}\n")
    with pytest.raises(UsageError) as caught:
        read_site(path)
    assert caught.value.found == "an unknown field"


TLS = b"tls: {certificate: /etc/a.pem, key: /etc/a.key}\n"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.5", "fd00::5"])
def test_network_is_reached_with_tls_alone(address: str) -> None:
    site = parse_site(f"bind: '{address}'\n".encode() + TLS)
    assert (site.bind, site.is_local) == (address, False)
    assert site.tls == TlsFiles("/etc/a.pem", "/etc/a.key")
    with pytest.raises(UsageError) as caught:
        parse_site(f"port: 1\nbind: '{address}'\n".encode())
    assert caught.value.subject == "site.yaml:2:1 field bind"
    assert "without `tls`" in caught.value.expected


def test_address_is_in_the_form_of_the_kernel() -> None:
    assert parse_site(b"bind: '0:0:0:0:0:0:0:1'\n").bind == "::1"
    assert parse_site(b"bind: 'FD00:0::05'\n" + TLS).bind == "fd00::5"


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("tls: {certificate: /a}", "site.yaml:1:7 field tls.certificate"),
        ("tls: {key: /a}", "site.yaml:1:7 field tls.key"),
        ("tls: {client_ca: /a}", "site.yaml:1:7 field tls.client_ca"),
        ("tls: {certificate: a.pem, key: /a}", "site.yaml:1:20 field tls.certificate"),
        ("tls: {certificate: /a, key: /a, chain: /a}", "site.yaml:1:33 field tls.chain"),
        ("tls: true", "site.yaml:1:6 field tls"),
        ("cors: ['*']", "site.yaml:1:7 field cors"),
        ("cors: https://app.example", "site.yaml:1:7 field cors"),
        ("cors: [https://app.example/]", "site.yaml:1:7 field cors"),
        ("cors: ['null']", "site.yaml:1:7 field cors"),
        ("cors: [https://a.example, https://a.example]", "site.yaml:1:7 field cors"),
        ("cors: [https://*.example]", "site.yaml:1:7 field cors"),
    ],
)
def test_wrong_field_of_tls_or_cors_is_named(text: str, subject: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_site(text.encode())
    assert subject in [error.subject for error in (caught.value, *caught.value.others)]


def test_origins_are_read_as_they_stand() -> None:
    assert parse_site(b"").cors == ()
    assert parse_site(b"cors: [https://app.example, 'http://[::1]:8080']\n").cors == (
        "https://app.example",
        "http://[::1]:8080",
    )


def test_bytes_of_the_file_stay_with_its_values(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("# why\nslots: 2\n")
    assert read_site(path).data == b"# why\nslots: 2\n"


def test_keep_is_a_number_of_releases_from_1() -> None:
    assert parse_site(b"").keep == 1
    assert parse_site(b"keep: 3\n").keep == 3
    for text in (b"keep: 0\n", b"keep: 17\n", b"keep: all\n"):
        with pytest.raises(UsageError) as caught:
            parse_site(text)
        assert caught.value.subject == "site.yaml:1:7 field keep"


def test_trial_is_read_with_defaults_for_what_is_left_out() -> None:
    assert parse_site(b"port: 1\n").trial == Trial(600, 300)
    assert parse_site(b"trial: {good_after: 0}\n").trial == Trial(0, 300)
    assert parse_site(b"trial: {good_after: 604800, ready_within: 3600}\n").trial == Trial(604800, 3600)


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        ("trial: 5", ["trial"]),
        ("trial: [good_after]", ["trial"]),
        ("trial: {good_after: 1, good_after: 2}", ["trial.good_after"]),
        ("trial: {good_after: -1, ready_within: 9}", ["trial.good_after", "trial.ready_within"]),
        ("trial: {good_after: 604801, ready_within: 3601}", ["trial.good_after", "trial.ready_within"]),
        ("trial: {good_after: yes, never: 1, 5: 5}", ["trial", "trial.good_after", "trial.never"]),
    ],
)
def test_every_wrong_field_of_trial_is_named(text: str, subjects: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_site(text.encode())
    found = [error.subject.rpartition(" ")[2] for error in (caught.value, *caught.value.others)]
    assert sorted(found) == subjects


def test_models_and_threads_are_read() -> None:
    text = b"threads: 3\nmodels:\n  a.b: {min_level: E4, pin: true}\n  c: {keep_alive: 60}\n  d:\n"
    site = parse_site(text)
    assert site.threads == 3
    assert site.models == {"a.b": ModelChoice("E4", 0, pin=True), "c": ModelChoice("", 60), "d": ModelChoice()}
    assert (parse_site(b"").threads, parse_site(b"").models) == (None, {})


def test_name_with_an_adapter_is_reserved() -> None:
    with pytest.raises(UsageError) as caught:
        parse_site(b"models: {toy@legal: {pin: true}}\n")
    assert caught.value.subject == "site.yaml:1:10 field models"
    assert "without @" in caught.value.expected


def test_limits_are_read_and_only_what_differs_travels_to_the_gateway() -> None:
    assert parse_site(b"").limits == Limits(waiting=0, waiting_per_key=0, silence=120)
    limits = parse_site(b"limits: {waiting: 40, waiting_per_key: 5, silence: 30}\n").limits
    assert limits == Limits(40, 5, 30)
    assert limits.to_json() == {"waiting": 40, "waiting_per_key": 5, "silence": 30}
    assert (Limits().to_json(), Limits.from_json({"silence": 60})) == ({}, Limits(silence=60))
    wrong: list[object] = [[], {"other": 1}, {"silence": 9}, {"silence": True}, {"waiting": 0}, {"waiting": "1"}]
    for value in wrong:
        with pytest.raises(ValueError, match="from|among"):
            Limits.from_json(value)
    with pytest.raises(UsageError) as caught:
        parse_site(b"limits:\n  silence: 5\n  waiting: 0\n")
    subjects = [error.subject for error in (caught.value, *caught.value.others)]
    assert subjects == ["site.yaml:2:12 field limits.silence", "site.yaml:3:12 field limits.waiting"]


def test_models_that_are_not_pinned_make_room_where_one_may_be_unloaded() -> None:
    names = ("a", "b", "c")
    assert parse_site(b"models: {a: {min_level: E2}}\n").on_demand(names) == frozenset()
    assert parse_site(b"models: {a: {keep_alive: 60}}\n").on_demand(names) == {"a", "b", "c"}
    assert parse_site(b"models: {a: {keep_alive: 60}, b: {pin: true}}\n").on_demand(names) == {"a", "c"}
    assert parse_site(b"models: {a: {keep_alive: 60, pin: true}}\n").on_demand(names) == frozenset()


def test_model_that_the_bundle_lacks_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    site = parse_site(b"models: {smollm: {pin: true}, smolm: {min_level: E4}, qwen: {}}\n")
    check_models(Prefix(tmp_path), site, ["smollm", "qwen", "smolm"])
    with pytest.raises(UsageError) as caught:
        check_models(Prefix(tmp_path), site, ["smollm", "gemma"])
    subjects = [error.subject.rpartition(" ")[2] for error in (caught.value, *caught.value.others)]
    assert subjects == ["models.smolm", "models.qwen"]
    assert (caught.value.exit_code, caught.value.expected) == (2, "one of gemma, smollm")
