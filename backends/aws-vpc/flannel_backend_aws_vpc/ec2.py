"""The EC2 API, as far as routes need it: boto3 in threads, its errors in words. boto3 is imported by the first call.

Actions: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html, error codes:
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from flannel_core import threads
from flannel_core.errors import FlannelError
from flannel_core.printable import printable

from .options import AwsVpcOptions

T = TypeVar("T")

CONNECT_SECONDS = 5
READ_SECONDS = 10
ATTEMPTS = 5
"""Of the SDK's standard mode: throttling, 5xx and lost connections are tried again with backoff and jitter."""
POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "ec2:DescribeInstances",
                    "ec2:DescribeRouteTables",
                    "ec2:CreateRoute",
                    "ec2:ReplaceRoute",
                    "ec2:DeleteRoute",
                    "ec2:ModifyNetworkInterfaceAttribute",
                ],
                "Resource": "*",
            }
        ],
    }
)
"""What the instance's role has to allow."""


class Ec2Error(FlannelError):
    """A call that failed: ``code`` is EC2's, "" where the call never got there. ``str(error)`` says what to do."""

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.code = code


class Ec2:
    """The API, with a client for each region. Every call raises Ec2Error."""

    def __init__(self, options: AwsVpcOptions) -> None:
        self._options = options
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    async def route_tables(
        self, region: str, filters: Mapping[str, Sequence[str]] = {}, *, ids: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """DescribeRouteTables. An id of which there is no table is an error, a filter that matches none is not."""
        wanted: dict[str, Any] = {"RouteTableIds": list(ids)} if ids else {}
        if filters:
            wanted["Filters"] = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
        return await self._pages(region, "describe_route_tables", "RouteTables", wanted)

    async def interfaces(self, region: str, instance: str) -> list[dict[str, Any]]:
        """The network interfaces that are attached to an instance, as DescribeInstances has them."""
        reservations = await self._pages(region, "describe_instances", "Reservations", {"InstanceIds": [instance]})
        return [
            interface
            for reservation in reservations
            for each in reservation["Instances"]
            for interface in each.get("NetworkInterfaces", ())
        ]

    async def call(self, region: str, operation: str, **arguments: Any) -> None:
        """Any other operation, by boto3's name of it."""
        await self._in_a_thread(region, operation, lambda client: getattr(client, operation)(**arguments))

    async def _pages(self, region: str, operation: str, key: str, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        def work(client: Any) -> list[dict[str, Any]]:
            return [item for page in client.get_paginator(operation).paginate(**wanted) for item in page[key]]

        return await self._in_a_thread(region, operation, work)

    async def _in_a_thread(self, region: str, operation: str, call: Callable[[Any], T]) -> T:
        def work() -> T:
            from botocore.exceptions import ClientError

            try:
                return call(self._client(region))
            except ClientError as error:
                details = error.response.get("Error", {})
                code = details.get("Code", "")
                raise Ec2Error(_explained(operation, region, code, details.get("Message", "")), code) from None
            except Exception as error:  # of any class: what a proxy answers with is a ResponseParserError
                raise Ec2Error(_unreached(operation, error)) from None

        return await threads.call(work)

    def _client(self, region: str) -> Any:
        with self._lock:
            if region not in self._clients:
                import boto3
                from botocore.config import Config

                session = boto3.Session(region_name=region, profile_name=self._options.profile or None)
                retries: Any = {"mode": "standard", "total_max_attempts": ATTEMPTS}
                config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=retries)
                endpoint = self._options.endpoint or None
                self._clients[region] = session.client("ec2", endpoint_url=endpoint, config=config)
            return self._clients[region]


def _action(operation: str) -> str:
    return "ec2:" + "".join(word.capitalize() for word in operation.split("_"))


def _explained(operation: str, region: str, code: str, message: str) -> str:
    action = _action(operation)
    # EC2 adds a long encoded message to a refusal, which means nothing without another permission.
    text = printable(re.sub(r"\s*Encoded authorization failure message:.*", "", message), 300)
    match code:
        case "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException":
            return f"{action} is not allowed ({text}); give the instance's role this policy: {POLICY}"
        case "RouteLimitExceeded":
            return (
                f'the route table is full ({text}); raise the quota "Routes per route table" of Amazon VPC, or remove '
                "routes that nobody needs"
            )
        case "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "AuthFailure" | "InvalidClientTokenId":
            return (
                f"{action}: the credentials are not accepted ({code}: {text}); compare this host's clock with the "
                "time, and renew the credentials where they are not the instance role's"
            )
        case "InvalidRouteTableID.NotFound":
            return f"{region} has no such route table ({text}); see Backend.RouteTableID and Backend.Region"
        case "InvalidInstanceID.NotFound":
            return f"{region} has no such instance ({text}); see Backend.Region and Backend.Profile"
        case _:
            return f"{action}: {code}: {text}"


def _unreached(operation: str, error: Exception) -> str:
    match type(error).__name__:
        case "NoCredentialsError" | "PartialCredentialsError" | "CredentialRetrievalError":
            return (
                "there are no AWS credentials: give the instance a role (an instance profile), or set Backend.Profile "
                "or the SDK's environment variables"
            )
        case "ProfileNotFound":
            return f"Backend.Profile: {printable(str(error), 200)}"
        case "ResponseParserError":
            said = printable(str(error), 160)
            return f"{_action(operation)}: what answers is not the EC2 API ({said}); see Backend.Endpoint"
        case _:
            return f"{_action(operation)}: {printable(str(error), 300)}"


def next_hop(route: Mapping[str, Any]) -> str:
    """What a route of DescribeRouteTables leads to: ``eni-...``, ``igw-...``, ``local``, ..."""
    hops = (
        value
        for key, value in route.items()
        if key.endswith(("Id", "Arn")) and not key.startswith("Destination") and key != "InstanceOwnerId" and value
    )
    return str(route.get("NetworkInterfaceId") or next(hops, "nothing"))


def destination(route: Mapping[str, Any]) -> str:
    """Its CIDR, or the prefix list's id."""
    keys = ("DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId")
    return next((str(route[key]) for key in keys if route.get(key)), "")
