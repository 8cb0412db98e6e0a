"""What flanneld is asked: Go's options with their defaults, ours, and those of the store in use."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from flannel_core.errors import FlannelError, UsageError
from flannel_core.flanneld_options import Answer, FlanneldOptions, Parsed, parse, parse_store
from flannel_core.plugins import PluginMissing

GO_DEFAULTS: dict[str, object] = {
    "etcd_endpoints": "http://127.0.0.1:4001,http://127.0.0.1:2379",
    "etcd_prefix": "/coreos.com/network",
    **dict.fromkeys(("etcd_keyfile", "etcd_certfile", "etcd_cafile", "etcd_username", "etcd_password"), ""),
    "iface": (),
    "iface_regex": (),
    "iface_can_reach": "",
    "subnet_file": Path("/run/flannel/subnet.env"),
    "public_ip": None,
    "public_ipv6": None,
    "subnet_lease_renew_margin": 60,
    "ip_masq": False,
    "ip_masq_fully_random_disable": False,
    "kube_subnet_mgr": False,
    "kube_api_url": "",
    "kubeconfig_file": "",
    "kube_annotation_prefix": "flannel.alpha.coreos.com",
    "net_config_path": Path("/etc/kube-flannel/net-conf.json"),
    "set_node_network_unavailable": True,
    "healthz_ip": "0.0.0.0",
    "healthz_port": 0,
    "iptables_resync": 5,
    "iptables_forward_rules": True,
    "ip_blackhole_route": False,
}
OURS: dict[str, object] = {
    "store": None,
    "metrics": False,
    "dry_run": False,
    "release_lease_on_exit": False,
    "store_silence": 300,
    "removal_hold_off": 60,
    "set_sysctls": False,
    "log_format": "text",
    "ip_masq_exclude": (),
}
KLOG: dict[str, object] = {"verbosity": 0, "vmodule": "", "log_backtrace_at": ""}


def parsed(*words: str, **environ: str) -> Parsed[FlanneldOptions]:
    found = parse(words, {"FLANNELD_STORE": "filed"} | environ)
    assert isinstance(found, Parsed)
    return found


def options(*words: str, **environ: str) -> FlanneldOptions:
    return parsed(*words, **environ).options


def refused(*words: str, **environ: str) -> str:
    with pytest.raises(UsageError) as raised:
        parsed(*words, **environ)
    return str(raised.value)


def test_there_is_every_option_with_its_default_and_no_other() -> None:
    defaults = FlanneldOptions()
    found = {field: getattr(defaults, field) for field in FlanneldOptions.__struct_fields__}
    assert found == GO_DEFAULTS | OURS | KLOG


def test_a_usual_command_line(filestore: None) -> None:
    found = options(
        "-iface=eth1",
        "-iface",
        "eth2",
        "--iface-regex=^10[.]",
        "--public-ip=192.0.2.7",
        "--public-ipv6",
        "2001:db8::7",
        "-ip-masq",
        "--iptables-forward-rules=false",
        "--healthz-port=0x1f90",
        "-subnet-lease-renew-margin=1_439",
        "-v=10",
        "--log_backtrace_at=main.go:1",
    )
    assert (found.iface, found.iface_regex) == (("eth1", "eth2"), ("^10[.]",))
    assert (found.public_ip, found.public_ipv6) == (IPv4Address("192.0.2.7"), IPv6Address("2001:db8::7"))
    assert found.ip_masq
    assert not found.iptables_forward_rules
    assert (found.healthz_port, found.subnet_lease_renew_margin, found.verbosity) == (8080, 1439, 10)


def test_each_option_is_also_a_variable(filestore: None) -> None:
    found = options(FLANNELD_IFACE="eth1,eth2", FLANNELD_IP_MASQ="true", FLANNELD_PUBLIC_IP="192.0.2.7", FLANNELD_V="1")
    assert found.iface == ("eth1,eth2",)
    assert found.ip_masq
    assert (found.public_ip, found.verbosity) == (IPv4Address("192.0.2.7"), 1)


def test_what_the_user_gave_is_told_from_a_default(filestore: None) -> None:
    assert "net-config-path" not in parsed().given
    assert "net-config-path" in parsed("--net-config-path=/etc/kube-flannel/net-conf.json").given
    assert "net-config-path" in parsed(FLANNELD_NET_CONFIG_PATH="/x").given


@pytest.mark.parametrize("margin", ["0", "-1", "1440", "9223372036854775807"])
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_margin_that_no_lease_can_have_ends_with_gos_sentence(margin: str, by_variable: bool) -> None:
    words = [] if by_variable else [f"-subnet-lease-renew-margin={margin}"]
    environ = {"FLANNELD_SUBNET_LEASE_RENEW_MARGIN": margin} if by_variable else {}
    with pytest.raises(FlannelError) as raised:
        parse(words, environ)
    assert str(raised.value) == "Invalid subnet-lease-renew-margin option, out of acceptable range"
    assert raised.value.exit_code == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ip-masq", "false"], "write --ip-masq=false"),
        (["--publicip=192.0.2.1"], "did you mean --public-ip?"),
        (["--public-ip=192.0.2.300"], "--public-ip=192.0.2.300 does not fit: expected an IPv4 address"),
        (["--public-ip=2001:db8::1"], "expected an IPv4 address"),
        (["--public-ipv6=192.0.2.1"], "expected an IPv6 address"),
        (["--healthz-port=65536"], "expected an integer from 0 to 65535"),
        (["--iptables-resync=0"], "expected an integer of at least 1"),
        (["--log-format=xml"], "expected text or json"),
        (["--metrics"], "give one with --healthz-port"),
        (["start"], "unexpected 'start'"),
    ],
)
def test_a_mistake_is_a_usage_error(filestore: None, words: list[str], message: str) -> None:
    assert message in refused(*words)


def test_a_mistake_is_told_before_the_absence_of_the_default_store() -> None:
    for words in (["--stroe", "filed"], ["--healthz-port=x"], ["--ip-masq", "false"]):
        with pytest.raises(UsageError):
            parse(words, {})


def test_an_absent_store_is_told_before_its_options_are_unknown() -> None:
    with pytest.raises(PluginMissing, match="'filed'"):
        parse(["--store", "filed", "--filed-file", "/x"], {})


def test_the_store_is_etcd_unless_another_is_named(filestore: None) -> None:
    found = parse([], {})
    assert isinstance(found, Parsed)
    assert found.store_name == "etcd"
    with_nodes = parse(["--kube-subnet-mgr"], {})
    assert isinstance(with_nodes, Parsed)
    assert with_nodes.store_name == "kubernetes"
    with pytest.raises(PluginMissing, match="the store 'tablets'"):
        parse(["--store=tablets"], {})
    assert parsed("--store=filed").store_name == "filed"
    assert "exclude each other" in refused("--kube-subnet-mgr")


def test_the_options_of_the_store_in_use_are_read_with_the_others(filestore: None) -> None:
    found = parsed(
        "--filed-file",
        "/x/y",
        "--dry-run",
        "-filed-shared",
        "--filed-servers=a",
        "--filed-servers=b",
        "--filed-pause=0.5",
    )
    assert found.options.dry_run
    assert found.store_class.__name__ == "FileStore"
    assert found.store_options == found.store_class.Options(
        file=Path("/x/y"), shared=True, servers=("a", "b"), pause=0.5
    )


def test_the_options_of_a_store_are_variables_too(filestore: None) -> None:
    found: Any = parsed(FLANNELD_FILED_RETRIES="5", FLANNELD_FILED_FILE="/v").store_options
    assert (found.retries, found.file) == (5, Path("/v"))
    assert (
        refused(FLANNELD_FILED_RETRIES="10")
        == "FLANNELD_FILED_RETRIES=10 does not fit: expected an integer from 0 to 9"
    )


def test_an_option_of_the_core_and_of_the_store_is_one(filestore: None) -> None:
    found: Any = parsed("--kube-api-url=https://k8s")
    assert found.options.kube_api_url == found.store_options.api == "https://k8s"


def test_the_options_of_another_store_are_unknown(filestore: None) -> None:
    assert "did you mean --filed-file?" in refused("--filed-fil=/x")
    assert "unknown option --sqlite-file" in refused("--sqlite-file=/x")


@pytest.mark.parametrize("words", [["-version"], ["--version"], ["--version=true"], ["--version", "--store=nowhere"]])
def test_the_version_goes_to_stderr(words: list[str]) -> None:
    answer = parse(words, {})
    assert isinstance(answer, Answer)
    assert answer.to_stderr
    assert answer.text.split()[1] == "flannel-core"
    assert answer.text[0] == "v"
    assert answer.text[1].isdigit()


def test_a_variable_asks_for_neither_version_nor_help(filestore: None) -> None:
    assert options(FLANNELD_VERSION="true", FLANNELD_HELP="true") == options()


@pytest.mark.parametrize("words", [["-h"], ["-help"], ["--help"], ["--iface=x", "--help", "--nonsense"]])
def test_the_help_names_every_option_and_those_of_the_installed_stores(filestore: None, words: list[str]) -> None:
    answer = parse(words, {})
    assert isinstance(answer, Answer)
    assert not answer.to_stderr
    for field in (*GO_DEFAULTS, *OURS, "version"):
        assert f"\n  --{field.replace('_', '-')}" in answer.text
    assert "(default /run/flannel/subnet.env)" in answer.text
    assert "With --store filed:\n  --filed-file TEXT\n        where it lies (default /nowhere)\n" in answer.text
    assert answer.text.count("--kube-api-url ") == 1


def test_flannelctl_reads_the_store_and_nothing_of_the_agent(filestore: None) -> None:
    files: list[str] = []
    found = parse_store(["conf.json", "--store", "filed", "--filed-file=/x"], {}, operands=files)
    assert found.store_options == found.store_class.Options(file=Path("/x"))
    assert files == ["conf.json"]
    with pytest.raises(UsageError, match="unknown option --ip-masq"):
        parse_store(["--ip-masq", "--store=filed"], {})


def test_reading_the_options_imports_neither_a_heavy_library_nor_another_plugin() -> None:
    # A fresh interpreter: this one has imported everything already.
    code = """if True:
        import sys
        from flannel_core.flanneld_options import parse
        from flannel_core.plugins import PluginMissing
        try:
            parse(["--ip-masq"], {"FLANNELD_STORE": "nowhere"})
        except PluginMissing:
            pass
        print(*sys.modules)
    """
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "flannel_core.flanneld_options" in loaded
    assert not {m for m in loaded if m.startswith(("flannel_backend", "flannel_store", "flannel_core.flannelctl"))}
    assert not loaded & {"argparse", "cyclopts", "rich", "http.client", "pyroute2", "yaml"}


def test_prefixes_that_are_not_masqueraded_repeat_and_may_be_separated_by_commas(filestore: None) -> None:
    found = options("--ip-masq-exclude=10.1.0.0/16, fd00:1::/48", "--ip-masq-exclude", "192.0.2.1/32")
    assert [str(prefix) for prefix in found.excludes] == ["10.1.0.0/16", "fd00:1::/48", "192.0.2.1/32"]


@pytest.mark.parametrize("text", ["10.1.0.0/33", "10.1.1.1/16", "", "a\x1b[2J", "10.0.0.0/8,,10.1.0.0/16"])
def test_what_is_no_prefix_is_refused(filestore: None, text: str) -> None:
    told = refused(f"--ip-masq-exclude={text}")
    assert "expected a prefix such as 10.1.0.0/16 or fd00:1::/48" in told
    assert "\x1b" not in told


def test_a_lease_is_not_released_on_exit_where_the_store_takes_none_back(filestore: None) -> None:
    with pytest.raises(UsageError, match="--release-lease-on-exit does not go with --store=filed"):
        parse(["--store=filed", "--release-lease-on-exit"], {})
    assert parse(["--store=filed"], {"FLANNELD_RELEASE_LEASE_ON_EXIT": "false"})
    with pytest.raises(UsageError, match="--store=filed"):
        parse(["--store=filed"], {"FLANNELD_RELEASE_LEASE_ON_EXIT": "true"})
