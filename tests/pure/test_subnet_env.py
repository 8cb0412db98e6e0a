"""subnet.env: what is written for the CNI plugin, and what is believed when it is read back."""

import os
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.lease import Family, IPNetwork
from flannel_core.subnet_env import SubnetEnv, parse, read, render, write


def env(*pairs: tuple[str, str], mtu: int = 1450, ip_masq: bool = True) -> SubnetEnv:
    networks = tuple(ip_network(network) for network, _ in pairs)
    return SubnetEnv(networks, tuple(ip_network(subnet) for _, subnet in pairs), mtu, ip_masq)


V4 = ("10.0.0.0/16", "10.0.43.0/24")
V6 = ("fc00::/48", "fc00:0:0:2b::/64")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            env(V4),
            "FLANNEL_NETWORK=10.0.0.0/16\nFLANNEL_SUBNET=10.0.43.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        ),
        (
            env(V6, mtu=1430, ip_masq=False),
            "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00:0:0:2b::1/64\n"
            "FLANNEL_MTU=1430\nFLANNEL_IPMASQ=false\n",
        ),
        (
            env(V4, V6),
            "FLANNEL_NETWORK=10.0.0.0/16\nFLANNEL_SUBNET=10.0.43.1/24\n"
            "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00:0:0:2b::1/64\n"
            "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        ),
    ],
    ids=["IPv4", "IPv6", "dual stack"],
)
def test_the_lines_are_gos_in_gos_order(content: SubnetEnv, text: str) -> None:
    assert render(content) == text.encode()
    assert parse(text.encode()) == content


def test_dotenv_allows_quotes_comments_and_export() -> None:
    text = """
        # written by hand
        export FLANNEL_NETWORK='10.0.0.0/16'
        FLANNEL_SUBNET = "10.0.43.1/24" # ours
        FLANNEL_MTU=1450 # bytes
        OTHER=anything = goes
        FLANNEL_IPMASQ=true
    """
    assert parse(text.encode()) == env(V4)


@pytest.mark.parametrize(
    ("text", "subnets"),
    [
        ("FLANNEL_SUBNET=10.0.43.1/24\n", ("10.0.43.0/24",)),
        ("FLANNEL_SUBNET=10.0.43.1/24,10.0.44.1/24\n", ()),
        ("FLANNEL_SUBNET=10.0.43.1/24,\n", ()),
        ("FLANNEL_SUBNET=\n", ()),
        ("", ()),
        ("FLANNEL_SUBNET=10.0.1.1/24\nFLANNEL_SUBNET=10.0.2.1/24", ("10.0.2.0/24",)),
    ],
)
def test_a_list_of_subnets_counts_as_none(text: str, subnets: tuple[str, ...]) -> None:
    assert parse(text.encode()).subnets == tuple(ip_network(subnet) for subnet in subnets)


def test_several_networks_may_be_listed() -> None:
    found = parse(b"FLANNEL_NETWORK=10.0.0.0/16,10.1.0.0/16\n")
    assert found.networks == (ip_network("10.0.0.0/16"), ip_network("10.1.0.0/16"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"garbage\n", "line 1 is not NAME=VALUE: 'garbage'"),
        (b"\n\x1b[31m\n", "line 2 is not NAME=VALUE: '\\x1b[31m'"),
        (b"FLANNEL_SUBNET='10.0.43.1/24\n", "line 1 is not NAME=VALUE: 'FLANNEL_SUBNET='10.0.43.1/24'"),
        (b"FLANNEL_SUBNET=10.0.43.1\n", "'10.0.43.1' is no address with a prefix length"),
        (b"FLANNEL_SUBNET=10.0.43.1/255.255.255.0\n", "'10.0.43.1/255.255.255.0' is no address with a prefix length"),
        (b"FLANNEL_SUBNET=10.0.43.300/24\n", "'10.0.43.300/24' is no address with a prefix length"),
        (b"FLANNEL_IPV6_SUBNET=fe80::1%eth0/64\n", "'fe80::1%eth0/64' is no address with a prefix length"),
        (b"FLANNEL_MTU=big\n", "FLANNEL_MTU is no number: 'big'"),
        (b"FLANNEL_SUBNET=\xff\n", "byte 15 is not UTF-8"),
        (b"#" * 65537, "is longer than 65536 bytes"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_broken_file_counts_as_absent_and_says_why(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "subnet.env"
    path.write_bytes(text)
    assert read(path) == (None, f"{path}: {reason}")


def test_a_file_that_is_not_there_is_no_problem(tmp_path: Path) -> None:
    assert read(tmp_path / "none" / "subnet.env") == (None, "")


def test_a_directory_in_its_place_is_named(tmp_path: Path) -> None:
    assert read(tmp_path) == (None, f"{tmp_path}: is not a file")


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "subnet.env")
    assert read(tmp_path / "subnet.env") == (None, f"{tmp_path}/subnet.env: is not a file")


def test_it_is_readable_by_all_whatever_the_umask_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "flannel" / "subnet.env"
    before = os.umask(0o077)
    try:
        write(path, env(V4))
        write(path, env(V4, V6))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert read(path) == (env(V4, V6), "")
    assert list(path.parent.iterdir()) == [path]


def networks(version: Family) -> st.SearchStrategy[IPNetwork]:
    return st.builds(
        lambda address, length: ip_network(f"{address}/{length}", strict=False),
        st.ip_addresses(v=version),
        st.integers(8, 30),
    )


@given(
    v4=st.none() | st.tuples(networks(4), networks(4)),
    v6=st.none() | st.tuples(networks(6), networks(6)),
    mtu=st.integers(0, 65536),
    ip_masq=st.booleans(),
)
def test_what_is_written_is_read_back(
    v4: tuple[IPNetwork, IPNetwork] | None, v6: tuple[IPNetwork, IPNetwork] | None, mtu: int, ip_masq: bool
) -> None:
    pairs = [pair for pair in (v4, v6) if pair is not None]
    content = SubnetEnv(tuple(n for n, _ in pairs), tuple(s for _, s in pairs), mtu, ip_masq)
    assert parse(render(content)) == content


@given(text=st.binary(max_size=100))
def test_any_bytes_are_read_or_refused_in_one_printable_line(text: bytes) -> None:
    try:
        parse(b"FLANNEL_SUBNET=" + text)
    except ValueError as error:
        reason = str(error)
        assert reason.isprintable()
