"""`site.yaml`: what the site has decided about serving (docs/architecture.md, The host).

Owns the schema, the defaults and the parser. A person writes this file, so an error names the field, its allowed values
and its value. No field can weaken a check.

Rules:
- an error names file, line and column as `FILE:LINE:COLUMN`;
- an unknown field is an error;
- the names of fields that later versions read are reserved. Such a field is refused, too, for it would have no effect.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.host.site.field_kinds import Address, OneOf, Texts, WholeNumber, Word, YesNo
from appliance.host.site.limits import LIMITS, USUAL_LIMITS, Limits
from appliance.host.site.site_fields import NamedGroups, SiteFault, SiteField, SiteValues, fields_schema, read_values
from appliance.host.tls.files import TlsFiles
from bundles.attestation.expiry_override import SITE_NAME
from signing.digest import Digest, sha256
from signing.errors import UsageError

MAX_BYTES = 64 << 10
NO_FILE = sha256(b"")
MODEL_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,60}[a-z0-9])?\Z")
"""Of a model, as recipes have it. `MODEL@ADAPTER` is a name of a later version, so it fits no model."""
LEVELS = ("E1", "E2", "E4")
"""How the bytes of a model may be bound to the signed ones, the weakest first."""
_MODEL_FIELDS = (
    SiteField("min_level", OneOf(LEVELS), None, "The weakest level at which it is served."),
    SiteField(
        "keep_alive",
        WholeNumber(0, 604800),
        0,
        "Seconds without a request after which it is unloaded; 0 keeps it loaded for ever.",
    ),
    SiteField("pin", YesNo(), False, "Whether it is never unloaded, also not to make room for another model."),
)
_FILE = Word(re.compile(r"/[!-~]{1,200}\Z"), "an absolute path without spaces, of at most 200 characters")
_HOST = r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,8}|\[[0-9a-f:]{2,39}\])"
_ORIGIN = Word(
    re.compile(rf"https?://{_HOST}(:[1-9][0-9]{{0,4}})?\Z"), "an origin such as https://app.example: no path, no *"
)
FIELDS = (
    SiteField(
        "bind",
        Address(),
        "127.0.0.1",
        "The address that the gateway listens on; without `tls` it must be a loopback address.",
    ),
    SiteField("port", WholeNumber(0, 65535), 8443, "Its port; below a prefix, 0 takes a free port at each start."),
    SiteField(
        "slots",
        WholeNumber(1, 256),
        None,
        "Conversations at the same time for each engine; the bundle decides where this is absent.",
    ),
    SiteField(
        "context",
        WholeNumber(64, 1 << 24),
        None,
        "Largest number of tokens of one conversation, at most that of the bundle.",
    ),
    SiteField(
        "site",
        Word(SITE_NAME, "a name of a-z 0-9 . _ -, at most 63 characters"),
        "",
        "The name of the site, which an expiry override may name.",
    ),
    SiteField(
        "trial.good_after",
        WholeNumber(0, 604800),
        600,
        "Seconds of health after which a new release is good, and the way back is closed; 0 makes it good at once.",
    ),
    SiteField(
        "trial.ready_within",
        WholeNumber(10, 3600),
        300,
        "Seconds after each start within which a release on trial must be ready; else the host returns.",
    ),
    SiteField(
        "keep",
        WholeNumber(1, 16),
        1,
        "Releases that `appliance gc` keeps beside the one that serves, the newest first.",
    ),
    SiteField(
        "egress",
        Word(re.compile(r"none\Z|count\Z"), "none, or count"),
        "none",
        "On a whole machine, `count` counts packets to other machines by nftables.",
    ),
    SiteField(
        "threads",
        WholeNumber(1, 1024),
        None,
        "Threads of each engine; without this field, as many as a measurement at the start found best.",
    ),
    SiteField(
        "models",
        NamedGroups(Word(MODEL_NAME, "the name of a model, without @"), _MODEL_FIELDS, 256),
        {},
        "For each model by its name: its weakest level, and how long it stays loaded.",
    ),
    SiteField(
        "limits.waiting",
        WholeNumber(*LIMITS["waiting"]),
        None,
        "Requests that may wait for each model; 16 for each slot where this is absent.",
    ),
    SiteField(
        "limits.waiting_per_key",
        WholeNumber(*LIMITS["waiting_per_key"]),
        None,
        "Those of them that may be of one key; a half of all where this is absent.",
    ),
    SiteField(
        "limits.silence",
        WholeNumber(*LIMITS["silence"]),
        USUAL_LIMITS.silence,
        "Seconds for which an engine may produce nothing for a request, before the request is ended.",
    ),
    SiteField(
        "tls.certificate",
        _FILE,
        "",
        "The gateway's certificate as PEM, and after it those between it and its authority.",
    ),
    SiteField("tls.key", _FILE, "", "The private key of that certificate, as PEM without a passphrase."),
    SiteField(
        "tls.client_ca",
        _FILE,
        "",
        "Authorities as PEM: with it, users show a certificate of one of them beside their key.",
    ),
    SiteField(
        "cors",
        Texts(_ORIGIN, 16),
        (),
        "Origins of pages in browsers that may use this service, for example https://app.example.",
    ),
)
"""Every field, in the order in which people read them."""
RESERVED = ("keys", "retention", "energy", "agents")
"""Fields of later versions."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How long a new release is watched before the way back is closed.

    Args:
        good_after: seconds of health after which a new release is good; 0 makes it good at once.
        ready_within: seconds after a start of its services within which it must be ready, or the host returns.
    """

    good_after: int = 600
    ready_within: int = 300


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What the site has decided about one model.

    Args:
        min_level: the weakest level at which it is served, of `LEVELS`; empty for any.
        keep_alive: seconds without a request after which it is unloaded; 0 keeps it loaded for ever.
        pin: whether it is never unloaded.
    """

    min_level: str = ""
    keep_alive: int = 0
    pin: bool = False


