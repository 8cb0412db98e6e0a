"""The virtual machine as a library. What runs inside it is tested in tests/vm."""

import os
from pathlib import Path

import pytest

from flannel_core.lab import LabError, vm, vm_kernel


def standing():
    """The processes and directories of this process's machines."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return children, list(vm.RUNNING.iterdir())


def test_a_command_runs_on_another_kernel_with_the_same_files_and_one_that_hangs_is_ended_with_the_machine():
    before = standing()
    machine = vm.VirtualMachine()
    with machine:
        done = machine.run(["sh", "-c", "uname -r; cat \"$0\"; echo 'to stderr' >&2; exit 3", __file__], within=60)
        assert done.status == 3
        assert done.stderr == "to stderr\n"
        release, _, file = done.stdout.partition("\n")
        assert release != os.uname().release
        assert file == Path(__file__).read_text()
        assert machine.run(["env", "ONE=a  b", "printenv", "ONE"], within=60).stdout == "a  b\n"
        assert machine.run(["touch", f"{__file__}.made"], within=60).status == 0
        assert machine.run(["ls", f"{__file__}.made"], within=60).status == 0
        with pytest.raises(LabError, match=r"cat /dev/zero > /dev/null.* did not end within 1 s(.|\n)*its console:"):
            machine.run(["sh", "-c", "cat /dev/zero > /dev/null"], within=1)
    assert not Path(f"{__file__}.made").exists()
    assert standing() == before


def test_what_a_killed_process_left_behind_is_removed_by_the_next():
    left = vm.RUNNING / f"{os.getpid()}-1-abcdef"
    left.mkdir(parents=True)
    with vm.own_directory() as directory:
        assert directory.exists()
        assert not left.exists()
    assert not directory.exists()


def test_what_is_missing_is_named_with_the_packages_that_hold_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LabError) as raised, vm.VirtualMachine():
        pass
    said = str(raised.value)
    assert "qemu-system-x86_64" in said
    assert "`apt-get install kmod qemu-system-x86 util-linux`" in said


def test_a_guest_that_dies_is_told_with_its_console():
    with (
        vm.VirtualMachine() as machine,
        pytest.raises(LabError, match=r"the virtual machine is gone(.|\n)*its console"),
    ):
        machine.run(["sh", "-c", "echo c > /proc/sysrq-trigger"], within=60)


def test_without_apt_and_without_a_kernel_the_reason_says_where_it_has_to_be(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LabError, match=f"has no apt: unpack .* into {tmp_path}/linux-image-VERSION"):
        vm_kernel.cached_kernel(tmp_path)
