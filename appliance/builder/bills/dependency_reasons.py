"""Why a host needs each Python distribution that a bundle brings to it, or the build needs it.

Owns one line for each distribution. A test compares the table with the lock of the demo's recipe.

Rules:
- a line names what this program does with the distribution, or which other distribution needs it;
- names are canonical: lower case, with hyphens.
"""

from __future__ import annotations

REASONS = {
    "annotated-types": "needed by pydantic: limits of numbers and lengths",
    "ansible-core": "runs the playbooks that set up a host",
    "ansible-runner": "starts ansible-core and reports each of its tasks",
    "anyio": "needed by starlette: tasks and sockets of the gateway",
    "cffi": "needed by cryptography: its binding to OpenSSL",
    "click": "parses the command line; needed by uvicorn, too",
    "cmake": "configures the build of llama.cpp",
    "cryptography": "reads keys and verifies signatures; needed by ansible-core, too",
    "diskcache": "needed by llama-cpp-python: the binding does not import without it",
    "h11": "HTTP/1.1 of the gateway: below uvicorn, and on its connections to engines",
    "idna": "needed by anyio: names of hosts",
    "jinja2": "reads chat templates for `appliance inspect`; needed by ansible-core, too",
    "llama-cpp-python": "the binding of llama.cpp; the build compiles it together with llama-server",
    "lockfile": "needed by python-daemon",
    "markdown-it-py": "needed by rich",
    "markupsafe": "needed by jinja2: escapes text",
    "mdurl": "needed by markdown-it-py",
    "ninja": "runs the compiler for llama.cpp on all cores",
    "numpy": "needed by llama-cpp-python: arrays of tokens and logits",
    "nvidia-cublas": "matrix products on graphics processors; only in a bundle with CUDA",
    "nvidia-cuda-cccl": "headers for the CUDA compiler",
    "nvidia-cuda-crt": "headers for the CUDA compiler",
    "nvidia-cuda-nvcc": "the CUDA compiler",
    "nvidia-cuda-runtime": "the CUDA runtime; only in a bundle with CUDA",
    "nvidia-nvvm": "a part of the CUDA compiler",
    "packaging": "needed by ansible-core and ansible-runner: compares versions",
    "pexpect": "needed by ansible-runner: starts ansible-core",
    "prometheus-client": "formats the metrics of the gateway",
    "ptyprocess": "needed by pexpect: pseudo-terminals",
    "pycparser": "needed by cffi",
    "pydantic": "validates the configuration that a site writes",
    "pydantic-core": "needed by pydantic",
    "pygments": "needed by rich",
    "python-daemon": "needed by ansible-runner",
    "pyyaml": "reads playbooks and the configuration that a site writes; needed by ansible-core, too",
    "resolvelib": "needed by ansible-core",
    "rich": "tables, progress and colour of the command line",
    "starlette": "the HTTP routes of the gateway",
    "typing-extensions": "needed by pydantic, starlette and llama-cpp-python",
    "typing-inspection": "needed by pydantic",
    "uv": "installs the wheels on a host, by hash and without a network",
    "uvicorn": "the HTTP server of the gateway",
}
"""One line for each distribution, by its canonical name."""

BY_ANOTHER = "needed by another distribution of this list"
"""The line for a distribution that the table does not have, as an upgraded closure may bring one."""
