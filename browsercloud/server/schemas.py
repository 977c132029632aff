"""The models as JSON Schema, spelled as `wire.py` reads and writes them."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import re
import textwrap
import types
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from itertools import pairwise
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs

from browsercloud import places
from browsercloud.bounds import Bounded
from browsercloud.context import BY_ORIGIN, DERIVED, ENDPOINT, Cookie, SessionContext
from browsercloud.models import CreateRequest, Session
from browsercloud.options import MAX_TIMEOUT, Adapter, Browser, Seconds, SessionOptions
from browsercloud.server.operations import JsonSchema
from browsercloud.stealth import Stealth
from browsercloud.wanted import Coordinates, Device, GeoLocation
from browsercloud.wire import ASKS_FOR_NOTHING, CAPTCHAS, STEEL_FACTS, camel, dump

_PLAIN: Mapping[Any, JsonSchema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Seconds: {"type": "integer", "format": "int64"},
    datetime: {"type": "string", "format": "date-time"},
    Any: {},
}
_PLACE = "#/components/schemas/"
_UUID = {"type": ["string", "null"], "format": "uuid"}
_THE_CALLERS = {
    "sessionId": {**_UUID, "description": "The caller's choice, so that asking again is safe."},
    "leaseId": {**_UUID, "description": "It ends with this lease."},
}
_IDLE_IN_SECONDS = {
    "type": ["number", "null"],
    "minimum": 0.001,
    "maximum": MAX_TIMEOUT,
    "description": "`inactivityTimeout` in seconds; give one of the two.",
}
_IS_SELENIUM = {
    "type": ["boolean", "null"],
    "description": "`true` is `adapter` `selenium`; `false` asks for nothing.",
}
_OTHER_ADAPTERS = [str(each) for each in Adapter if each is not Adapter.SELENIUM]
_SELENIUM_TWICE = {"isSelenium": {"const": True}, "adapter": {"enum": _OTHER_ADAPTERS}}
_NO_WINDOW = {"browser": {"const": str(Browser.HEADLESS_SHELL)}, "headless": {"const": False}}
_BELONGS_SOMEWHERE = [
    {"required": [name], "properties": {name: {"type": "string"}}} for name in ("domain", "url")
]
"""A cookie has one of them."""

_FOLLOWS = {"description": "As browsers list it; follows from the others, and is not looked at."}

_IDLE_TWICE = {"idleTimeout": {"type": "number"}, "inactivityTimeout": {"type": "integer"}}
_IMPOSSIBLE = {
    "anyOf": [
        {"required": list(rule), "properties": rule}
        for rule in (_NO_WINDOW, _IDLE_TWICE, _SELENIUM_TWICE)
    ]
}
"""What `SessionOptions` and `read_create` refuse though each field by itself is good."""


class Schemas:
    """Collects the models that were asked for, each under its name in `components`."""

    def __init__(self) -> None:
        self.components: dict[str, dict[str, Any]] = {}

    def body(self, kind: type | types.UnionType) -> JsonSchema:
        """A model that is read: an unknown field is refused, one with a default may be missing."""
        if isinstance(kind, types.UnionType):
            return {"anyOf": [self._model(each, read=True) for each in get_args(kind)]}
        if kind is CreateRequest:
            return self._create()
        return self._model(kind, read=True)

    def reply(self, kind: type) -> JsonSchema:
        """A model that is written: every field is there."""
        return self._model(kind, read=False)

    def resolve(self, schema: JsonSchema) -> JsonSchema:
        """What a reference stands for; for one of several, what all of them require."""
        if "anyOf" in schema:
            required = [set(self.resolve(each).get("required", ())) for each in schema["anyOf"]]
            return {"required": sorted(set.intersection(*required))}
        return self.components[str(schema["$ref"]).removeprefix(_PLACE)]

    def _create(self) -> JsonSchema:
        """The ids beside the options; a field that is null counts as absent."""
        options = self._fields(SessionOptions, read=True)
        fields = {name: _or_null(schema) for name, schema in options["properties"].items()}
        steel = {name: _nothing(values) for name, values in ASKS_FOR_NOTHING.items()}
        properties = {
            **_THE_CALLERS,
            **fields,
            "idleTimeout": _IDLE_IN_SECONDS,
            "isSelenium": _IS_SELENIUM,
            **steel,
        }
        rules = {"properties": properties, "not": _IMPOSSIBLE}
        self.components[CreateRequest.__name__] = options | rules
        return {"$ref": _PLACE + CreateRequest.__name__}

    def _model(self, kind: type, *, read: bool) -> JsonSchema:
        name = kind.__name__
        if name not in self.components:
            self.components[name] = {}  # before its fields, which might hold it again
            self.components[name] = self._fields(kind, read=read)
        return {"$ref": _PLACE + name}

    def _fields(self, kind: type, *, read: bool) -> dict[str, Any]:
        hints, words = get_type_hints(kind), _field_words(kind)
        properties: dict[str, Any] = {}
        required: list[str] = []
        for attribute in attrs.fields(kind):
            schema = self._of(hints[attribute.name], read=read)
            in_time = Seconds in (hints[attribute.name], *get_args(hints[attribute.name]))
            properties[camel(attribute.name)] = {
                **schema,
                **_bounds(attribute, in_time=in_time),
                **(_default(attribute, in_time=in_time) if read else {}),
                **_words(words.get(attribute.name), in_time=in_time),
            }
            if not read or attribute.default is attrs.NOTHING:
                required.append(camel(attribute.name))
        if kind is Session:  # under both names, and with Steel's facts, as `dump` writes it
            properties["idleTimeout"] = properties["inactivityTimeout"]
            properties |= {name: {"const": value} for name, value in STEEL_FACTS.items()}
            properties["isSelenium"] = {"type": "boolean"}
            required += ["idleTimeout", *STEEL_FACTS, "isSelenium"]
        more: dict[str, Any] = {"additionalProperties": False} if read else {}
        if kind is Stealth and read:
            properties[CAPTCHAS] = {"enum": [False, None], "description": "Not offered."}
        if kind is Cookie and read:
            more["anyOf"] = _BELONGS_SOMEWHERE
            properties["partitionKey"]["anyOf"].append({"type": "string"})
            properties |= dict.fromkeys((*DERIVED, *ENDPOINT), _FOLLOWS)
        if kind is SessionContext and read:
            properties["origins"] = _playwrights(properties["indexedDB"])
            more["not"] = {"anyOf": [{"required": ["origins", name]} for name in BY_ORIGIN]}
        return {
            "type": "object",
            "description": _first_words(kind),
            "properties": properties,
            **({"required": required} if required else {}),
            **more,
        }

    def _of(self, hint: Any, *, read: bool) -> JsonSchema:  # noqa: PLR0911 - one for each kind
        if hint in _PLAIN:
            return _PLAIN[hint]
        if hint is Device:
            kind = {"type": "string", "enum": [str(each) for each in Device]}
            parts = {"device": {**kind, "default": str(Device.DESKTOP)}}
            return {"type": "object", "properties": parts, "additionalProperties": False}
        if hint == GeoLocation:
            country = {"type": "string", "enum": [*places.countries()]}
            return {"anyOf": [country, self._of(Coordinates, read=read), {"type": "null"}]}
        origin, kinds = get_origin(hint), get_args(hint)
        if origin in (types.UnionType, Union) and len(kinds) == 2 and type(None) in kinds:
            (kind,) = (each for each in kinds if each is not type(None))
            return _or_null(self._of(kind, read=read))
        if origin is Literal:
            return {"type": "string", "enum": [*kinds]}
        if origin is tuple:
            return {"type": "array", "items": self._of(kinds[0], read=read)}
        if origin is collections.abc.Mapping:
            return {"type": "object", "additionalProperties": self._of(kinds[1], read=read)}
        if isinstance(hint, type) and issubclass(hint, Enum):
            return self._enum(hint)
        if isinstance(hint, type) and attrs.has(hint):
            return self._model(hint, read=read)
        raise TypeError(f"no schema for {hint!r}; say in schemas.py how wire.py writes it")

    def _enum(self, kind: type[Enum]) -> JsonSchema:
        values = [member.value for member in kind]
        self.components[kind.__name__] = {
            "type": "string",
            "description": _first_words(kind),
            "enum": values,
        }
        return {"$ref": _PLACE + kind.__name__}


def _playwrights(databases: JsonSchema) -> JsonSchema:
    """The storage of each origin, as Playwright's `storage_state` has it."""
    item = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
        "required": ["name", "value"],
        "additionalProperties": False,
    }
    origin = {
        "type": "object",
        "properties": {
            "origin": {"type": "string", **databases["propertyNames"]},
            "localStorage": {"type": "array", "items": item},
            "indexedDB": databases["additionalProperties"],
        },
        "required": ["origin"],
        "additionalProperties": False,
    }
    words = "Playwright's form, in place of `localStorage` and `indexedDB`."
    return {"type": "array", "items": origin, "description": words}


