"""The promises that every backend makes, as far as values go: how they are found is told in test_finding.py."""

from __future__ import annotations

from flannel_backend_aws_vpc.aws_vpc import AwsVpcBackend, Found
from flannel_core.conformance.backends import BackendConformance
from flannel_core.host import Host


class OnAnInstance(AwsVpcBackend):
    async def _find(self, host: Host) -> Found:
        return Found("us-east-1", "i-1", "eni-1", ("rtb-1", "rtb-2"))


class TestAwsVpc(BackendConformance):
    backend = OnAnInstance
    config = {"Type": "aws-vpc"}  # noqa: RUF012
    forwards = False
