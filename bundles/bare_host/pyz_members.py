"""The modules that `verify.pyz` is made of, in the order in which they lie in it.

Owns the list, and nothing else. A test compares it with what these modules import. One too few would fail on the
bare host, and one too many would be code that nobody there needs.
"""

from __future__ import annotations

MAIN = "bundles/__main__.py"
"""The module that becomes the archive's own `__main__.py`."""

MEMBERS = (
    "signing/__init__.py",
    "signing/chain.py",
    "signing/digest.py",
    "signing/errors.py",
    "signing/floors.py",
    "signing/keys.py",
    "signing/p256.py",
    "signing/roles.py",
    "signing/strictjson.py",
    "signing/verified.py",
    "signing/verify.py",
    "bundles/__init__.py",
    "bundles/attestation/__init__.py",
    "bundles/attestation/attestation_check.py",
    "bundles/attestation/dsse.py",
    "bundles/attestation/intoto.py",
    "bundles/attestation/oms.py",
    "bundles/attestation/required_statements.py",
    "bundles/bare_host/__init__.py",
    "bundles/bare_host/boot_check.py",
    "bundles/bootstrap_set.py",
    "bundles/bundle.py",
    "bundles/chunks/__init__.py",
    "bundles/chunks/check.py",
    "bundles/chunks/chunk.py",
    "bundles/contents/__init__.py",
    "bundles/contents/contents.py",
    "bundles/contents/contents_json.py",
    "bundles/contents/format_2.py",
    "bundles/contents/format_2_json.py",
    "bundles/contents/json_object.py",
    "bundles/contents/lineage.py",
    "bundles/contents/paths.py",
    "bundles/contents/signed_wheel.py",
    "bundles/contents/wheel_record.py",
    "bundles/durability.py",
    "bundles/medium.py",
    "bundles/medium_check.py",
    "bundles/oci/__init__.py",
    "bundles/oci/covered_names.py",
    "bundles/oci/layout.py",
    "bundles/oci/litter.py",
    "bundles/oci/manifest.py",
    "bundles/oci/short_names.py",
    "bundles/parallel.py",
    "bundles/progress.py",
    "bundles/report.py",
)