def on_demand(choices: Mapping[str, ModelChoice]) -> frozenset[str]:
    """The models whose engines may be ended, after their `keep_alive` or to make room for another model.

    Where one model may be unloaded, the others may make room for it, but for those that are pinned.

    Args:
        choices: of every model of a bundle, by its name.
    """
    is_shared = any(choice.keep_alive and not choice.pin for choice in choices.values())
    return frozenset(name for name, choice in choices.items() if is_shared and not choice.pin)


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """The decisions of a site.

    Args:
        bind: the address that the gateway listens on.
        port: its port; 0 takes a free port at each start.
        slots: conversations at the same time for each engine; None where the bundle decides.
        context: largest number of tokens of one conversation; None where the bundle decides.
        digest: sha256 of the file, or of no bytes where there is no file.
        data: the bytes of the file; none where there is no file.
        site: the name of the site, which an expiry override may name (TRUST 12); empty where it has none.
        trial: how long a new release is watched.
        keep: how many releases `appliance gc` keeps beside the one that serves.
        egress: `count` where nftables counts packets to other machines, else `none`.
        threads: of each engine; None where a measurement decides.
        models: what is decided about a model, by its name.
        limits: what may wait, and how long an engine may be silent.
        tls: the files of TLS; None where the gateway speaks plain http, to this machine alone.
        cors: origins of pages in browsers that may read its answers.
    """

    bind: str = "127.0.0.1"
    port: int = 8443
    slots: int | None = None
    context: int | None = None
    digest: Digest = NO_FILE
    data: bytes = field(default=b"", compare=False, repr=False)
    site: str = ""
    trial: Trial = Trial()
    keep: int = 1
    egress: str = "none"
    threads: int | None = None
    models: Mapping[str, ModelChoice] = field(default_factory=dict)
    limits: Limits = USUAL_LIMITS
    tls: TlsFiles | None = None
    cors: tuple[str, ...] = ()

    def on_demand(self, names: Iterable[str]) -> frozenset[str]:
        """Those of a bundle's models that are loaded on demand.

        Args:
            names: of all models of the bundle.
        """
        return on_demand({name: self.models.get(name, ModelChoice()) for name in names})

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine reach the gateway."""
        return ipaddress.ip_address(self.bind).is_loopback


NO_SITE = SiteConfig()
"""What holds where a site has decided nothing."""


def read_site(path: Path) -> SiteConfig:
    """Read the site's file; the defaults where there is none.

    Raises:
        UsageError: the file is no YAML, or has unknown fields or values out of range; all are reported at once.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return SiteConfig()
    except OSError as error:
        raise _error(path, SiteFault("", 0, 0, "a file that can be read", error.strerror or "")) from None
    return parse_site(data, path)


