"""A virtual machine with another kernel than this one: Debian's, which has vxlan, ipip, FOU, WireGuard and netem.

    with VirtualMachine() as vm:
        done = vm.run(["flannelctl", "lab", "--backend", "ipip"])

The guest sees this machine's whole file system: what is installed here runs there, what is written there is gone with
the guest. It has no network but its own. QEMU emulates the processor, and everything takes many times longer (Python 18
times); see :data:`PATIENCE`. Needs Debian 12 on x86_64, and root for the file system's sake.

    python -m flannel_core.lab.vm COMMAND...
"""

from __future__ import annotations

import base64
import contextlib
import os
import platform
import secrets
import selectors
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..errors import EXIT_FAILED, EXIT_INTERRUPTED
from .network import LabError
from .record import start_time
from .vm_kernel import BUSYBOX, cache_directory, cached_kernel, initramfs

VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86",
    str(VIRTIOFSD): "qemu-system-x86",
    str(BUSYBOX): "busybox-static",
    "depmod": "kmod",
    "setpriv": "util-linux",
}
"""Program -> Debian package."""
RUNNING = Path("/run/flannel-vm")
"""A directory per machine, with its console's output."""
BOOT_SECONDS = 120.0
"""A boot takes 5 s, or many times that on a machine that is busy."""
PATIENCE = 10
"""What the guest's lab multiplies its time limits by (FLANNEL_LAB_PATIENCE): emulated, Python is 18 times slower,
system calls 6 times, and limits have room to begin with."""
COMMAND_SECONDS = 3600.0
"""How long a command given by hand may take."""
CONSOLE_EXCERPT = 30
COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr rcupdate.rcu_expedited=1 tsc=reliable"
    " no_timer_check cryptomgr.notests net.ifnames=0"
)
"""Most of it saves time where the processor is emulated; panic=-1 with -no-reboot ends QEMU if the kernel dies."""
PORTS = ("control", "stdout", "stderr")
PASSED_ON = ("PATH", "HOME", "LANG", "TERM", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Done:
    """How a command in the guest ended. ``status`` as the shell has it: 128 + N for signal N."""

    status: int
    stdout: str
    stderr: str


class VirtualMachine:
    """A context manager: booted when it is entered, gone when it is left. One command at a time."""

    def __init__(self) -> None:
        self._leave = contextlib.ExitStack()
        self._ports: dict[str, socket.socket] = {}
        self._received = dict.fromkeys(PORTS, b"")
        self._directory = RUNNING

    def __enter__(self) -> VirtualMachine:
        """Raises LabError with all that is missing, or with what the console says if the guest does not come up."""
        if problems := vm_lacks():
            raise LabError("\n".join(problems))
        kernel = cached_kernel(cache_directory())
        try:
            self._directory = self._leave.enter_context(own_directory())
            (self._directory / "initramfs").write_bytes(initramfs(kernel))
            self._start(kernel.image)
            late = f"the virtual machine did not come up within {BOOT_SECONDS:.0f} s"
            self._next_line("control", time.monotonic() + BOOT_SECONDS, late)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off, as by pulling the plug: nothing in it is worth an orderly end."""
        self._leave.close()
        self._ports = {}

    def run(
        self,
        command: Sequence[str],
        *,
        within: float,
        environment: Mapping[str, str] = {},
        directory: Path | None = None,
    ) -> Done:
        """Run a command in the guest and wait for its end, with the arguments of ``stream``."""
        printed: dict[str, list[bytes]] = {"stdout": [], "stderr": [], "status": []}
        for port, said in self.stream(command, within=within, environment=environment, directory=directory):
            printed[port].append(said)
        stdout, stderr, status = (b"".join(pieces).decode(errors="replace") for pieces in printed.values())
        return Done(int(status), stdout, stderr)

    def stream(
        self,
        command: Sequence[str],
        *,
        within: float,
        environment: Mapping[str, str] = {},
        directory: Path | None = None,
    ) -> Iterator[tuple[str, bytes]]:
        """Run a command in the guest and yield what it prints, as ``stdout`` or ``stderr`` and a piece of it; at last
        ``status`` and its exit status.

        It runs in ``directory`` (this process's own), with the part of this process's environment that says where
        programs are, and ``environment``. Raises LabError if it takes longer than ``within`` seconds or the guest dies:
        the machine is of no use after that, nor before the last piece was taken.
        """
        deadline = time.monotonic() + within
        token = secrets.token_hex(16).encode()
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        variables = {**passed_on, "FLANNEL_LAB_PATIENCE": str(PATIENCE), **environment}
        settings = [f"--chdir={directory or Path.cwd()}", *(f"{name}={value}" for name, value in variables.items())]
        script = shlex.join(["exec", "env", *settings, *command]).encode()
        self._ports["control"].sendall(token + b" " + base64.b64encode(script) + b"\n")
        late = f"`{shlex.join(command)}` in the virtual machine did not end within {within:.0f} s"
        speaking = {"stdout", "stderr"}
        while speaking:
            self._receive(deadline, late)
            for port in sorted(speaking):
                said, ended, rest = self._received[port].partition(token)
                if ended:
                    speaking.remove(port)
                else:  # its last bytes may be the beginning of the token
                    said, rest = said[: -len(token)], said[-len(token) :]
                self._received[port] = rest
                if said:
                    yield port, said
        yield "status", self._next_line("control", deadline, late)

    def console(self) -> str:
        """The end of what the guest's kernel has said."""
        try:
            said = (self._directory / "console").read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(said.splitlines()[-CONSOLE_EXCERPT:])

    def _start(self, image: Path) -> None:
        """QEMU, and the process that serves this machine's files to it; each ends when this process does."""
        files = self._directory / "files.sock"
        listening = self._leave.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(files))
        listening.listen()
        serve = f"{VIRTIOFSD} --fd={listening.fileno()} --thread-pool-size=1 -o source=/,cache=always,sandbox=chroot"
        self._begin(serve.split(), pass_descriptors=[listening.fileno()])
        # Emulated even where there is a /dev/kvm: one that is nested or emulated itself hangs rather than fails.
        words = [
            "qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot",
            "-machine q35 -cpu Nehalem -smp 2 -m 1536M -accel tcg,thread=multi",
            "-object memory-backend-memfd,id=memory,size=1536M,share=on -numa node,memdev=memory",
            f"-chardev socket,id=files,path={files} -device vhost-user-fs-pci,chardev=files,tag=root",
            f"-chardev file,id=console,path={self._directory / 'console'} -serial chardev:console",
            "-device virtio-rng-pci -device virtio-serial-pci",
        ]
        theirs: list[socket.socket] = []
        for name in PORTS:
            ours, other = socket.socketpair()
            self._ports[name] = self._leave.enter_context(ours)
            theirs.append(other)
            words.append(f"-chardev socket,id={name},fd={other.fileno()}")
            words.append(f"-device virtserialport,chardev={name},name=flannel.{name}")
        command = " ".join(words).split()
        command += ["-kernel", str(image), "-initrd", str(self._directory / "initramfs"), "-append", COMMAND_LINE]
        self._begin(command, pass_descriptors=[other.fileno() for other in theirs])
        for other in theirs:
            other.close()

    def _begin(self, command: list[str], pass_descriptors: Sequence[int]) -> None:
        with (self._directory / "log").open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=pass_descriptors,
                start_new_session=True,  # Ctrl-C is for this process, which then ends them itself
            )

        def end() -> None:
            process.kill()
            process.wait()

        self._leave.callback(end)

    def _next_line(self, port: str, deadline: float, late: str) -> bytes:
        while b"\n" not in self._received[port]:
            self._receive(deadline, late)
        line, _, self._received[port] = self._received[port].partition(b"\n")
        return line

    def _receive(self, deadline: float, late: str) -> None:
        """Take in what comes next on any port. Raises LabError if the guest dies, or with ``late`` at the deadline."""
        with selectors.DefaultSelector() as selector:
            for name, port in self._ports.items():
                selector.register(port, selectors.EVENT_READ, name)
            ready = selector.select(max(0.0, deadline - time.monotonic()))
        if not ready:
            raise self._trouble(late)
        for key, _ in ready:
            data = self._ports[key.data].recv(CHUNK_BYTES)
            if not data:
                raise self._trouble("the virtual machine is gone")
            self._received[key.data] += data

    def _trouble(self, what: str) -> LabError:
        try:
            log = (self._directory / "log").read_text(errors="replace").strip()
        except OSError:
            log = ""
        return LabError("\n".join(filter(None, [what, log, "its console:", self.console()])))


