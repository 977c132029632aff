"""`/openapi.json`: made from the route table, the handlers' docstrings and the models.

Nothing of the interface is written down here a second time; what is here is what the code of the
others knows only in its heart: how `wire.py` spells types, and what each guard asks for.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from types import UnionType
from typing import Any

from browsercloud.errors import SERVICE_ERRORS
from browsercloud.server.operations import Answer, JsonSchema, Parameter
from browsercloud.server.routes import Route
from browsercloud.server.schemas import Schemas
from browsercloud.server.trust import Opens
from browsercloud.wire import camel

_ID: JsonSchema = {"type": "string", "format": "uuid"}
_JSON = "application/json"

STATUS_OF: Mapping[str, int] = {
    **{code: kind.default_status for code, kind in SERVICE_ERRORS.items()},
    "forbidden": 403,
    "not_found": 404,
    "page_not_found": 404,
    "session_ended": 410,
    "too_large": 413,
    "upgrade_required": 426,
    "internal": 500,
    "browser_unresponsive": 502,
    "shutting_down": 503,
    "starting": 503,
}
"""Every code that an operation names, and its status."""

_Needs = Mapping[str, list[str]]
_HEADER_KEYS: tuple[_Needs, ...] = ({"key": []}, {"steelKey": []}, {"bearer": []}, {"basic": []})
_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "steelKey": {"type": "apiKey", "in": "header", "name": "steel-api-key"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "The key as the token."},
    "basic": {"type": "http", "scheme": "basic", "description": "The key as the password."},
    "token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "Opens one session only; it is part of the URLs that the server hands out.",
    },
    "keyInQuery": {
        "type": "apiKey",
        "in": "query",
        "name": "apiKey",
        "description": "A WebSocket may carry the key like this.",
    },
}

_ERROR = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {
        "message": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["code", "message", "requestId"],
            "properties": {
                "code": {"type": "string", "description": "For programs."},
                "message": {"type": "string", "description": "What is wrong, and what to do."},
                "requestId": {"type": "string", "description": "As in `X-Request-Id`."},
                "details": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["path", "reason"],
                        "properties": {"path": {"type": "string"}, "reason": {"type": "string"}},
                    },
                },
                "releaseReason": {"type": ["string", "null"]},
            },
        },
    },
}
_HEADERS = {
    "RequestId": {
        "description": "The request's id: the caller's own, or one that was made.",
        "schema": {"type": "string"},
    },
    "RetryAfter": {
        "description": "Seconds after which to ask again.",
        "schema": {"type": "integer", "minimum": 1},
    },
}


def describe(table: Iterable[Route], version: str) -> dict[str, Any]:
    """The document for this table, OpenAPI 3.1."""
    # WebDriver has a standard of its own, whose errors and statuses are not those of the rest.
    rows = [row for row in table if not row.w3c]
    schemas = Schemas()
    refusals: dict[str, Any] = {}
    # Bodies first: a model that is also read is as strict wherever it stands.
    bodies = {row.about.body: schemas.body(row.about.body) for row in rows if row.about.body}
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        path = re.sub(r"{(\w+)}", lambda name: f"{{{camel(name[1])}}}", row.path)
        operation = _operation(row, path, schemas, bodies)
        operation["responses"] |= _refusals(row, refusals)
        paths.setdefault(path, {})[row.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "browsercloud",
            "version": version,
            "description": "Isolated Chromium sessions. Durations are integer milliseconds, times "
            "are RFC 3339 in UTC. An unknown field or parameter is refused.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR, **schemas.components},
            "responses": refusals,
            "headers": _HEADERS,
            "securitySchemes": _SCHEMES,
        },
    }


def _operation(
    row: Route, path: str, schemas: Schemas, bodies: Mapping[type | UnionType, JsonSchema]
) -> dict[str, Any]:
    words = inspect.cleandoc(row.handler.__doc__ or "")
    summary, _, more = words.partition("\n\n")
    tag = row.handler.__module__.rpartition(".")[2]
    operation: dict[str, Any] = {
        "operationId": "_".join([row.method.lower(), *re.findall(r"\w+", path)])
        + ("_slash" if path.endswith("/") else ""),
        "tags": [tag],
        "summary": " ".join(summary.split()),
        "security": _security(row),
        "parameters": _parameters(row),
        "responses": {
            str(status): _answer(answer, schemas) for status, answer in row.about.answers.items()
        },
    }
    if more:
        operation["description"] = more
    if row.about.body is not None:
        content = {_JSON: {"schema": bodies[row.about.body]}}
        operation["requestBody"] = {"content": content, "required": _needed(bodies, row, schemas)}
    return operation


def _needed(bodies: Mapping[type | UnionType, JsonSchema], row: Route, schemas: Schemas) -> bool:
    """An empty body is an empty object, so it will do where no field is required."""
    if row.about.body is None:
        return False
    return bool(schemas.resolve(bodies[row.about.body]).get("required"))


def _security(row: Route) -> list[_Needs]:
    token: list[_Needs] = [{"token": []}] if row.opens is Opens.SESSION else []
    in_query: list[_Needs] = [{"keyInQuery": []}] if 101 in row.about.answers else []
    if row.opens is Opens.ANYONE:
        return [{}, *in_query] if in_query else []
    return [*_HEADER_KEYS, *token, *in_query]


def _parameters(row: Route) -> list[dict[str, Any]]:
    told = {parameter.name: parameter for parameter in row.about.path}
    names = [camel(name) for name in re.findall(r"{(\w+)}", row.path)]
    ids = {name: Parameter(name, "The id, a UUID.", _ID) for name in names}
    found = [_parameter((ids | told)[name], "path") for name in names]
    found += [_parameter(parameter, "query") for parameter in row.about.query]
    if row.about.labels is not None:
        found.append(_labels(row.about.labels))
    return found


def _parameter(parameter: Parameter, place: str) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": place,
        "required": place == "path" or parameter.required,
        "description": parameter.about,
        "schema": parameter.schema,
    }


def _labels(parameter: Parameter) -> dict[str, Any]:
    """Parameters of any name with a prefix: an object whose fields become parameters each."""
    schema = {
        "type": "object",
        "patternProperties": {f"^{re.escape(parameter.name)}": parameter.schema},
        "additionalProperties": False,
    }
    name = parameter.name.rstrip(".")
    told = _parameter(Parameter(name, parameter.about, schema), "query")
    return {**told, "style": "form", "explode": True}


def _refusals(row: Route, known: dict[str, Any]) -> dict[str, Any]:
    """What the row may answer instead, by status; each kind is described once, in *known*."""
    by_status: dict[int, list[str]] = {}
    for code in _codes(row):
        by_status.setdefault(STATUS_OF[code], []).append(code)
    found = {}
    for status, codes in sorted(by_status.items()):
        if status not in row.about.answers:
            name = "_or_".join(codes) + ("_page" if row.html else "")
            known[name] = _refusal(row, status, codes)
            found[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return found


def _codes(row: Route) -> list[str]:
    """What the route may answer besides what it is for; the usual ones follow from the row."""
    codes = ["invalid_request", "forbidden", "internal", *row.about.errors]
    if row.opens is not Opens.ANYONE:
        codes.append("not_authorized")
    if "{session_id}" in row.path:
        codes.append("session_not_found")
    if row.about.body is not None:
        codes.append("too_large")
    return list(dict.fromkeys(codes))


def _answer(answer: type | Answer, schemas: Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {"headers": _response_headers()}
    if not isinstance(answer, Answer):
        phrase = inspect.cleandoc(answer.__doc__ or "").partition("\n\n")[0]
        content: dict[str, Any] = {_JSON: {"schema": schemas.reply(answer)}}
        return found | {"description": phrase, "content": content}
    schema = answer.schema
    if answer.many is not None:
        schema = {"type": "array", "items": schemas.reply(answer.many)}
    if answer.media_type is not None:
        found["content"] = {answer.media_type: {"schema": schema}}
    for name, words in answer.headers.items():
        found["headers"][name] = {"description": words, "schema": {"type": "string"}}
    return found | {"description": answer.about}


def _refusal(row: Route, status: int, codes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in codes)}.",
        "headers": _response_headers(retry=status in (429, 503)),
    }
    if row.html:
        found["content"] = {"text/html": {"schema": {"type": "string"}}}
        return found
    code = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/Error"}, code]}
    found["content"] = {_JSON: {"schema": schema}}
    return found


def _response_headers(*, retry: bool = False) -> dict[str, Any]:
    names = {"X-Request-Id": "RequestId"} | ({"Retry-After": "RetryAfter"} if retry else {})
    return {name: {"$ref": f"#/components/headers/{kept}"} for name, kept in names.items()}
