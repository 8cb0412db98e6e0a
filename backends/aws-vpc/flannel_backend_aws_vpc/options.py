"""The keys of ``Backend`` for type aws-vpc."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec


class AwsVpcOptions(msgspec.Struct, frozen=True):
    """None of them is needed on an instance whose role may do what the backend does."""

    route_table_id: Annotated[
        str | list[str],
        msgspec.Meta(description="the route table or tables; none: the subnet's, else the VPC's main one"),
    ] = msgspec.field(default="", name="RouteTableID")
    region: Annotated[str, msgspec.Meta(description="none: the instance's own")] = msgspec.field(
        default="", name="Region"
    )
    profile: Annotated[str, msgspec.Meta(description="a profile of the AWS SDK's configuration")] = msgspec.field(
        default="", name="Profile"
    )
    endpoint: Annotated[str, msgspec.Meta(description="URL of the EC2 API; none: the region's own")] = msgspec.field(
        default="", name="Endpoint"
    )
    check_interval: Annotated[
        int, msgspec.Meta(ge=1, le=86_400, description="seconds between two looks at the tables, give or take a tenth")
    ] = msgspec.field(default=180, name="CheckInterval")

    def __post_init__(self) -> None:
        if self.endpoint and not re.match(r"https?://[^/\s]+", self.endpoint):
            raise ValueError(f"Endpoint is {self.endpoint!r}, and a URL is wanted, https://ec2.REGION.amazonaws.com")

    @property
    def tables(self) -> tuple[str, ...]:
        """Those that are named, each once."""
        given = self.route_table_id
        return tuple(dict.fromkeys([given] if isinstance(given, str) else given)) if given else ()