def _nothing(values: tuple[Any, ...]) -> dict[str, Any]:
    """The schema of the values by which an option that is not offered asks for nothing."""
    kinds: list[JsonSchema] = [{"type": "null"}]
    for value in values:
        if isinstance(value, dict):
            parts = {name: {"enum": [part]} for name, part in value.items()}
            kinds.append({"type": "object", "properties": parts, "additionalProperties": False})
        else:
            kinds.append({"enum": [value]})
    return {"anyOf": kinds, "description": "Not offered; this much asks for nothing."}


def _or_null(schema: JsonSchema) -> dict[str, Any]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return {**schema, "type": [kind, "null"]}
    if isinstance(kind, list):
        return dict(schema)
    told = {name: schema[name] for name in ("default", "description") if name in schema}
    inner = {name: value for name, value in schema.items() if name not in told}
    return {"anyOf": [inner, {"type": "null"}], **told}


def _bounds(attribute: Any, *, in_time: bool) -> JsonSchema:
    """What the validator lets through; durations in milliseconds, and whole ones."""
    if not isinstance(attribute.validator, Bounded):
        return {}
    schema = attribute.validator.schema
    if callable(schema):
        schema = schema()
    if not in_time:
        return schema
    return {name: round(value * 1000) for name, value in schema.items()}


