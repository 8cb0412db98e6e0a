"""The kernel of the virtual machine: Debian's cloud kernel, out of its package, and the first file system it sees.

The package is downloaded and unpacked once, into the user's cache; nothing is installed, and the machine's own /boot
and /lib/modules are not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .network import LabError

META_PACKAGE = "linux-image-cloud-amd64"
"""Depends on the newest cloud kernel of this Debian: small, no drivers for hardware, all that flannel uses."""
MODULES = ("virtio_pci", "virtio_console", "virtio_rng", "virtiofs", "overlay")
"""What the guest needs before it sees a file system with all other modules on it."""
DIRECTORIES = ("bin", "dev", "lower", "modules", "new", "proc", "sys", "upper")
GUEST = Path(__file__).parent / "guest"
BUSYBOX = Path("/bin/busybox")

S_IFDIR, S_IFREG, S_IFCHR = 0o040000, 0o100000, 0o020000
"""sys/stat.h"""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    directory: Path

    @property
    def image(self) -> Path:
        return next((self.directory / "boot").glob("vmlinuz-*"))

    @property
    def modules(self) -> Path:
        return next((self.directory / "lib/modules").iterdir())

    def with_dependencies(self, names: Sequence[str]) -> list[Path]:
        """The files of these modules, each after those that it needs. What is built in has none."""
        needs: dict[str, list[str]] = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            module, _, others = line.partition(":")
            needs[module] = others.split()
        by_name = {Path(module).name.partition(".")[0].replace("-", "_"): module for module in needs}
        ordered: dict[str, None] = {}
        for name in names:
            if name in by_name:
                module = by_name[name]
                ordered.update(dict.fromkeys([*reversed(needs[module]), module]))
        return [self.modules / module for module in ordered]


def cache_directory() -> Path:
    """Where kernels are kept: ~/.cache/flannel-vm, under XDG_CACHE_HOME where that is set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flannel-vm"


def cached_kernel(cache: Path) -> Kernel:
    """The newest kernel in ``cache``, downloaded if there is none. Raises LabError."""
    found = sorted(cache.glob("linux-image-*"), key=lambda path: path.stat().st_mtime)
    if found:
        return Kernel(found[-1])
    if not shutil.which("apt-get"):
        raise LabError(
            f"the virtual machine's kernel is a package of Debian, and this system has no apt: unpack"
            f" {META_PACKAGE}'s into {cache}/linux-image-VERSION and run depmod on it"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        package = _package_name()
        _run("apt-get", "-o", "APT::Sandbox::User=root", "--quiet=2", "download", package, cwd=Path(scratch))
        (archive,) = Path(scratch).glob("*.deb")
        unpacked = Path(scratch) / "unpacked"
        _run("dpkg-deb", "--extract", str(archive), str(unpacked))
        _run("depmod", "--basedir", str(unpacked), Kernel(unpacked).modules.name)
        kept = cache / package
        try:
            unpacked.rename(kept)
        except OSError:
            if not kept.exists():  # else somebody else was as far at the same time
                raise
    return Kernel(kept)


def _package_name() -> str:
    """``linux-image-6.1.0-56-cloud-amd64``, by what apt knows; its lists are fetched if it knows nothing."""
    for update_first in (False, True):
        if update_first:
            _run("apt-get", "--quiet=2", "update")
        shown = subprocess.run(["apt-cache", "depends", META_PACKAGE], capture_output=True, text=True).stdout
        for line in shown.splitlines():
            relation, _, package = line.strip().partition(": ")
            if relation == "Depends" and package.startswith("linux-image-"):
                return package
    raise LabError(f"apt knows no package {META_PACKAGE}: its sources have to name Debian's main archive for amd64")


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"`{' '.join(command)}` failed, so there is no kernel to boot: {said}")


def initramfs(kernel: Kernel) -> bytes:
    """The guest's first file system: busybox, the modules that it takes to see the host's, and two scripts."""
    modules = kernel.with_dependencies(MODULES)
    files = {
        "bin/busybox": BUSYBOX.read_bytes(),
        "init": (GUEST / "initramfs.sh").read_bytes(),
        "init.sh": (GUEST / "init.sh").read_bytes(),
        "modules.list": "".join(f"{module.name}\n" for module in modules).encode(),
        "modules.directory": str(kernel.modules).encode(),
        **{f"modules/{module.name}": module.read_bytes() for module in modules},
    }
    entries = [
        _entry(name, S_IFDIR | 0o755) for name in ("bin", "dev", "lower", "modules", "new", "proc", "sys", "upper")
    ]
    entries.append(_entry("dev/console", S_IFCHR | 0o600, device=(5, 1)))
    entries += (_entry(name, S_IFREG | 0o755, content) for name, content in files.items())
    return b"".join([*entries, _entry("TRAILER!!!", 0)])


def _entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """One file in the kernel's initramfs format (Documentation/driver-api/early-userspace/buffer-format.rst): "newc"
    cpio, every field eight hex digits, name and content padded to four bytes. The kernel asks for no inode numbers of
    files with one link."""
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
