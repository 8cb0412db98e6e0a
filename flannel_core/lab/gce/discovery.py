"""What a discovery document says of requests and answers: https://developers.google.com/discovery/v1/reference/apis."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

INTEGERS = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1)}
INTEGERS64 = {"int64": (-(2**63), 2**63 - 1), "uint64": (0, 2**64 - 1)}
"""JSON has them as strings."""
BOOLEANS = {"true": True, "false": False}

Json = Mapping[str, Any]


class Method(msgspec.Struct, frozen=True):
    """One of the API: ``name`` is its id without the API's (``routes.insert``), ``path`` matches what follows the
    document's ``servicePath``."""

    name: str
    verb: str
    path: re.Pattern[str]
    parameters: dict[str, Any]
    request: dict[str, Any] | None
    response: dict[str, Any] | None

    @property
    def is_write(self) -> bool:
        return self.verb != "GET"


class Discovery:
    """All methods of a document, and what of a request or an answer is not as the document has it."""

    def __init__(self, document: Json) -> None:
        self.api = f"{document['name']} {document['version']} {document['revision']}"
        self.service_path: str = "/" + document["servicePath"]
        self._schemas: Json = document["schemas"]
        self._of_all: Json = document["parameters"]
        self._methods = list(_methods(document))

    def find(self, verb: str, path: str) -> tuple[Method, dict[str, str]] | None:
        """The method for a path below ``service_path``, and the parameters in it. None: there is none."""
        for method in self._methods:
            if method.verb == verb and (found := method.path.fullmatch(path)):
                return method, found.groupdict()
        return None

    def request_faults(
        self, method: Method, path: Mapping[str, str], query: Mapping[str, Sequence[str]], body: Any
    ) -> list[str]:
        """``body`` is the decoded JSON, None for an empty one."""
        faults: list[str] = []
        for name, schema in method.parameters.items():
            given = [path[name]] if name in path else query.get(name, [])
            if not given and schema.get("required"):
                faults.append(f"parameter {name} is missing")
        for name, text in path.items():
            faults += self._faults(text, method.parameters[name], f"parameter {name}", "")
        for name, texts in query.items():
            known = method.parameters.get(name) or self._of_all.get(name)
            if known is None or name in path or known.get("location") == "path":
                faults.append(f"parameter {name} is unknown")
                continue
            if len(texts) > 1 and not known.get("repeated"):
                faults.append(f"parameter {name} is given {len(texts)} times")
            for text in texts:
                faults += self._faults(_typed(text, known), known, f"parameter {name}", "")
        if method.request is None:
            faults += ["there is a body, and none is wanted"] if body is not None else []
        else:
            faults += self._faults(body, method.request, "body", f"compute.{method.name}")
        return faults

    def answer_faults(self, method: Method, answer: Any) -> list[str]:
        return list(self._faults(answer, method.response or {}, "answer", ""))

    def _faults(self, value: Any, schema: Json, where: str, required_by: str) -> Iterator[str]:
        """``required_by`` is the method that a request's body is for, "" where nothing is required and what is read
        only may be there."""
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"]]
        match schema.get("type"):
            case "object":
                yield from self._object_faults(value, schema, where, required_by)
            case "array":
                if not isinstance(value, list):
                    yield f"{where} is {value!r}, no array"
                    return
                for number, item in enumerate(value):
                    yield from self._faults(item, schema["items"], f"{where}[{number}]", required_by)
            case "string":
                yield from _string_faults(value, schema, where)
            case "integer":
                low, high = INTEGERS[schema["format"]]
                if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                    yield f"{where} is {value!r}, no {schema['format']}"
            case "number":
                if not isinstance(value, int | float) or isinstance(value, bool):
                    yield f"{where} is {value!r}, no number"
            case "boolean":
                if not isinstance(value, bool):
                    yield f"{where} is {value!r}, no boolean"

    def _object_faults(self, value: Any, schema: Json, where: str, required_by: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where} is {value!r}, no object"
            return
        properties: Json = schema.get("properties", {})
        for name, wanted in properties.items():
            if required_by and required_by in wanted.get("annotations", {}).get("required", ()) and name not in value:
                yield f"{where}.{name} is missing"
        for name, item in value.items():
            known = properties.get(name, schema.get("additionalProperties"))
            if known is None:
                yield f"{where}.{name} is unknown"
            elif required_by and known.get("readOnly"):
                yield f"{where}.{name} is read only"
            else:
                yield from self._faults(item, known, f"{where}.{name}", required_by)


def shipped_document() -> dict[str, Any]:
    """The one of google-api-python-client for compute, version 1: 5 MB."""
    from googleapiclient.discovery_cache import get_static_doc

    return dict(json.loads(get_static_doc("compute", "v1")))


def _methods(node: Json) -> Iterator[Method]:
    for method in node.get("methods", {}).values():
        path = re.sub(r"\\{\\?\+?(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(method["path"]))
        yield Method(
            method["id"].partition(".")[2],
            method["httpMethod"],
            re.compile(path),
            method.get("parameters", {}),
            method.get("request"),
            method.get("response"),
        )
    for resource in node.get("resources", {}).values():
        yield from _methods(resource)


def _typed(text: str, schema: Json) -> Any:
    """A parameter's value; what does not read as its type stays text, which is a fault then."""
    match schema["type"]:
        case "integer":
            return int(text) if re.fullmatch(r"-?\d+", text) else text
        case "boolean":
            return BOOLEANS.get(text, text)
        case _:
            return text


def _string_faults(value: Any, schema: Json, where: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{where} is {value!r}, no string"
        return
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        yield f"{where} is {value!r}, which does not match {schema['pattern']}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {value!r}, none of {', '.join(schema['enum'])}"
    if bounds := INTEGERS64.get(schema.get("format", "")):
        low, high = bounds
        if not re.fullmatch(r"-?\d+", value) or not low <= int(value) <= high:
            yield f"{where} is {value!r}, no {schema['format']}"
