"""The bill of materials for models: each model, its source, and its chat template as a component of its own.

Owns the facts of a model that are listed, from its parsed header and the lock. It must never repeat a claim about
quality: what is not known here is marked as unknown.

Rules:
- digests are those of `contents.json`: the file, the tensor table, the template;
- every template of a model is a component with its whole text, so that an auditor can read what steers the model;
- of a template that the build refuses by judgement, the component names who accepted it;
- texts of a GGUF were written by others: they are copied, cut to a length, and decide nothing.

Source: CycloneDX specification 1.6 (modelCard; its Python library does not write one).
"""

from __future__ import annotations

from appliance.builder.bills import cyclonedx
from appliance.builder.bills.bill_inputs import BillFacts
from appliance.builder.bills.sbom import own_component
from appliance.builder.models.chat_template import templates_of
from bundles.contents.contents import Model
from bundles.gguf.header import GgufHeader
from bundles.gguf.kind import CHAT, EMBED, RERANK
from signing.digest import sha256
from signing.strictjson import Json

_COPIED = ("general.name", "general.basename", "general.finetune", "general.size_label", "tokenizer.ggml.model")
MAX_TEXT_CHARS = 200
_TASKS = {CHAT: ("text-generation", "text"), EMBED: ("text-embedding", "vector"), RERANK: ("text-ranking", "number")}
UNKNOWN = "Nothing is known here of its training data, its evaluation or its safety beyond what its source says."


def write_mlbom(facts: BillFacts) -> bytes:
    """Write the bill.

    Args:
        facts: of everything in the bundle.
    """
    components, depends = [], {}
    for model in facts.models:
        header = facts.headers[model.path]
        templates = [_template(model, key, text) for key, text in templates_of(header).items()]
        components += [_model(facts, model, header), *templates]
        depends[model.path] = [part["bom-ref"] for part in templates]
    about = {"type": "application", "name": facts.recipe.name, "version": facts.recipe.version}
    return cyclonedx.document(about, own_component(), facts.lock.source_date_epoch, components, depends)


def _model(facts: BillFacts, model: Model, header: GgufHeader) -> Json:
    file = next(file for file in facts.files if file.path == model.path)
    return {
        "type": "machine-learning-model",
        "bom-ref": model.path,
        "name": model.name,
        "hashes": cyclonedx.hashes(file.sha256),
        "licenses": cyclonedx.licences(model.licence),
        "externalReferences": cyclonedx.references("license", facts.licence_paths(f"model-{model.name}")),
        "pedigree": _pedigree(model),
        "modelCard": _card(model, header),
        "properties": cyclonedx.properties(_facts(model, header) | {"path": file.path, "size": file.size}),
    }


def _pedigree(model: Model) -> Json:
    source = {
        "type": "machine-learning-model",
        "name": model.lineage.source,
        "hashes": cyclonedx.hashes(model.lineage.sha256),
        "properties": cyclonedx.properties({"size": model.lineage.size}),
    }
    return {"ancestors": [source], "notes": "; ".join(model.lineage.steps) or "used as it was"}


def _card(model: Model, header: GgufHeader) -> Json:
    task, output = _TASKS[model.purpose]
    return {
        "modelParameters": {
            "task": task,
            "architectureFamily": model.architecture,
            "modelArchitecture": f"{model.architecture}, {model.parameters} weights, {len(header.tensors)} tensors",
            "inputs": [{"format": "text"}],
            "outputs": [{"format": output}],
        },
        "considerations": {"technicalLimitations": [UNKNOWN]},
    }


def _facts(model: Model, header: GgufHeader) -> dict[str, object]:
    copied = {name: str(header.values[name])[:MAX_TEXT_CHARS] for name in _COPIED if name in header.values}
    return {
        **copied,
        "context": model.context,
        "context-trained": header.context,
        "gguf-version": header.version,
        "parameters": model.parameters,
        "quantisation": model.quantisation,
        "tensors-sha256": model.tensors,
    }


def _template(model: Model, key: str, text: str) -> Json:
    digest, accepted = sha256(text.encode()), model.template_accepted
    contents = {"attachment": {"contentType": "text/x-jinja", "content": text}}
    by = {"accepted-by": accepted.by, "accepted-on": accepted.date} if accepted and accepted.sha256 == digest else {}
    return {
        "type": "data",
        "bom-ref": f"{model.path}#{key}",
        "name": f"{model.name} {key}",
        "hashes": cyclonedx.hashes(digest),
        "data": [{"type": "configuration", "name": key, "contents": contents}],
        **({"properties": cyclonedx.properties(by)} if by else {}),
    }
