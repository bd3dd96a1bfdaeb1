"""Reading a recipe loads its model, and nothing that builds."""

from __future__ import annotations

import subprocess
import sys

from appliance.builder.recipe.choices import (
    CPU_VARIANTS,
    MODEL_FILE_SUFFIXES,
    OS_GLIBC,
    REFERENCE_VARIANT,
    SUITES,
    WEIGHTS_SUFFIX,
)

# What reading a recipe needs. Everything else of the builder compiles, converts, resolves or downloads.
NEEDED = {
    "appliance.builder",
    "appliance.builder.recipe",
    "appliance.builder.recipe.choices",
    "appliance.builder.recipe.errors",
    "appliance.builder.recipe.fields",
    "appliance.builder.recipe.format_2",
    "appliance.builder.recipe.part",
    "appliance.builder.recipe.recipe",
    "appliance.builder.recipe.reader",
    "appliance.builder.sources",
}
HEAVY = {"asyncio", "concurrent.futures", "httpx", "huggingface_hub", "jinja2", "pypi_simple", "ssl", "tarfile"}


def test_fresh_interpreter_that_reads_recipes_loads_nothing_that_builds() -> None:
    code = "import sys, appliance.builder.recipe.reader, appliance.builder.recipe.recipe; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())

    assert {name for name in loaded if name.startswith("appliance.builder")} == NEEDED
    assert not loaded & HEAVY


def test_choices_agree_with_each_other() -> None:
    assert SUITES.keys() <= OS_GLIBC.keys()
    assert REFERENCE_VARIANT in CPU_VARIANTS
    assert WEIGHTS_SUFFIX in MODEL_FILE_SUFFIXES
