"""What goes wrong ends with the specification's error object, and nothing stays behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import pytest

from flannel_cni import delegate, plugin
from flannel_cni.protocol import Call, CniError

POD_LOG = "Check the flannel pod log for this node"


def nothing_is_left(node: Any) -> bool:
    return (node.noted(), node.leased()) == ([], [])


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (b"", 6, "error unmarshall network config: "),
        (b"{", 6, "error unmarshall network config: "),
        (b"[1]", 6, "error unmarshall network config: it is a list, not an object"),
        (b'{"name": "podnet", "mtu": NaN}', 6, "error unmarshall network config: NaN is no JSON"),
        (b'{"name": "\xff"}', 6, "error unmarshall network config: 'utf-8' codec can't decode byte 0xff"),
        (b'{"name": ' + b"[" * 100_000, 6, "error unmarshall network config: it is nested too deeply"),
        (b'{"name": 5}', 6, "error unmarshall network config: 'name' is a number, not a string"),
        (b'{"name": "podnet", "cniVersion": 1}', 6, "'cniVersion' is a number, not a string"),
        (b"{}", 7, "missing network name"),
        (b'{"name": "../podnet"}', 7, "invalid characters found in network name"),
        (b'{"name": "podnet\\n"}', 7, "invalid characters found in network name"),
        (b'{"name": "podnet", "cniVersion": "2.0.0"}', 1, "incompatible CNI versions"),
        (b'{"name": "podnet", "delegate": []}', 999, "failed to load netconf: 'delegate' is a list, not an object"),
        (b'{"name": "podnet", "subnetFile": {}}', 999, "'subnetFile' is an object, not a string"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_malformed_configuration(node: Any, text: bytes, code: int, words: str) -> None:
    node.container("c1")
    found, message = node.call("ADD", config=text).error
    assert found == code
    assert words in message
    assert nothing_is_left(node)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"delegate": {"type": 5}}, "'delegate' dictionary, if present, must have (string) 'type' field"),
        ({"delegate": {"name": "a"}}, "'delegate' dictionary must not have 'name' field, it'll be set by flannel"),
        ({"delegate": {"ipam": {}}}, "'delegate' dictionary must not have 'ipam' field, it'll be set by flannel"),
        (
            {"delegate": {"type": "flannel"}},
            "'delegate' dictionary has the type 'flannel', which is this plugin itself",
        ),
        ({"delegate": {"type": "../bin/bridge"}}, "failed to delegate add: invalid plugin name: ../bin/bridge"),
        ({"delegate": {"type": ""}}, "failed to delegate add: no plugin name provided"),
        ({"delegate": {"type": "gone"}}, 'failed to delegate add: failed to find plugin "gone" in path ['),
        ({"ipam": {"type": None}}, "failed to assemble Delegate IPAM: 'type' is null, not a string"),
        ({"ipam": {"routes": [{"dst": "10.0.0.0"}]}}, "failed to parse ipam.routes: invalid CIDR address: 10.0.0.0"),
        ({"ipam": {"routes": {}}}, "failed to parse ipam.routes: it is an object, not a list"),
        ({"ipam": {"routes": 5}}, "failed to parse ipam.routes: it is a number, not a list"),
    ],
    ids=repr,
)
def test_a_delegate_that_cannot_be(node: Any, keys: dict[str, Any], words: str) -> None:
    code, message = node.add(**keys).error
    assert code == 999
    assert words in message
    assert nothing_is_left(node)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ('echo \'{"code": 11, "msg": "not now", "details": "later"}\'; exit 1', (11, "not now")),
        ("echo oh no >&2; exit 1", (999, "netplugin failed: oh no\\n")),
        ("exit 3", (999, "netplugin failed with no error message: exit status 3")),
        ("kill -9 $$", (999, "netplugin failed with no error message: signal: 9")),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_delegate_that_fails(node: Any, script: str, error: tuple[int, str]) -> None:
    node.fake("failing", f'test "$CNI_COMMAND" = DEL && exit 0; {script}')
    assert node.add(delegate={"type": "failing"}).error == error
    assert nothing_is_left(node)


def test_a_delegates_details_come_through(node: Any) -> None:
    node.fake("failing", 'echo \'{"code": 11, "msg": "not now", "details": "later"}\'; exit 1')
    answer = node.add(delegate={"type": "failing"})
    assert answer.out == b'{\n    "code": 11,\n    "msg": "not now",\n    "details": "later"\n}'


@pytest.mark.parametrize("answer", ["", "no json", "[]", "null"])
def test_a_delegate_that_succeeds_and_answers_nonsense_is_undone(node: Any, answer: str) -> None:
    node.fake("strange", f'echo "$CNI_COMMAND" >> {node.directory}/commands; echo "{answer}"')
    code, message = node.add(delegate={"type": "strange"}).error
    assert code == 999
    assert "strange succeeded, but its result cannot be read" in message
    assert (node.directory / "commands").read_text().split() == ["ADD", "DEL"]
    assert nothing_is_left(node)


def test_a_delegate_that_cannot_be_started(node: Any) -> None:
    node.fake("locked", "exit 0")
    (node.bin / "locked").chmod(0o644)
    code, message = node.add(delegate={"type": "locked"}).error
    assert code == 999
    assert message == f"{node.bin}/locked cannot be started: Permission denied"


def test_what_a_failed_add_took_is_given_back(node: Any) -> None:
    """An address from the real host-local, by a delegate that fails after it."""
    node.fake(
        "halfway",
        f'text=$(cat); test "$CNI_COMMAND" = ADD || exec {node.bin}/bridge <<EOF\n$text\nEOF\n'
        f"{node.bin}/bridge > /dev/null <<EOF\n$text\nEOF\nexit 1",
    )
    answer = node.add(delegate={"type": "halfway"})
    assert answer.error == (999, "netplugin failed with no error message: exit status 1")
    assert nothing_is_left(node)
    assert node.devices() == {"cni0"}


def test_what_cannot_be_given_back_is_left_to_the_runtimes_del(node: Any) -> None:
    node.fake("failing", f"test -e {node.directory}/cured && exit 0; exit 1")
    answer = node.add(delegate={"type": "failing"})
    assert "what the failed ADD left is left to a DEL" in answer.said
    assert node.call("DEL", delegate={"type": "failing"}).code == 1
    assert node.noted() == ["c1", "c1:podnet:eth0"], "kept for the next DEL"
    (node.directory / "cured").touch()
    assert node.call("DEL").code == 0
    assert nothing_is_left(node)


def test_a_delegate_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    program = tmp_path / "hanging"
    program.write_text(f"#!/bin/sh\nsleep 1000 & echo $! > {tmp_path}/child; wait\n")
    program.chmod(0o755)
    with pytest.raises(CniError, match=r"^hanging did not end within 0\.5 s, and was killed$"):
        delegate.call(program, b"{}", {"PATH": os.environ["PATH"]}, 0.5)
    child = (tmp_path / "child").read_text().strip()
    deadline = time.monotonic() + 5
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(child)


def _runs(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_add_whose_delegate_hangs_leaves_nothing(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegate, "LONGEST_SECONDS", 0.5)
    node.fake("hanging", f'echo "$CNI_COMMAND" >> {node.directory}/commands; test "$CNI_COMMAND" = DEL || sleep 1000')
    config = node.config(delegate={"type": "hanging"})
    call = Call("ADD", config, "c1", "eth0", str(node.container("c1")), paths=(str(node.bin),))
    environment = {"CNI_COMMAND": "ADD", "PATH": os.environ["PATH"]}
    with pytest.raises(CniError, match=r"^hanging did not end within 0\.5 s, and was killed$"):
        plugin.add(call, environment)
    assert (node.directory / "commands").read_text().split() == ["ADD", "DEL"]
    assert nothing_is_left(node)


def test_a_delegate_that_somebody_is_writing_to_is_waited_for(tmp_path: Path) -> None:
    program = tmp_path / "arriving"
    shutil.copy("/bin/true", program)
    writing = program.open("r+b")
    with pytest.raises(OSError, match="Text file busy"):
        subprocess.run([program], check=False)
    closing = Timer(0.2, writing.close)
    closing.start()
    assert delegate.call(program, b"{}", {}) == b""
    closing.join()


def test_state_that_is_no_json_is_told_anew(node: Any) -> None:
    node.add()
    (node.data / "c1:podnet:eth0").write_text("{half")
    assert node.call("DEL").code == 0
    assert nothing_is_left(node)


def test_state_that_is_no_json_and_no_subnet_to_tell_it_anew(node: Any) -> None:
    node.add()
    (node.data / "c1:podnet:eth0").write_text("{half")
    node.subnet_env.unlink()
    code, message = node.call("DEL").error
    assert code == 6
    assert message.startswith(f"{node.data}/c1:podnet:eth0 cannot be read (")
    assert node.leased() == ["10.5.43.2"], "and a later DEL can give it back"


def test_state_that_cannot_be_read(node: Any) -> None:
    (node.data / "c1:podnet:eth0").mkdir(parents=True)
    assert node.call("DEL").error == (5, f"{node.data}/c1:podnet:eth0: Is a directory")


def test_state_that_cannot_be_written(node: Any) -> None:
    node.data.write_text("in the way")
    code, _ = node.add().error
    assert code == 5
    assert node.leased() == []


@pytest.mark.parametrize("container", ["../../etc/passwd", "a/b", ".hidden", "a b", "a:b", "a\n", "-x", "é"])
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_a_hostile_container(node: Any, command: str, container: str) -> None:
    answer = node.call(command, environment={"CNI_CONTAINERID": container})
    assert answer.error == (4, "invalid characters in containerID")
    assert answer.json["details"] == container
    assert nothing_is_left(node)


def test_a_container_whose_name_is_too_long_for_a_file(node: Any) -> None:
    node.container("c1")
    code, message = node.call("ADD", environment={"CNI_CONTAINERID": "a" * 300}).error
    assert code == 5
    assert "File name too long" in message
    assert node.leased() == []


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_the_hosts_own_namespace_is_not_a_containers(node: Any, command: str) -> None:
    own = {"CNI_NETNS": f"/run/netns/{node.namespace}"}
    assert node.call(command, environment=own).error == (
        8,
        "plugin's netns and netns from CNI_NETNS should not be the same",
    )
    assert nothing_is_left(node)


def without(key: str, text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(key))


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("FLANNEL_NETWORK", "FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK"),
        ("FLANNEL_SUBNET", "FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET"),
        ("FLANNEL_MTU", "FLANNEL_MTU"),
        ("FLANNEL_IPMASQ", "FLANNEL_IPMASQ"),
        (
            "FLANNEL",
            "FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ",
        ),
    ],
)
def test_a_subnet_env_that_is_half_there(node: Any, missing: str, named: str) -> None:
    path = node.subnet_env
    path.write_text(without(missing, path.read_text()))
    words = f"failed to load flannel 'subnet.env' file: {path} is missing {named}. {POD_LOG}."
    assert node.add().error == (999, words)
    assert node.call("STATUS", cniVersion="1.1.0").error == (50, words)
    assert nothing_is_left(node)


def test_no_subnet_env_and_no_agent(node: Any) -> None:
    node.subnet_env.unlink()
    start = f"failed to load flannel 'subnet.env' file: open {node.subnet_env}: no such file or directory. "
    assert node.add().error == (999, f"{start}No flanneld answers at {node.directory}/flanneld.sock. {POD_LOG}.")


def test_an_agent_that_does_not_answer_in_its_own_words(node: Any) -> None:
    node.subnet_env.unlink()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(node.directory / "flanneld.sock"))
    server.listen()

    def serve() -> None:
        client, _ = server.accept()
        with client:
            client.recv(1000)
            client.sendall(b"HTTP/1.1 500 Oh\r\n\r\nno")

    with server:
        thread = Thread(target=serve)
        thread.start()
        _, message = node.add().error
        thread.join()
    assert (
        f"flanneld on this node cannot be asked ({node.directory}/flanneld.sock: it answers HTTP/1.1 500 Oh)" in message
    )


def test_a_runtime_that_listens_to_nothing_but_the_answer(node: Any) -> None:
    """Standard error is closed, the delegate's too."""
    node.container("c1")
    done = subprocess.run(
        ["ip", "netns", "exec", node.namespace, "sh", "-c", f"exec {node.bin}/flannel 2>&-"],
        env={
            **{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": str(node.container("c1"))},
            **{"CNI_IFNAME": "eth0", "CNI_PATH": str(node.bin), "PATH": os.environ["PATH"]},
        },
        input=json.dumps(node.config()).encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["ips"][0]["address"] == "10.5.43.2/24"


def test_a_mistake_of_the_plugin_itself_is_an_error_object_too(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def fail(*_: object) -> bytes:
        raise ZeroDivisionError("oops")

    monkeypatch.setitem(plugin.COMMANDS, "VERSION", fail)
    monkeypatch.setenv("CNI_COMMAND", "VERSION")
    assert plugin.main() == 1
    error = json.loads(capfdbinary.readouterr().out)
    assert error["msg"] == "a mistake of the plugin itself, please report it: ZeroDivisionError: oops"
    assert (error["code"], error["details"].split(":")[0]) == (999, __file__)
