"""A kernel with fs-verity, for hosts whose own has none: the two calls, and a disk that changes below a seal.

It stands in for `FS_IOC_ENABLE_VERITY` and `FS_IOC_MEASURE_VERITY` alone. `tests/bed/test_guest_seal.py` shows the same
with the kernel of Debian.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Any

import pytest

from appliance.host.machine.disks import MEASURE_VERITY
from appliance.host.models import seal
from appliance.host.models.seal import ENABLE_VERITY
from bundles.fsverity_digest import digest_of


class SimVerity:
    """Seals by inode.

    Args:
        patch: of the test.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sealed: dict[tuple[int, int], str] = {}
        self.refusal = 0
        """The error number of every further attempt to seal; 0 for none."""
        self.enabled = 0
        self._real = fcntl.ioctl
        patch.setattr(fcntl, "ioctl", self.ioctl)
        patch.setattr(seal, "filesystem_kind", lambda _descriptor: "ext4")

    def ioctl(self, descriptor: int, request: int, argument: Any = 0, mutate_flag: bool = True) -> int:
        """Answer the two calls; every other one is the kernel's."""
        status = os.fstat(descriptor)
        name = (status.st_dev, status.st_ino)
        if request == ENABLE_VERITY:
            version, algorithm, block = struct.unpack_from("<III", argument)
            assert (version, algorithm, block, len(argument)) == (1, 1, 4096, 128)
            if self.refusal:
                raise OSError(self.refusal, os.strerror(self.refusal))
            if name in self.sealed:
                raise FileExistsError(errno.EEXIST, "sealed")
            with open(f"/proc/self/fd/{descriptor}", "rb") as file:
                self.sealed[name] = digest_of(file, status.st_size)
            self.enabled += 1
            return 0
        if request == MEASURE_VERITY:
            if name not in self.sealed:
                raise OSError(errno.ENODATA, "no seal")
            assert isinstance(argument, bytearray)
            argument[:] = struct.pack("<HH32s", 1, 32, bytes.fromhex(self.sealed[name]))
            return 0
        return self._real(descriptor, request, argument, mutate_flag)
