"""The instance metadata service, version 2: which instance this is, and in which region.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
"""

from __future__ import annotations

import os

import msgspec

from flannel_core.errors import FlannelError
from flannel_core.printable import printable

ENDPOINTS = {"ipv4": "http://169.254.169.254", "ipv6": "http://[fd00:ec2::254]"}
ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
MODE_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"
"""Both as every AWS SDK reads them."""
TOKEN_SECONDS = 300
CONNECT_SECONDS = 1.0
READ_SECONDS = 2.0


class Identity(msgspec.Struct, frozen=True):
    """Who this host is to AWS."""

    instance: str
    region: str


def identity() -> Identity:
    """Blocks for a few milliseconds, or some seconds where nothing answers. Raises FlannelError with the cure."""
    mode = os.environ.get(MODE_VARIABLE, "").lower()
    service = _Service(os.environ.get(ENDPOINT_VARIABLE) or ENDPOINTS.get(mode, ENDPOINTS["ipv4"]))
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
    token = {"X-aws-ec2-metadata-token": service.ask("PUT", "/latest/api/token", lifetime)}
    return Identity(
        instance=service.ask("GET", "/latest/meta-data/instance-id", token),
        region=service.ask("GET", "/latest/meta-data/placement/region", token),
    )


class _Service:
    def __init__(self, endpoint: str) -> None:
        import urllib3  # boto3's own, and like it only there where this backend runs

        self._endpoint = endpoint.rstrip("/")
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._http = urllib3.PoolManager(timeout=timeout, retries=False)

    def ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        try:
            response = self._http.request(method, self._endpoint + path, headers=headers)
        except ReadTimeoutError as error:
            raise FlannelError(
                f"{self._endpoint}: the instance metadata service takes the connection and does not answer. Where "
                "flanneld runs in a container with a network of its own, the answer needs a hop limit of 2: aws ec2 "
                "modify-instance-metadata-options --instance-id ID --http-put-response-hop-limit 2"
            ) from error
        except HTTPError as error:
            raise FlannelError(
                f"{self._endpoint}: no instance metadata service ({_why(error)}): the aws-vpc backend runs on EC2 "
                f"instances whose metadata service can be reached; {ENDPOINT_VARIABLE} names another address of it"
            ) from error
        match response.status:
            case 200:
                return response.data.decode("utf-8", "replace").strip()
            case 403:
                raise FlannelError(
                    f"{self._endpoint}: the instance metadata service is switched off for this instance (403): aws ec2 "
                    "modify-instance-metadata-options --instance-id ID --http-endpoint enabled"
                )
            case status:
                said = printable(response.data.decode("utf-8", "replace"), 60)
                raise FlannelError(f"{self._endpoint}{path}: {status} {said}; is it the metadata service of EC2?")


def _why(error: Exception) -> str:
    cause = error.__cause__ or error.__context__
    return getattr(cause, "strerror", None) or "nothing answers"
