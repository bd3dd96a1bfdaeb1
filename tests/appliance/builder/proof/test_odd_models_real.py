"""No odd model becomes a bundle that does not serve: its header is refused, or the real engine is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.builder.models.model_file import check_model_file
from appliance.builder.recipe.recipe import RecipeModel
from signing.errors import ApplianceError
from tests.appliance.builder.proof.test_model_trial_real import tried
from tests.sim.odd_models import SERVED, UNSERVED

pytestmark = pytest.mark.ci
MODEL = RecipeModel.model_validate({"name": "m", "source": "file:m.gguf", "licence": "MIT", "context": 64})


@pytest.mark.parametrize("data", SERVED.values(), ids=SERVED)
def test_odd_model_that_is_accepted_serves(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    assert check_model_file(MODEL, path, None).task == "chat"
    assert tried(tmp_path, path) == 1


@pytest.mark.parametrize("data", UNSERVED.values(), ids=UNSERVED)
def test_odd_model_with_a_good_header_that_does_not_serve_is_refused_by_the_trial(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    assert check_model_file(MODEL, path, None).task == "chat"
    with pytest.raises(ApplianceError) as caught:
        tried(tmp_path, path)
    assert caught.value.code in ("model.not-loaded", "model.no-answer")
