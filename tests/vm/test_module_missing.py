"""A kernel without a module that the backend needs."""

import platform
import subprocess
from pathlib import Path

import pytest

WITHHELD = Path("/etc/modprobe.d/withheld.conf")


@pytest.fixture(params=["vxlan", pytest.param("ipip", marks=pytest.mark.whole)])
def withheld(request):
    """A module that is not loaded and will not be, as if the kernel were without it."""
    WITHHELD.parent.mkdir(exist_ok=True)
    WITHHELD.write_text(f"install {request.param} /bin/false\n")
    subprocess.run(["modprobe", "--remove", request.param], check=True)
    yield request.param
    WITHHELD.unlink()


def test_the_status_and_the_log_name_module_package_and_command_and_the_agent_goes_on_once_it_is_there(lab, withheld):
    (host,) = lab.hosts(1, backend=withheld, started=False)
    host.start()
    said = f"this kernel has no {withheld}: `modprobe {withheld}`; if there is no such module"
    problem = lab.eventually(lambda: next((line for line in host.status().problems if said in line), None))
    assert f"linux-modules-extra-{platform.release()}" in problem
    assert said in host.log()
    assert not host.status().ready
    WITHHELD.write_text("")
    subprocess.run(["modprobe", withheld], check=True)
    lab.wait_until_ready()
