"""flannelctl docker-options: the file that Go flannel's mk-docker-opts.sh writes; subnet.env is read, not executed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from flannel_core.flannelctl import docker_options_command
from flannel_core.flannelctl.main import main

SUBNET_ENV = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n"
BIP = 'DOCKER_OPT_BIP="--bip=10.1.74.1/24"\n'
IPMASQ = 'DOCKER_OPT_IPMASQ="--ip-masq=true"\n'
MTU = 'DOCKER_OPT_MTU="--mtu=1472"\n'
ALL = " --bip=10.1.74.1/24 --ip-masq=true --mtu=1472"


class Files:
    def __init__(self, directory: Path) -> None:
        self.subnet_env = directory / "subnet.env"
        self.subnet_env.write_text(SUBNET_ENV)
        self.docker = directory / "docker/options.env"

    def run(self, *flags: str) -> int:
        return main(["docker-options", "-f", str(self.subnet_env), "-d", str(self.docker), *flags])


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.delenv("DOCKER_OPTS", raising=False)
    return Files(tmp_path)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], f'{BIP}{IPMASQ}{MTU}DOCKER_OPTS="{ALL}"\n'),
        (["-i", "-c"], f'{BIP}{IPMASQ}{MTU}DOCKER_OPTS="{ALL}"\n'),
        (["-ic"], f'{BIP}{IPMASQ}{MTU}DOCKER_OPTS="{ALL}"\n'),
        (["-i"], f"{BIP}{IPMASQ}{MTU}"),
        (["-c"], f'DOCKER_OPTS="{ALL}"\n'),
        (["-k", "CUSTOM_KEY"], f'{BIP}{IPMASQ}{MTU}CUSTOM_KEY="{ALL}"\n'),
        (["-m"], f'{BIP}{MTU}DOCKER_OPTS=" --bip=10.1.74.1/24 --mtu=1472"\n'),
    ],
    ids=" ".join,
)
def test_the_flags_of_the_script(files: Files, flags: list[str], text: str) -> None:
    assert files.run(*flags) == 0
    assert files.docker.read_text() == text


def test_docker_leaves_alone_what_flannel_masquerades(files: Files) -> None:
    files.subnet_env.write_text(SUBNET_ENV.replace("IPMASQ=false", "IPMASQ=true"))
    assert files.run("-i") == 0
    assert 'DOCKER_OPT_IPMASQ="--ip-masq=false"' in files.docker.read_text()


def test_what_the_variables_hold_already_goes_in_front(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_OPTS", "--debug")
    monkeypatch.setenv("DOCKER_OPT_LABEL", '--label=a="b" $c')
    monkeypatch.setenv("DOCKER_OPT_BIP", "--bip=192.0.2.1/24")
    assert files.run() == 0
    label = r"--label=a=\"b\" \$c"
    assert files.docker.read_text() == (
        f'{BIP}{IPMASQ}DOCKER_OPT_LABEL="{label}"\n{MTU}'
        f'DOCKER_OPTS="--debug  --bip=10.1.74.1/24 --ip-masq=true {label} --mtu=1472"\n'
    )


def test_a_shell_reads_back_what_was_meant(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    nasty = r"""--label=`id` $(id) "q" \back 'single'"""
    monkeypatch.setenv("DOCKER_OPT_LABEL", nasty)
    assert files.run("-i") == 0
    script = f'. {files.docker}; printf %s "$DOCKER_OPT_LABEL"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == nasty


def test_subnet_env_is_not_executed(files: Files, tmp_path: Path) -> None:
    files.subnet_env.write_text(f"{SUBNET_ENV}FLANNEL_OTHER=$(touch {tmp_path}/executed)\n")
    assert files.run() == 0
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FLANNEL_IPMASQ=maybe\n", "Invalid value of FLANNEL_IPMASQ: maybe"),
        ("FLANNEL_SUBNET=10.1.74.1\n", "'10.1.74.1' is no address with a prefix length"),
        ("FLANNEL_MTU=big\n", "FLANNEL_MTU is no number: 'big'"),
        ("touch /tmp/x\n", "line 1 is not NAME=VALUE: 'touch /tmp/x'"),
    ],
)
def test_a_subnet_env_that_says_nonsense(files: Files, capsys: Any, text: str, words: str) -> None:
    files.subnet_env.write_text(text)
    assert files.run() == 1
    assert f"{files.subnet_env}: {words}" in capsys.readouterr().err
    assert not files.docker.exists()


def test_a_host_without_a_subnet_gets_no_options_at_all(files: Files, capsys: Any) -> None:
    files.subnet_env.unlink()
    assert files.run() == 1
    assert f"{files.subnet_env}: is not there" in capsys.readouterr().err
    assert not files.docker.exists()


def test_a_host_of_ipv6_alone_is_told_that_there_is_no_bip(files: Files, capsys: Any) -> None:
    files.subnet_env.write_text("FLANNEL_IPV6_SUBNET=fc00::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n")
    assert files.run("-i") == 0
    assert files.docker.read_text() == 'DOCKER_OPT_IPMASQ="--ip-masq=false"\nDOCKER_OPT_MTU="--mtu=1430"\n'
    assert "there is no FLANNEL_SUBNET" in capsys.readouterr().err


def test_a_route_through_another_host_has_our_subnet(
    files: Files, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The kernel's own file, of a namespace that has such a route."""
    commands = (
        "ip link set lo up; ip addr add 192.0.2.1/24 dev lo; ip route add 10.1.74.0/24 via 192.0.2.9 dev lo; "
        f"cp /proc/net/route {tmp_path}/route"
    )
    subprocess.run(["unshare", "--net", "--mount", "sh", "-ec", f"mount -t proc proc /proc; {commands}"], check=True)
    monkeypatch.setattr(docker_options_command, "ROUTES", tmp_path / "route")
    assert files.run() == 1
    assert "Your routing table already contains the subnet: 10.1.74.0/24 via 192.0.2.9" in capsys.readouterr().err
    assert files.docker.exists(), "as the script does"


@pytest.mark.parametrize("key", ["", "A B", "$(id)", "1A", "A=B"])
def test_a_key_that_is_no_variable(files: Files, key: str) -> None:
    assert files.run("-k", key) == 2
    assert not files.docker.exists()
