"""The installed plugin needs nothing of the host: a root directory that holds what `flannelctl install-cni` put there,
the delegates and the two libraries that those ask for, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flannel_core.lab.network import execute
from flannel_core.lab.programs import FLANNELCTL

DELEGATES = ("bridge", "host-local", "portmap")


def libraries(program: Path) -> list[Path]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]


class Root:
    """A root directory; ``call`` runs the plugin in it, on ``node``."""

    def __init__(self, directory: Path, node: Any) -> None:
        self.directory = directory
        self.node = node

    def install(self, program: Path) -> str:
        done = subprocess.run(
            [
                *(FLANNELCTL, "install-cni", "--program", program),
                *("--bin-dir", self.directory / "opt/cni/bin", "--conf-dir", self.directory / "etc/cni/net.d"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def call(self, command: str, config: object = None) -> subprocess.CompletedProcess[bytes]:
        """In a mount namespace of its own, which ip netns exec makes: nothing stays mounted."""
        mounts = "mount -t proc proc $0/proc && mount --rbind /run/netns $0/run/netns"
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": str(self.node.container("c1")),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
        }
        shell = f"{mounts} && exec chroot $0 /opt/cni/bin/flannel"
        return subprocess.run(
            ["ip", "netns", "exec", self.node.namespace, "sh", "-c", shell, self.directory],
            env={**environment, "PATH": os.environ["PATH"]},
            input=json.dumps(config).encode(),
            capture_output=True,
            check=False,
        )

    def files(self) -> set[str]:
        return {str(path.relative_to(self.directory)) for path in self.directory.rglob("*") if not path.is_dir()}


@pytest.fixture
def root(tmp_path: Path, node: Any) -> Root:
    directory = tmp_path / "root"
    for name in ("opt/cni/bin", "proc", "run/netns", "run/flannel"):
        (directory / name).mkdir(parents=True)
    for name in DELEGATES:
        shutil.copy(Path("/usr/lib/cni") / name, directory / "opt/cni/bin")
    return Root(directory, node)


def test_version_add_and_del_in_a_root_that_holds_nothing_else(root: Root, program: Path) -> None:
    root.install(program)
    assert root.files() == {
        "etc/cni/net.d/10-flannel.conflist",
        "opt/cni/bin/flannel",
        *(f"opt/cni/bin/{name}" for name in DELEGATES),
    }
    version = root.call("VERSION")
    assert (version.returncode, version.stderr) == (0, b"")
    assert "1.1.0" in json.loads(version.stdout)["supportedVersions"]

    for delegate in DELEGATES:
        for library in libraries(Path("/usr/lib/cni") / delegate):
            there = root.directory / str(library).lstrip("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, there)
    shutil.copy(root.node.subnet_env, root.directory / "run/flannel/subnet.env")
    conflist = json.loads((root.directory / "etc/cni/net.d/10-flannel.conflist").read_text())
    config = {**conflist["plugins"][0], "name": conflist["name"], "cniVersion": conflist["cniVersion"]}
    added = root.call("ADD", config)
    assert added.returncode == 0, added
    assert [ip["address"] for ip in json.loads(added.stdout)["ips"]] == ["10.5.43.2/24"]
    assert "10.5.43.2/24" in execute(f"{root.node.namespace}-c1", "ip addr show eth0", {"PATH": os.environ["PATH"]})
    assert (root.directory / "var/lib/cni/flannel/c1:cbr0:eth0").exists()
    deleted = root.call("DEL", config)
    assert (deleted.returncode, deleted.stdout) == (0, b"")
    assert not list((root.directory / "var/lib/cni/flannel").iterdir())
    assert not list((root.directory / "var/lib/cni/networks/cbr0").glob("10.*"))


def test_the_program_asks_for_no_shared_library(program: Path) -> None:
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    assert "not a dynamic executable" in told.stdout + told.stderr


def test_the_environment_of_a_python_does_not_reach_the_one_inside(node: Any, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not mine')")
    answer = node.call("VERSION", environment={"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nonexistent"})
    assert answer.code == 0


def test_a_second_install_changes_nothing(root: Root, program: Path) -> None:
    root.install(program)
    paths = [root.directory / "opt/cni/bin/flannel", root.directory / "etc/cni/net.d/10-flannel.conflist"]
    before = [path.stat().st_ino for path in paths]
    assert root.install(program).count("is up to date") == 2
    assert [path.stat().st_ino for path in paths] == before
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o755, 0o644]
