"""Go flannel's options, and the arguments of its chart and of kube-flannel.yml, choose the store and reach it."""

from __future__ import annotations

import pytest

from flannel_core.flanneld_options import FlanneldOptions, Parsed, parse
from flannel_store_kubernetes.kubernetes import KubernetesOptions, KubernetesStore

CHART = [
    # The chart's default, kube-flannel.yml, and what people add to flannel.args.
    ["--ip-masq", "--kube-subnet-mgr"],
    ["--ip-masq", "--kube-subnet-mgr", "--healthz-port=8081"],
    ["--ip-masq", "--kube-subnet-mgr", "--iface=eth0", "--iface=eth1", "--public-ip=192.0.2.1", "-v=10"],
    ["--ip-masq", "--kube-subnet-mgr", "--iptables-resync=5", "--iptables-forward-rules=false", "--ip-blackhole-route"],
    ["-kube-subnet-mgr", "-kube-api-url", "https://192.0.2.1:6443", "-kubeconfig-file=/etc/kubeconfig"],
    [
        "--kube-subnet-mgr",
        "--set-node-network-unavailable=false",
        "--net-config-path",
        "/etc/kube-flannel/net-conf.json",
    ],
]


def parsed(*argv: str, **environ: str) -> Parsed[FlanneldOptions]:
    result = parse(list(argv), environ)
    assert isinstance(result, Parsed)
    return result


@pytest.mark.parametrize("argv", CHART, ids=" ".join)
def test_upstreams_arguments_choose_this_store(argv: list[str]) -> None:
    chosen = parsed(*argv, EVENT_QUEUE_DEPTH="5000", CONT_WHEN_CACHE_NOT_READY="false", NODE_NAME="n1")
    assert (chosen.store_name, chosen.store_class) == ("kubernetes", KubernetesStore)


def test_each_option_has_gos_name_and_variable() -> None:
    options = KubernetesOptions("https://192.0.2.1:6443", "/etc/kubeconfig", "example.com/blue", False)
    given = {
        "kube-api-url": options.api_url,
        "kubeconfig-file": options.kubeconfig,
        "kube-annotation-prefix": options.annotation_prefix,
        "set-node-network-unavailable": "false",
    }
    argv = [f"--{name}={value}" for name, value in given.items()]
    environ = {f"FLANNELD_{name.upper().replace('-', '_')}": value for name, value in given.items()}
    assert parsed("--kube-subnet-mgr", *argv).store_options == options
    assert parsed("--store", "kubernetes", **environ).store_options == options


def test_the_defaults_are_gos() -> None:
    assert parsed("--kube-subnet-mgr").store_options == KubernetesOptions("", "", "flannel.alpha.coreos.com", True)
