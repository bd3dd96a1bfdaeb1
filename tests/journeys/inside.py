"""The host half of a journey, run by the test as an ordinary user in a network namespace of its own.

Arguments: stick, root file, fingerprint, prefix. Prints one JSON object with what it saw.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = (sys.executable, "-I", "-B", "-m", "appliance.cli.main")


def run(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([*PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def mapped_files(program: str) -> dict[str, list[str]]:
    """For each process that runs a program of this name: its executable and every file that it has mapped."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            executable = os.readlink(folder / "exe")
            lines = (folder / "maps").read_text().splitlines()
        except (OSError, ValueError):
            continue
        if Path(executable).name == program:
            paths = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
            found[executable] = sorted(path for path in paths if path.startswith("/"))
    return found


def ask(url: str, key: str) -> dict[str, Any]:
    from openai import AuthenticationError, NotFoundError, OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    model = client.models.list().data[0].id
    answers = []
    for question in ("Name the capital of France.", "Which planet is known as the red planet?"):
        reply = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], max_tokens=24, temperature=0
        )
        assert reply.usage is not None
        answers.append({"text": reply.choices[0].message.content, "tokens": reply.usage.completion_tokens})
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Count to three."}],
        max_tokens=16,
        temperature=0,
        stream=True,
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    refusals: dict[str, int] = {}
    try:
        OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()
    except AuthenticationError as error:
        refusals["wrong key"] = error.status_code
    try:
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])
    except NotFoundError as error:
        refusals["unknown model"] = error.status_code
    return {
        "model": model,
        "answers": answers,
        "pieces": len([piece for piece in pieces if piece]),
        "refusals": refusals,
    }


def serve(prefix: str) -> dict[str, Any]:
    child = subprocess.Popen(
        [*PROGRAM, "serve", "--prefix", prefix, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    try:
        if not line:
            return {"ready": None, "err": child.communicate()[1]}
        ready = json.loads(line)
        seen = ask(ready["url"], Path(ready["key_file"]).read_text().strip())
        return {"ready": ready, **seen, "maps": mapped_files("llama-server")}
    finally:
        child.terminate()
        child.communicate()


def reaches_out() -> bool:
    try:
        with socket.create_connection(("192.0.2.1", 80), timeout=2):
            return True
    except OSError:
        return False


def main() -> None:
    from appliance.cli.demo.network import enter_empty_network, interfaces

    stick, root, fingerprint, prefix = sys.argv[1:]
    refusal = enter_empty_network()
    seen: dict[str, Any] = {"refusal": refusal, "interfaces": list(interfaces()), "reaches_out": reaches_out()}
    seen["uid"] = os.getuid()
    seen["capabilities"] = int(Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0], 16)
    seen["pin"] = run("trust", "pin", root, "--fingerprint", fingerprint, "--prefix", prefix)
    seen["install"] = run("install", stick, "--prefix", prefix, "--json")
    seen["serve"] = serve(prefix)
    seen["again"] = run("install", stick, "--prefix", prefix, "--json")
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