def vm_lacks() -> list[str]:
    """What keeps a virtual machine from running here, each with its cure."""
    if platform.machine() != "x86_64":
        return [f"the virtual machine runs Debian's kernel for x86_64, and this is {platform.machine()}"]
    if os.geteuid() != 0:
        return ["the virtual machine sees all files of this one, which takes root: run it with sudo"]
    missing = [program for program in NEEDED if not shutil.which(program)]
    if not missing:
        return []
    packages = " ".join(sorted({NEEDED[program] for program in missing}))
    return [f"missing for the virtual machine: {', '.join(missing)}; `apt-get install {packages}` or `make machine`"]


@contextlib.contextmanager
def own_directory() -> Iterator[Path]:
    """A new directory under RUNNING, named for this process. Those of processes that are no more are removed."""
    RUNNING.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in RUNNING.iterdir():
        pid, started, _ = left.name.split("-")
        if str(start_time(int(pid))) != started:
            shutil.rmtree(left, ignore_errors=True)
    directory = RUNNING / f"{os.getpid()}-{start_time(os.getpid())}-{secrets.token_hex(3)}"
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def main() -> int:
    """Run one command in a machine of its own; the exit status is the command's."""
    streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    status = EXIT_FAILED
    try:
        with VirtualMachine() as vm:
            for port, said in vm.stream(sys.argv[1:], within=COMMAND_SECONDS):
                if port == "status":
                    status = int(said)
                else:
                    streams[port].write(said)
                    streams[port].flush()
    except LabError as error:
        print(f"vm: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
