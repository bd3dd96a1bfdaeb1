"""Two changes to llama.cpp's sources before they are compiled.

Owns both changes. It must never guess: where the text is not the known one, the build ends.

Rules:
- CPU variants that the recipe does not name are removed from ggml's list, because ggml compiles all that it names;
- the working directory is removed from the search for backends, because a program loads every library with a fitting
  name that it finds. Its own folder stays.
"""

from __future__ import annotations

import re
from pathlib import Path

from appliance.builder.recipe.choices import CPU_VARIANTS
from appliance.builder.runtime.compilation.source import LLAMA
from signing.errors import ApplianceError

VARIANT_LIST = f"{LLAMA}/ggml/src/CMakeLists.txt"
BACKEND_SEARCH = f"{LLAMA}/ggml/src/ggml-backend-reg.cpp"

_X86 = re.compile(r'STREQUAL "x86"\)\n(?P<list>\s+ggml_add_cpu_backend_variant\(x64\).*?)\n\s*elseif', re.DOTALL)
_VARIANT = re.compile(
    r"^[ \t]*ggml_add_cpu_backend_variant\((?P<name>\w+)(?P<features>[\w \t]*)\)[^\n]*\n", re.MULTILINE
)
_OWN_FOLDER = "search_paths.push_back(get_executable_path());"
_WORKING_FOLDER = "search_paths.push_back(cwd);"
_HINT = "use the llama-cpp-python version of the shipped recipes, or a newer appliance"


def keep_variants(source: Path, chosen: tuple[str, ...]) -> None:
    """Remove the variants that are not `chosen` from ggml's list.

    Raises:
        ApplianceError: the list is not the one that `recipe.choices.CPU_VARIANTS` describes.
    """
    path = source / VARIANT_LIST
    text = path.read_text("utf-8")
    block = _X86.search(text)
    found = {}
    if block:
        found = {match["name"]: set(match["features"].split()) for match in _VARIANT.finditer(block["list"] + "\n")}
    expected = {name: set(features) for name, features in CPU_VARIANTS.items()}
    if block is None or found != expected:
        differing = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise ApplianceError(
            "runtime.variants-differ",
            VARIANT_LIST,
            expected="the CPU variants that this version of the appliance knows",
            found=f"differences in {', '.join(differing)}",
            hint=_HINT,
        )
    kept = _VARIANT.sub(lambda match: match[0] if match["name"] in chosen else "", block["list"] + "\n")
    start, end = block.span("list")
    path.write_text(text[:start] + kept.rstrip("\n") + text[end:], "utf-8")


def drop_working_folder(source: Path) -> None:
    """Let programs look for backends in their own folder only.

    Raises:
        ApplianceError: the search is not the known one.
    """
    path = source / BACKEND_SEARCH
    text = path.read_text("utf-8") if path.is_file() else ""
    if text.count(_OWN_FOLDER) != 1 or text.count(_WORKING_FOLDER) != 1 or "current_path" not in text:
        raise ApplianceError(
            "runtime.search-differs",
            BACKEND_SEARCH,
            expected="the search for backends that this version of the appliance knows",
            found="another",
            hint=_HINT,
        )
    path.write_text(text.replace(_WORKING_FOLDER, "(void) cwd;"), "utf-8")
