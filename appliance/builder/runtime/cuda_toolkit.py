"""The CUDA toolkit, made of NVIDIA's wheels.

Owns which wheels it needs, which of them go to a host, and their layout in one folder. It must never look for a
toolkit on this machine.
"""

from __future__ import annotations

import re
from pathlib import Path

from appliance.builder.runtime.compilation.toolchain import unpack_wheel
from signing.errors import DamagedError

HOST_TOOLKIT_NAMES = ("nvidia-cuda-runtime", "nvidia-cublas")
"""The wheels that a host needs, too: the libraries that the backend links to."""

TOOLKIT_NAMES = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl", *HOST_TOOLKIT_NAMES)
SERIES = "==13.0.*"
TOOLKIT = tuple(f"{name}{SERIES}" for name in TOOLKIT_NAMES)
"""The wheels of the toolkit, as requirements. All of one series, since they fit no other."""

TOOLKIT_ROOT = "nvidia/cu13"
"""The folder of the toolkit's files in NVIDIA's wheels."""


def unpack_toolkit(wheels: tuple[Path, ...], folder: Path) -> Path:
    """Unpack NVIDIA's wheels into one folder, in the layout that their compiler expects.

    Args:
        wheels: verified.
        folder: gets the toolkit.

    Returns:
        The toolkit's root.

    Raises:
        DamagedError: a wheel cannot be read, or the compiler is not among them.
    """
    for wheel in wheels:
        unpack_wheel(wheel, rf"(?P<path>{TOOLKIT_ROOT}/(?:bin|include|lib|nvvm)/.+)", folder)
    root = folder / TOOLKIT_ROOT
    for path in sorted((root / "lib").glob("*.so.*")):
        # The linker needs the name without a number, which wheels for running leave out.
        link = path.with_name(re.sub(r"\.so\..*", ".so", path.name))
        if not link.exists():
            link.symlink_to(path.name)
    # The compiler looks in both folders, and its wheels have one.
    (root / "lib64").symlink_to("lib")
    nvcc = root / "bin" / "nvcc"
    if not nvcc.is_file():
        raise DamagedError("runtime.tool-missing", "nvidia-cuda-nvcc", expected="nvcc", found="no such program inside")
    for program in (*(root / "bin").iterdir(), *(root / "nvvm" / "bin").glob("*")):
        if program.is_file():
            program.chmod(0o755)
    return root
