"""The chart and what comes of it: valid for several Kubernetes, and a configuration that flanneld takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flannel_core.backend_options import decode_options, unknown_options
from flannel_core.flanneld_options import Parsed, parse
from flannel_core.netconf import parse_config
from flannel_core.plugins import load_backend

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/chart/kube-flannel"
MANIFEST = ROOT / "deploy/kubernetes/kube-flannel.yml"
BIN = Path(sys.executable).parent
VERSIONS = ("1.30", "1.32", "1.34", "1.36")

GO_VALUES = {
    "": ("podCidr", "podCidrv6"),
    "global": ("imagePullSecrets",),
    "flannel": (
        *("flannel_cni", "cniBinDir", "cniConfDir", "skipCNIConfigInstallation", "enableNFTables", "args", "backend"),
        *("backendPort", "mtu", "vni", "GBP", "directRouting", "macPrefix", "backendPortv6", "psk", "tunnelMode"),
        *("keepaliveInterval", "cniConf", "resources", "tolerations", "nodeSelector"),
    ),
    "flannel.image": ("repository", "tag"),
    "flannel.flannel_cni.image": ("repository", "tag"),
    "flannel.healthz": ("port", "livenessProbe", "readinessProbe"),
    "netpol": ("enabled", "args"),
    "netpol.image": ("repository", "tag"),
}
"""The names of all values of Go flannel's chart v0.28.9."""

PSK = "cHNrIHBzayBwc2sgcHNrIHBzayBwc2sgcHNrIHBzayA="
CASES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "vxlan with every key": (
        "flannel.backendPort=4789,flannel.mtu=1400,flannel.vni=7,flannel.GBP=true,flannel.directRouting=true",
        "flannel.backendOptions.ChecksumOffload=off",
    ),
    "a custom podCIDR": ("podCidr=10.42.0.0/16",),
    "dual stack": ("podCidrv6=fc00:5::/48",),
    "IPv6 alone": ("podCidr=,podCidrv6=fc00:5::/48",),
    "nftables": ("flannel.enableNFTables=true",),
    "host-gw": ("flannel.backend=host-gw",),
    "ipip": ("flannel.backend=ipip,flannel.directRouting=true",),
    "wireguard": (
        f"flannel.backend=wireguard,flannel.backendPort=5000,flannel.backendPortv6=5001,flannel.psk={PSK}",
        "flannel.tunnelMode=auto,flannel.keepaliveInterval=25,flannel.mtu=1400",
    ),
    "udp": ("flannel.backend=udp,flannel.backendPort=8286",),
    "udp in the kernel": ("flannel.backend=udp,flannel.udpMode=kernel",),
    "extension": ("flannel.backend=extension,flannel.backendOptions.SubnetAddCommand=ip route",),
    "network policies": ("netpol.enabled=true,netpol.image.repository=policies",),
    "no probes, no CNI configuration": ("flannel.healthz.port=0,flannel.skipCNIConfigInstallation=true",),
    "elsewhere": ("flannel.cniBinDir=/usr/libexec/cni,flannel.cniConfDir=/etc/cni/other,flannel.nodeSelector.a=b",),
}


def rendered(*values: str) -> str:
    command = [str(BIN / "helm"), "template", "flannel", str(CHART), "--namespace", "kube-flannel"]
    for value in values:
        command += ["--set", value]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(text: str) -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all(text) if document}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, dict[str, Any]]]:
    return request.param, documents(rendered(*CASES[request.param]))


def test_every_version_of_kubernetes_takes_it(case: tuple[str, dict[str, dict[str, Any]]]) -> None:
    for version in VERSIONS:
        for document in case[1].values():
            kubernetes_validate.validate(document, version, strict=True)


def test_flanneld_takes_its_configuration_and_its_arguments(case: tuple[str, dict[str, dict[str, Any]]]) -> None:
    name, found = case
    config = parse_config(found["ConfigMap"]["data"]["net-conf.json"].encode(), name)
    backend = load_backend(config.backend_type)
    decode_options(config, backend, name)
    assert unknown_options(config, backend) == ()
    agent = found["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]
    assert isinstance(parse([*agent["args"]], {}), Parsed)


def test_a_container_forwards_udp_only_where_the_kernel_may_not_be_able_to() -> None:
    def names(*values: str) -> list[str]:
        spec = documents(rendered(*values))["DaemonSet"]["spec"]["template"]["spec"]
        return [container["name"] for container in spec["containers"]]

    assert names("flannel.backend=udp") == ["kube-flannel", "udp-forwarder"]
    assert names("flannel.backend=udp,flannel.udpMode=kernel") == names() == ["kube-flannel"]


def test_every_value_of_gos_chart_is_there() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path, names in GO_VALUES.items():
        found = values
        for part in filter(None, path.split(".")):
            found = found[part]
        assert set(names) <= set(found), path


def test_no_more_is_asked_of_a_node_than_the_agent_needs(case: tuple[str, dict[str, dict[str, Any]]]) -> None:
    for container in case[1]["DaemonSet"]["spec"]["template"]["spec"]["containers"]:
        if container["name"] == "kube-network-policies":
            continue  # Kubernetes' own
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["privileged"]
        needed = {"SETUID", "SETGID"} if container["name"] == "udp-forwarder" else {"NET_ADMIN", "NET_RAW"}
        assert set(context["capabilities"]["add"]) == needed
        assert context["capabilities"]["drop"] == ["ALL"]


def test_the_manifest_is_what_the_chart_gives() -> None:
    namespace = (ROOT / "deploy/kubernetes/namespace.yaml").read_text()
    assert MANIFEST.read_text() == namespace + rendered(), "make manifest writes it"
    for version in VERSIONS:
        for document in yaml.safe_load_all(MANIFEST.read_text()):
            kubernetes_validate.validate(document, version, strict=True)


def test_policies_without_an_image_are_refused_by_name() -> None:
    command = [str(BIN / "helm"), "template", "flannel", str(CHART), "--set", "netpol.enabled=true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "netpol.image.repository is needed" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["yamllint", "--strict", "deploy/chart/kube-flannel/values.yaml", "deploy/chart/kube-flannel/Chart.yaml"],
        ["yamllint", "--strict", "deploy/kubernetes"],
        ["hadolint", "deploy/Dockerfile"],
        ["helm", "lint", "--strict", "--quiet", "deploy/chart/kube-flannel"],
    ],
    ids=" ".join,
)
def test_the_linters_have_nothing_to_say(command: list[str]) -> None:
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
