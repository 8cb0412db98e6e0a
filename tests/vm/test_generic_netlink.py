"""The two families of generic netlink that backends use."""

import subprocess

import pytest

from flannel_core.lab.network import in_a_throw_away_namespace, ip_batch
from flannel_core.netlink.generic import GenericSocket, NoFamily
from flannel_core.netlink.message import attribute, attribute_text, attribute_u8, text, u16_network
from flannel_core.netlink.socket import NetlinkError

FOU_CMD_ADD, FOU_CMD_DEL, FOU_CMD_GET = 1, 2, 3  # linux/fou.h
FOU_ATTR_PORT, FOU_ATTR_AF, FOU_ATTR_IPPROTO, FOU_ATTR_TYPE = 1, 2, 3, 4
WG_CMD_GET_DEVICE = 0  # linux/wireguard.h
WGDEVICE_A_IFNAME, WGDEVICE_A_LISTEN_PORT = 2, 6

PORT = attribute(FOU_ATTR_PORT, (8285).to_bytes(2)) + attribute_u8(FOU_ATTR_AF, 2)
IPIP = attribute_u8(FOU_ATTR_IPPROTO, 4) + attribute_u8(FOU_ATTR_TYPE, 1)


def fou_ports(fou):
    return [u16_network(answer[FOU_ATTR_PORT]) for answer in fou.dump(FOU_CMD_GET)]


def test_a_fou_port_is_opened_listed_and_closed():
    def check():
        with GenericSocket("fou") as fou:
            assert fou_ports(fou) == []
            fou.request(FOU_CMD_ADD, PORT + IPIP)
            assert fou_ports(fou) == [8285]
            with pytest.raises(NetlinkError, match="in use"):
                fou.request(FOU_CMD_ADD, PORT + IPIP)
            fou.request(FOU_CMD_DEL, PORT)
            assert fou_ports(fou) == []

    subprocess.run(["modprobe", "fou"], check=True)
    in_a_throw_away_namespace(check)


def test_the_module_fou_has_to_be_loaded_by_somebody():
    subprocess.run(["modprobe", "--remove", "fou"], check=True)
    with pytest.raises(NoFamily, match="`modprobe fou`"):
        GenericSocket("fou")


def test_a_wireguard_device_tells_of_itself():
    def check():
        ip_batch(["link add wg0 type wireguard"])
        with GenericSocket("wireguard") as wireguard:
            (device,) = wireguard.dump(WG_CMD_GET_DEVICE, attribute_text(WGDEVICE_A_IFNAME, "wg0"))
        assert text(device[WGDEVICE_A_IFNAME]) == "wg0"
        assert device[WGDEVICE_A_LISTEN_PORT] == bytes(2)

    in_a_throw_away_namespace(check)
