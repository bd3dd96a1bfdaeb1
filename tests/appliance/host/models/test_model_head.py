"""The head of a model is read from the blobs that hold it, and from no other."""

from __future__ import annotations

from pathlib import Path

from appliance.host.models.model_head import head_of_bundle
from appliance.keys.workspace import create_development
from bundles.bundle import open_bundle
from bundles.oci.layout import Layout, blob_path
from signing.floors import Floors
from tests.appliance.sim_host import build_bundle
from tests.sim.gguf_files import gguf
from tests.sim.sticks import SimStick
from tests.toy import NOW


def test_no_blob_of_weights_is_opened_for_the_head(tmp_path: Path) -> None:
    workspace, _ = create_development(tmp_path / "workspace", NOW)
    weights = gguf(tensors=[("blk.0.w.weight", 64), ("blk.1.w.weight", 64)])
    bundle = build_bundle(workspace, weights=weights)
    contents = open_bundle(bundle, workspace.root_file.read_bytes(), Floors(), NOW).value.contents
    stick, layout = SimStick(bundle), Layout(bundle)
    layout.medium = stick
    head = head_of_bundle(layout, contents, contents.models[0])
    assert weights.startswith(head.data)
    first, *others = contents.of_kind("model")[0].chunks
    assert others
    assert set(stick.opened) == {blob_path(first.sha256)}