def _default(attribute: Any, *, in_time: bool) -> JsonSchema:
    value = attribute.default
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        value = value.factory()
    if value is attrs.NOTHING or value is None:
        return {}
    return {"default": round(value * 1000) if in_time else dump(value)}


def _words(text: str | None, *, in_time: bool) -> JsonSchema:
    told = " ".join(part for part in (text, "In milliseconds." if in_time else "") if part)
    return {"description": told} if told else {}


def _first_words(kind: type) -> str:
    return _on_the_wire(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0])


@cache
def _field_words(kind: type) -> Mapping[str, str]:
    """The first paragraph of the text below each field, where the models explain them."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        lines = body.body if isinstance(body, ast.ClassDef) else []
        for line, below in pairwise(lines):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        first = inspect.cleandoc(text).partition("\n\n")[0]
                        found[line.target.id] = _on_the_wire(first)
    return found


def _on_the_wire(text: str) -> str:
    """The same words with the wire's names in them."""
    one_line = " ".join(text.split())
    for ours, theirs in (("None", "null"), ("True", "true"), ("False", "false")):
        one_line = one_line.replace(f"`{ours}`", f"`{theirs}`")
    return re.sub(r"`([a-z]+(?:_[a-z]+)+)`", lambda name: f"`{camel(name[1])}`", one_line)