def site_trial(path: Path) -> Trial:
    """Read how long a new release is watched; the defaults where the file is wrong at this moment."""
    try:
        return read_site(path).trial
    except UsageError:
        return Trial()


def parse_site(data: bytes, path: Path = Path("site.yaml")) -> SiteConfig:
    """Parse the content of a site's file.

    Args:
        data: of at most `MAX_BYTES`, or it is refused.
        path: for errors.

    Raises:
        UsageError: as `read_site`.
    """
    found = read_values(data, FIELDS, RESERVED, MAX_BYTES)
    if faults := (*found.faults, *_tls_faults(found)):
        errors = [_error(path, fault) for fault in faults]
        errors[0].others = tuple(errors[1:])
        raise errors[0]
    values = found.values
    return SiteConfig(
        # In the one form in which the kernel states it.
        str(ipaddress.ip_address(values["bind"])),
        values["port"],
        values["slots"],
        values["context"],
        sha256(data),
        data,
        values["site"],
        Trial(values["trial.good_after"], values["trial.ready_within"]),
        keep=values["keep"],
        egress=values["egress"],
        threads=values["threads"],
        models={name: ModelChoice(**choice) for name, choice in values["models"].items()},
        limits=Limits(values["limits.waiting"] or 0, values["limits.waiting_per_key"] or 0, values["limits.silence"]),
        tls=_tls_files(values),
        cors=values["cors"],
    )


def site_schema() -> dict[str, Any]:
    """Generate the JSON Schema of `site.yaml` (draft 2020-12)."""
    schema = fields_schema("site.yaml", FIELDS)
    group = schema["properties"]["tls"]
    group["dependentRequired"] = {"certificate": ["key"], "key": ["certificate"], "client_ca": ["certificate"]}
    # Without TLS, loopback alone.
    loopback = {"type": "string", "pattern": r"^(127(\.[0-9]{1,3}){3}|[0:]*:0*1)$"}
    has_tls = {"required": ["tls"], "properties": {"tls": {"required": ["certificate"]}}}
    return {**schema, "anyOf": [has_tls, {"properties": {"bind": loopback}}]}


def _tls_files(values: dict[str, Any]) -> TlsFiles | None:
    certificate, key, client_ca = (values[f"tls.{name}"] for name in ("certificate", "key", "client_ca"))
    return TlsFiles(certificate, key, client_ca) if certificate and key else None


def _tls_faults(found: SiteValues) -> list[SiteFault]:
    """Faults between fields: a certificate without its key, or the network without TLS."""
    values, faults = found.values, []
    for name, other in (("certificate", "key"), ("key", "certificate"), ("client_ca", "certificate")):
        if values[f"tls.{name}"] and not values[f"tls.{other}"]:
            place = f"tls.{name}"
            faults.append(_fault_at(found, place, f"tls.{other}, too", f"{place} alone"))
    if not values["tls.certificate"] and not ipaddress.ip_address(values["bind"]).is_loopback:
        expected = "a loopback address such as 127.0.0.1: without `tls` nobody else may connect"
        faults.append(_fault_at(found, "bind", expected, values["bind"]))
    return faults


def _fault_at(found: SiteValues, name: str, expected: str, text: str) -> SiteFault:
    return SiteFault(name, found.lines[name], found.columns[name], expected, text)


def _error(path: Path, fault: SiteFault) -> UsageError:
    place = f"{path}:{fault.line}:{fault.column}" if fault.line else str(path)
    subject = f"{place} field {fault.name}" if fault.name else place
    return UsageError(
        "site.refused", subject, expected=fault.expected, found=fault.found, hint=f"edit {path}, then apply it"
    )
