"""Signs by a program of the site's own: a key server, an HSM's client, a person's script.

Owns the protocol: `PROGRAM sign KEYID`, the message on standard input, the DER signature in base64
on standard output, exit code 0.

Rules:
- a program that fails, hangs, or answers anything else is an error that names it; nothing was signed then;
- its standard error is shown to the person, cut short, and never trusted.
"""

from __future__ import annotations

import base64
import binascii
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass

from signing.errors import ApplianceError, UsageError
from signing.keys import PublicKey

MAX_ANSWER = 1024
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class ExternalSigner:
    """A key behind a program.

    Args:
        program: a path or a name in PATH.
        key_id: the program's own name of the key.
        public: the public half, known from elsewhere: the request or a file.
        timeout_s: how long the program may take, a person's touch included.
    """

    program: str
    key_id: str
    public: PublicKey
    timeout_s: float = TIMEOUT_S

    def sign(self, message: bytes) -> bytes:
        """Let the program sign a message.

        Raises:
            UsageError: there is no such program.
            ApplianceError: it failed, took too long, or answered something else than one DER signature in base64.
        """
        code, answer, said = self._run(message)
        if code != 0:
            ended = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise self._failed("signer.failed", "exit code 0", f"{ended}: {said}" if said else ended)
        return self._decode(answer)

    def _run(self, message: bytes) -> tuple[int, bytes, str]:
        try:
            process = subprocess.Popen(
                [self.program, "sign", self.key_id],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise UsageError(
                "signer.no-program",
                self.program,
                expected="a program that can be started",
                found=os.strerror(error.errno or 0).lower(),
                hint="check the path after exec: in --key",
            ) from None
        with process:
            try:
                answer, said = process.communicate(message, timeout=self.timeout_s)
            except subprocess.TimeoutExpired:
                raise self._failed("signer.timeout", f"an answer in {self.timeout_s:g} s", "none") from None
            finally:
                # Its children too: one that keeps the pipe open would keep us here.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, answer, said.decode("utf-8", "replace").strip()[-300:]

    def _decode(self, answer: bytes) -> bytes:
        try:
            if len(answer) > MAX_ANSWER:
                raise ValueError("too long")
            return base64.b64decode(answer.strip(), validate=True)
        except (ValueError, binascii.Error):
            raise self._failed(
                "signer.answer", "one DER signature in base64", f"{len(answer)} bytes: {answer[:60]!r}"
            ) from None

    def _failed(self, code: str, expected: str, found: str) -> ApplianceError:
        hint = f"try it by hand: printf test | {self.program} sign {self.key_id}"
        return ApplianceError(code, self.program, expected=expected, found=found, hint=hint)
