"""The bills say what is in the bundle, in forms that other people's programs read."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from packageurl import PackageURL

from appliance.builder.assembly.assembler import Built
from appliance.builder.bills import cyclonedx
from bundles.attestation.required_statements import ML_BOM, PROVENANCE, REQUIRED, SBOM, STATEMENTS, statements_in
from bundles.oci.layout import Layout
from signing.digest import sha256
from tests.appliance.tiny import READER, RUNTIME_WHEEL, TEMPLATE, TinyBuild
from tests.sim.gguf_models import number_key

JUDGED = TEMPLATE + "{% call print() %}{% endcall %}"
STEP = "llama-quantize sha256:00 Q4_K_M"


def read(built: Built, path: str) -> bytes:
    layout = Layout(built.path)
    return b"".join(os.pread(layout.open_chunk(chunk), chunk.size, 0) for chunk in built.contents.by_path[path].chunks)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return TinyBuild(tmp_path_factory.mktemp("tiny"), steps=(STEP,)).build()


def test_accepted_template_names_in_the_bill_who_accepted_it_and_when(tmp_path: Path) -> None:
    built = TinyBuild(tmp_path, template=JUDGED, accepted=JUDGED).build()
    [model] = built.contents.models
    assert model.template_accepted is not None
    assert (model.template_accepted.by, model.template_accepted.sha256) == (READER, model.template)
    template = component(json.loads(read(built, ML_BOM.path)), f"{model.path}#tokenizer.chat_template")
    assert {one["name"].partition(":")[2]: one["value"] for one in template["properties"]} == {
        "accepted-by": READER,
        "accepted-on": "2026-01-31",
    }


@pytest.mark.parametrize(
    ("pooling", "task", "output", "format_"),
    [(0, "text-generation", "text", 1), (1, "text-embedding", "vector", 1), (4, "text-ranking", "number", 2)],
)
def test_contents_and_bill_state_what_a_model_is_for(
    tmp_path: Path, pooling: int, task: str, output: str, format_: int
) -> None:
    keys = [number_key("llama.pooling_type", pooling), number_key("llama.embedding_length", 8)]
    built = TinyBuild(tmp_path, keys=keys).build()
    [model] = built.contents.models
    assert (model.task, built.contents.format) == ("rerank" if pooling == 4 else "", format_)
    card = component(json.loads(read(built, ML_BOM.path)), model.path)["modelCard"]["modelParameters"]
    assert (card["task"], card["outputs"]) == (task, [{"format": output}])


@pytest.fixture(scope="module")
def sbom(built: Built) -> dict[str, Any]:
    return json.loads(read(built, SBOM.path))


@pytest.fixture(scope="module")
def mlbom(built: Built) -> dict[str, Any]:
    return json.loads(read(built, ML_BOM.path))


@pytest.fixture(scope="module")
def provenance(built: Built) -> dict[str, Any]:
    return json.loads(read(built, PROVENANCE.path))


def component(bom: dict[str, Any], ref: str) -> dict[str, Any]:
    [found] = [one for one in bom["components"] if one["bom-ref"] == ref]
    return found


def needs(bom: dict[str, Any], ref: str) -> list[str]:
    [found] = [one["dependsOn"] for one in bom["dependencies"] if one["ref"] == ref]
    return found


def test_bundle_makes_every_required_statement(built: Built) -> None:
    assert statements_in(built.contents) == set(REQUIRED) == {one.name for one in STATEMENTS}


@pytest.mark.ci
@pytest.mark.parametrize("statement", [SBOM, ML_BOM], ids=lambda one: one.name)
def test_bill_of_materials_follows_the_published_schema(built: Built, statement: Any) -> None:
    # Takes three seconds to import, which each process that collects the tests would pay.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = read(built, statement.path).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.replace('"SHA-256"', '"SHA-255"')) is not None


def test_sbom_leaves_no_file_out_and_has_the_digests_of_the_contents(built: Built, sbom: dict[str, Any]) -> None:
    listed = {file.path: file.sha256 for file in built.contents.files}
    components = {one["bom-ref"]: one["hashes"][0]["content"] for one in sbom["components"]}
    texts = {one["url"] for part in sbom["components"] for one in part.get("externalReferences", ())}
    assert components == {path: digest for path, digest in listed.items() if path in components}
    assert listed.keys() - components.keys() == {path for path in listed if path.startswith(("bills/", "licences/"))}
    assert {path for path in texts if path.startswith("licences/")} <= listed.keys()


def test_wheel_has_its_licence_its_text_and_what_it_needs_on_the_targets_python(sbom: dict[str, Any]) -> None:
    alpha = component(sbom, "wheels/alpha-1.0-py3-none-any.whl")
    assert (alpha["name"], alpha["version"], alpha["purl"]) == ("alpha", "1.0", "pkg:pypi/alpha@1.0")
    assert alpha["externalReferences"] == [{"type": "license", "url": "licences/alpha/LICENSE"}]
    assert alpha["licenses"] == [{"expression": "MIT"}]
    assert needs(sbom, "wheels/alpha-1.0-py3-none-any.whl") == ["wheels/beta-1.0-py3-none-any.whl"]
    assert component(sbom, "wheels/gamma-1.0-py3-none-any.whl")["licenses"] == [
        {"license": {"name": "A licence of its own"}}
    ]


def test_runtime_tells_its_programs_its_source_and_its_compiler(sbom: dict[str, Any]) -> None:
    runtime = component(sbom, f"runtime/{RUNTIME_WHEEL}")
    assert [(one["name"], one["type"]) for one in runtime["components"]] == [
        ("libllama.so", "library"),
        ("llama-server", "library"),  # the test's wheel has no modes
    ]
    assert runtime["purl"] == "pkg:pypi/llama-cpp-python@0.3.36%2Bappliance.0a1b2c3d"
    [source] = runtime["pedigree"]["ancestors"]
    assert source["hashes"][0]["content"] == sha256(b"sdist")
    assert "gcc 12.2.0" in runtime["pedigree"]["notes"]


def test_os_package_is_named_as_its_release_names_it(sbom: dict[str, Any]) -> None:
    package = component(sbom, "os-packages/debian-12/tool_1-2.3_amd64.deb")
    assert package["purl"] == "pkg:deb/debian/tool@1:2.3?arch=amd64&distro=debian-12"
    assert "copyright" in package["licenses"][0]["license"]["name"]


def test_package_url_quotes_a_name_and_a_version_as_its_specification_asks() -> None:
    where = {"distro": "debian-12", "arch": "amd64"}
    url = cyclonedx.debian_url("libstdc++6", "1:12.2.0-14+deb12u1~bpo", where)
    assert url == "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1~bpo?arch=amd64&distro=debian-12"
    assert PackageURL.from_string(url).name == "libstdc++6"
    assert cyclonedx.pypi_url("Typing_Extensions", "4.0") == "pkg:pypi/typing-extensions@4.0"


def test_model_has_a_card_a_lineage_and_its_template_as_a_part_of_its_own(built: Built, mlbom: dict[str, Any]) -> None:
    [model] = built.contents.models
    card = component(mlbom, model.path)
    assert card["type"] == "machine-learning-model"
    assert card["modelCard"]["modelParameters"]["architectureFamily"] == "llama"
    assert card["hashes"][0]["content"] == built.contents.by_path[model.path].sha256
    assert card["pedigree"]["notes"] == STEP
    assert card["pedigree"]["ancestors"][0]["hashes"][0]["content"] == model.lineage.sha256
    facts = {one["name"].partition(":")[2]: one["value"] for one in card["properties"]}
    assert (facts["quantisation"], facts["tensors-sha256"]) == (model.quantisation, model.tensors)
    template = component(mlbom, f"{model.path}#tokenizer.chat_template")
    assert template["hashes"][0]["content"] == model.template
    assert template["data"][0]["contents"]["attachment"]["content"] == TEMPLATE
    assert needs(mlbom, model.path) == [template["bom-ref"]]


def test_provenance_is_a_statement_that_in_toto_reads(built: Built, provenance: dict[str, Any]) -> None:
    statement = ParseDict(provenance, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    assert statement.predicate_type == PROVENANCE.type
    predicate = ParseDict(provenance["predicate"], provenance_pb2.Provenance())
    assert predicate.build_definition.build_type == "urn:airgap-appliance:build:1"
    digests = {one.name: one.digest["sha256"] for one in statement.subject}
    assert digests == {file.path: file.sha256 for file in built.contents.files if not file.path.startswith("bills/")}


def test_provenance_has_sources_tools_flags_and_toolchain(provenance: dict[str, Any]) -> None:
    build = provenance["predicate"]["buildDefinition"]
    sources = {one["name"]: one["digest"]["sha256"] for one in build["resolvedDependencies"]}
    assert sources["llama-cpp-python.tar.gz"] == sha256(b"sdist")
    assert sources["cmake.whl"] == sha256(b"cmake")
    runtime = build["internalParameters"]["runtime"]
    assert runtime["flags"] == ["GGML_NATIVE=OFF", "GGML_BACKEND_DL=ON"]
    assert runtime["toolchain"]["gcc"] == "gcc 12.2.0"
    assert build["internalParameters"]["models"][0]["steps"] == [STEP]


def test_bills_are_the_same_from_another_folder_and_hold_no_other_time_than_the_locks(
    built: Built, tmp_path: Path
) -> None:
    again = TinyBuild(tmp_path / "elsewhere", steps=(STEP,)).build()
    assert again.manifest == built.manifest
    for statement in STATEMENTS:
        times = set(re.findall(rb"20\d\d-\d\d-\d\dT[0-9:]+Z", read(built, statement.path)))
        assert times <= {b"2023-11-14T22:13:20Z"}
        assert str(tmp_path).encode() not in read(again, statement.path)
