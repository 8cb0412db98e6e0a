"""What the Dockerfile's steps make of a Debian: they are run in one, without Docker."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTRAS = "kubernetes,etcd,vxlan,host-gw,wireguard,ipip,udp,extension,alloc"
PATH = "/opt/bin:/opt/flannel/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("image")
    done = subprocess.run(
        ["sh", "deploy/image/root", ".", str(root)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run(["mount", "-t", "proc", "proc", str(root / "proc")], check=True)
    yield root
    subprocess.run(["umount", str(root / "proc")], check=True)
    subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=True)


def in_there(image: Path, *command: str, input: str = "") -> str:
    chroot = ["chroot", str(image), "env", "-i", f"PATH={PATH}", "CNI_COMMAND=VERSION"]
    done = subprocess.run([*chroot, *command], capture_output=True, text=True, input=input, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_agent_starts_with_the_chosen_plugins_and_no_others(image: Path) -> None:
    assert "flannel-core" in in_there(image, "/opt/bin/flanneld", "--version")
    plugins = json.loads(in_there(image, "flannelctl", "plugins", "--json"))
    assert {plugin["name"] for plugin in plugins} == set(EXTRAS.split(","))
    assert [plugin["error"] for plugin in plugins if plugin["error"]] == []


def test_the_programs_that_gos_manifest_names_are_there(image: Path) -> None:
    assert "1.1.0" in in_there(image, "/flannel", input='{"cniVersion": "1.1.0"}')
    (image / "tmp/new.json").write_text("{}")
    in_there(image, "/opt/bin/install-conf", "/tmp/new.json", "/tmp/10-flannel.conflist")
    conflist = image / "tmp/10-flannel.conflist"
    assert (conflist.read_text(), conflist.stat().st_mode & 0o777) == ("{}", 0o644)
    (image / "run/flannel").mkdir()
    (image / "run/flannel/subnet.env").write_text("FLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n")
    in_there(image, "/opt/bin/mk-docker-opts.sh", "-c")
    assert "--bip=10.5.1.1/24" in (image / "run/docker_opts.env").read_text()


def test_both_iptables_are_there_and_the_agents_own_code_is_compiled(image: Path) -> None:
    for variant in ("legacy", "nft"):
        in_there(image, f"iptables-{variant}", "--version")
    in_there(image, "/opt/bin/iptables-legacy/iptables-restore", "--version")
    site = next(image.glob("opt/flannel/lib/python3*/site-packages"))
    assert list((site / "flannel_core/__pycache__").glob("agent.*.pyc"))
