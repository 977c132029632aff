"""The one converter between models and JSON: strict with requests, lenient with replies.

camelCase outside, snake_case inside; `Seconds` are integer milliseconds outside; times are RFC 3339
with `Z`. A request with an unknown field, a wrong type or a value out of range is refused with the
path of every such field (`InvalidRequest.details`); an unknown field of a reply is skipped and an
unknown word kept as it is, so that an older client can talk to a newer server.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar, get_args, get_origin

import attrs
from cattrs import (
    AttributeValidationNote,
    BaseValidationError,
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from browsercloud.bounds import FieldError
from browsercloud.context import (
    Cookie,
    CookiePriority,
    Database,
    Items,
    SameSite,
    SessionContext,
    from_storage_state,
    plain_cookie,
)
from browsercloud.errors import InvalidRequest
from browsercloud.models import (
    CreateRequest,
    ReleaseReason,
    Session,
    SessionProtocol,
    SessionStatus,
)
from browsercloud.options import (
    LATER_OPTIONS,
    Adapter,
    Browser,
    Record,
    Seconds,
    SessionOptions,
)
from browsercloud.stealth import Stealth
from browsercloud.wanted import Coordinates, Device, GeoLocation, Permission

T = TypeVar("T")


_AS_THEY_ARE = ("hold_keys", "click_type", "num_clicks", "delta_x", "delta_y", "base64_image")
_OTHER_NAMES = {
    "idle_timeout": "inactivityTimeout",
    "custom_websocket_url": "customWebSocketUrl",
    "device": "deviceConfig",
    "stealth": "stealthConfig",
    "indexed_db": "indexedDB",
    **{name: name for name in _AS_THEY_ARE},
}
"""Fields that the wire calls otherwise; what Steel names in snake_case among them."""

ASKS_FOR_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "blockAds": (False,),
    "caCertificates": ([],),
    "concurrency": (1,),
    "debugConfig": ({},),
    "experimentalFeatures": ([],),
    "extensionIds": ([],),
    "fullscreen": (False,),
    "namespace": ("default",),
    "optimizeBandwidth": (
        False,
        {
            "blockImages": False,
            "blockMedia": False,
            "blockStylesheets": False,
            "blockHosts": [],
            "blockUrlPatterns": [],
        },
    ),
    "persistProfile": (False,),
    "solveCaptcha": (False,),
    "useProxy": (False,),
}
"""Options that are not offered, and the values by which Steel's programs ask for none of it.

Of an object any part will do. Every other value is refused by the option's name.
"""

CAPTCHAS = "autoCaptchaSolving"
"""The part of Steel's stealth that is not offered."""

_NOT_OFFERED = "this server does not offer this option"
_WHY_NOT = {
    "caCertificates": _NOT_OFFERED,
    "concurrency": "must be 1: one call makes one session; call it for each",
    "experimentalFeatures": _NOT_OFFERED,
    "fullscreen": _NOT_OFFERED,
    "projectId": "the key tells the project; use a key of that one and leave this out",
}
"""Options of Steel's that have no name here."""

STEEL_FACTS: Mapping[str, Any] = {
    "creditsUsed": 0,
    "optimizeBandwidth": {},
    "proxyBytesUsed": 0,
    "solveCaptcha": False,
}
"""What Steel's programs read in every session's record and what is the same in all of ours."""


def camel(name: str) -> str:
    """`websocket_url` → `websocketUrl`."""
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _plain(kind: type, words: str) -> Any:
    def structure(value: Any, _: Any) -> Any:
        # bool is an int to Python and never one to a person.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"must be {words}, not {_shown(value)}")
        return value

    return structure


def _whole(value: Any, kind: Any) -> Any:
    # 800.0 is a whole number to JSON, and there are languages that write every number like that.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return _plain(int, "a whole number")(value, kind)


def _number(value: Any, kind: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"must be a number, not {_shown(value)}")
    if not abs(value) <= 2**53:
        raise ValueError("is too large a number")
    return float(value)


def _shown(value: Any) -> str:
    """A value for an error message: short, and a container only by its kind."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {value[:40]!r}"
        case int() | float():
            return f"the number {value}"
        case list() | tuple():
            return "a list"
        case _:
            return "an object"


def _milliseconds(value: Any, _: Any) -> Seconds:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or (isinstance(value, float) and not value.is_integer()):
        raise TypeError(f"must be a whole number of milliseconds, not {_shown(value)}")
    if abs(value) > 2**53:
        raise ValueError("is too large a number of milliseconds")
    return Seconds(value / 1000)


def _enum(value: Any, kind: type[Enum]) -> Enum:
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(str(member.value) for member in kind)
        raise ValueError(f"must be one of {names}, not {_shown(value)}") from None


def _enum_or_text(value: Any, kind: type[Enum]) -> Enum | str:
    """A member, or the word of a newer server as it came: it compares and prints the same."""
    if not isinstance(value, str):
        raise TypeError(f"must be a text, not {_shown(value)}")
    try:
        return kind(value)
    except ValueError:
        return value


def _of_the_look(converter: Converter) -> None:
    """How devices, places and permissions are written."""

    def device(value: Any, _: Any) -> Device:
        if not isinstance(value, Mapping):
            form = '{"device": "mobile"}'
            raise TypeError(f"must be an object such as {form}, not {_shown(value)}")
        if unknown := sorted(value.keys() - {"device"}):
            raise FieldError(str(unknown[0]), "unknown field")
        try:
            chosen: Any = _enum(value.get("device", Device.DESKTOP), Device)
        except ValueError as error:
            raise ValueError(f"device {error}") from None
        return Device(chosen)

    def geo_location(value: Any, _: Any) -> GeoLocation:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, Mapping):
            return converter.structure(value, Coordinates)
        raise TypeError(f"must be a country's code or an object, not {_shown(value)}")

    def permissions(value: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError(f"must be a list, not {_shown(value)}")
        return tuple(_enum(each, Permission) for each in value)

    converter.register_structure_hook(Device, device)
    converter.register_unstructure_hook(Device, lambda value: {"device": str(value)})
    converter.register_structure_hook_func(lambda kind: kind == GeoLocation, geo_location)
    converter.register_unstructure_hook_func(
        lambda kind: kind == GeoLocation,
        lambda value: converter.unstructure(value) if isinstance(value, Coordinates) else value,
    )
    converter.register_structure_hook_func(lambda kind: kind == tuple[Permission, ...], permissions)
    converter.register_unstructure_hook_func(
        lambda kind: kind == tuple[Permission, ...], lambda value: [str(each) for each in value]
    )


WORDS = (SessionStatus, ReleaseReason, Browser, Adapter, Record, SessionProtocol)
CONTEXT_WORDS = (SameSite, CookiePriority)


def _context(value: Mapping[str, Any]) -> dict[str, Any]:
    """A session's context, Playwright's form as ours."""
    if "origins" not in value:
        return dict(value)
    if not isinstance(value["origins"], list | tuple):
        raise TypeError(f"origins: must be a list, not {_shown(value['origins'])}")
    return from_storage_state(value)


def _without_captchas(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Steel's stealth without the one part that is not offered, if that is not asked for."""
    if asked.get(CAPTCHAS) not in (None, False):
        raise FieldError(CAPTCHAS, _NOT_OFFERED)
    return {name: value for name, value in asked.items() if name != CAPTCHAS}


PREPARED: Mapping[Any, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    SessionContext: _context,
    Cookie: plain_cookie,
    Stealth: _without_captchas,
}
"""What is written in more than one form, and how it becomes the one of the model."""


def _of_contexts(converter: Converter) -> None:
    """Lists, and what is kept by origin, each part with its own path."""

    def parts(named: Iterable[tuple[Any, Any]], kind: Any) -> Iterator[tuple[Any, Any]]:
        errors: list[Exception] = []
        for name, part in named:
            try:
                yield name, converter.structure(part, kind)
            except Exception as error:
                note = IterableValidationNote(f"at {name!r}", name, kind)
                error.__notes__ = [*getattr(error, "__notes__", ()), note]
                errors.append(error)
        if errors:
            raise IterableValidationError("some parts are wrong", errors, kind)

    def by_origin(value: Any, kind: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise TypeError(f"must be an object with origins, not {_shown(value)}")
        return dict(parts(value.items(), get_args(kind)[1]))

    def in_order(value: Any, kind: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError(f"must be a list, not {_shown(value)}")
        return tuple(part for _, part in parts(enumerate(value), get_args(kind)[0]))

    def of_models(kind: Any) -> bool:
        return get_origin(kind) is tuple and attrs.has(get_args(kind)[0])

    kept = (Items, Mapping[str, tuple[Database, ...]])
    converter.register_structure_hook_func(lambda kind: kind in kept, by_origin)
    converter.register_structure_hook_func(of_models, in_order)


def _time(value: Any, _: Any) -> datetime:
    if not isinstance(value, str):
        raise TypeError(f"must be a time such as 2030-01-31T12:00:00Z, not {_shown(value)}")
    return datetime.fromisoformat(value)


def _build(*, strict: bool) -> Converter:
    converter = Converter(forbid_extra_keys=strict, detailed_validation=True)
    converter.register_structure_hook(str, _plain(str, "a text"))
    converter.register_structure_hook(bool, _plain(bool, "true or false"))
    converter.register_structure_hook(int, _whole)
    converter.register_structure_hook(float, _number)
    # One by one: the hook for `str` serves its subclasses too, and so every StrEnum.
    for kind in (*WORDS, *CONTEXT_WORDS):
        grows = (
            kind is not SessionStatus
        )  # a life has these stations; reasons and browsers are added
        converter.register_structure_hook(kind, _enum_or_text if grows and not strict else _enum)
        converter.register_unstructure_hook(kind, str)
    _of_the_look(converter)
    _of_contexts(converter)
    converter.register_structure_hook(Seconds, _milliseconds)
    converter.register_unstructure_hook(Seconds, lambda value: round(value * 1000))
    converter.register_structure_hook(datetime, _time)
    converter.register_unstructure_hook(
        datetime,
        lambda t: t.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )

    def names(kind: Any) -> dict[str, Any]:
        return {a.name: override(rename=camel(a.name)) for a in attrs.fields(kind)}

    def structure_labels(value: Any, _: Any) -> dict[str, str]:
        if not isinstance(value, Mapping):
            raise TypeError(f"must be an object of texts, not {_shown(value)}")
        for name, text in value.items():
            if not isinstance(text, str):
                raise TypeError(f"{name!r} must be a text, not {_shown(text)}")
        return dict(value)

    def structure_object(value: Any, _: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise TypeError(f"must be an object, not {_shown(value)}")
        return dict(value)

    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, str], structure_labels)
    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, Any], structure_object)

    def structure(kind: Any) -> Any:
        inner = make_dict_structure_fn(
            kind, converter, _cattrs_forbid_extra_keys=strict, **names(kind)
        )

        def checked(value: Any, _: Any) -> Any:
            if not isinstance(value, Mapping):
                raise TypeError(f"must be an object, not {_shown(value)}")
            return inner(PREPARED.get(kind, dict)(value), kind)

        return checked

    def unstructure(kind: Any) -> Any:
        inner = make_dict_unstructure_fn(kind, converter, **names(kind))
        if kind is not Session:
            return inner

        def both_names(session: Session) -> Any:
            record = inner(session)
            record["idleTimeout"] = record["inactivityTimeout"]
            record["isSelenium"] = session.adapter == Adapter.SELENIUM
            return {**record, **STEEL_FACTS}

        return both_names

    converter.register_structure_hook_factory(attrs.has, structure)
    converter.register_unstructure_hook_factory(attrs.has, unstructure)
    return converter


_strict = _build(strict=True)
_lenient = _build(strict=False)


def dump(value: Any) -> Any:
    """A model as JSON-ready values."""
    return _lenient.unstructure(value)


def load(value: Any, kind: type[T]) -> T:
    """A reply as a model; unknown fields are skipped.

    Raises `ValueError` when it cannot be read at all.
    """
    try:
        return _lenient.structure(value, kind)
    except BaseValidationError as error:
        raise ValueError(_sentence(list(problems(error)))) from error
    except (TypeError, KeyError) as error:
        raise ValueError(str(error)) from error


def read(value: Any, kind: type[T]) -> T:
    """A request's body as a model; anything out of order is `InvalidRequest` with all paths."""
    try:
        return _strict.structure(value, kind)
    except BaseValidationError as error:
        raise invalid(list(problems(error))) from error
    except (TypeError, ValueError) as error:
        raise invalid([("", str(error))]) from error


def invalid(found: list[tuple[str, str]]) -> InvalidRequest:
    """The error for a list of (path, reason)."""
    return InvalidRequest(
        _sentence(found), details=[{"path": path, "reason": reason} for path, reason in found]
    )


def _sentence(found: list[tuple[str, str]]) -> str:
    return "; ".join(f"{path}: {reason}" if path else reason for path, reason in found)


def problems(error: BaseException, path: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of a cattrs error as (path, reason), paths as the wire spells them."""
    match error:
        case BaseValidationError():
            for inner in error.exceptions:
                yield from problems(inner, path + _step(inner))
        case ForbiddenExtraKeysError():
            for name in sorted(error.extra_fields):
                yield f"{path}.{name}".lstrip("."), "unknown field"
        case KeyError():
            yield path.lstrip("."), "required"
        case FieldError():
            yield f"{path}.{camel(error.field)}".lstrip("."), error.reason
        case _:
            yield path.lstrip("."), str(error)


def _step(error: BaseException) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return f".{camel(note.name)}"
        if isinstance(note, IterableValidationNote):
            return f"[{note.index!r}]"
    return ""


def read_session_id(value: Any) -> str:
    """A UUID in any of its spellings, as its canonical text. Raises `ValueError`."""
    if not isinstance(value, str) or len(value) > 64:
        raise ValueError(f"must be a UUID, not {_shown(value)}")
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError(f"must be a UUID, not {_shown(value)}") from None


def _idle_in_seconds(fields: dict[str, Any], found: list[tuple[str, str]]) -> None:
    """Take both spellings of the idle timeout: `inactivityTimeout` in ms, TestMu's in seconds."""
    ours, theirs = fields.pop("inactivityTimeout", None), fields.pop("idleTimeout", None)
    if theirs is not None:
        number = isinstance(theirs, int | float) and not isinstance(theirs, bool)
        if not number or not abs(theirs) < 2**43:
            found.append(("idleTimeout", f"must be a number of seconds, not {_shown(theirs)}"))
            return
        theirs = round(theirs * 1000)
        if ours is not None and ours != theirs:
            reason = "differs from inactivityTimeout; that one is in milliseconds, this in seconds"
            found.append(("idleTimeout", reason))
            return
    if ours is not None or theirs is not None:
        fields["inactivityTimeout"] = theirs if ours is None else ours


def _selenium(fields: dict[str, Any], found: list[tuple[str, str]]) -> None:
    """Take Steel's word for a session that Selenium drives."""
    asked = fields.pop("isSelenium", False)
    if not isinstance(asked, bool):
        found.append(("isSelenium", f"must be true or false, not {_shown(asked)}"))
    elif asked and fields.setdefault("adapter", Adapter.SELENIUM.value) != Adapter.SELENIUM.value:
        found.append(("isSelenium", "differs from adapter; leave one of the two out"))


def _not_offered(fields: dict[str, Any], found: list[tuple[str, str]]) -> None:
    """Take out what this version does not offer; whoever wants any of it is refused by its name."""
    names = sorted((LATER_OPTIONS.keys() | _WHY_NOT.keys()) & fields.keys())
    wanted = [name for name in names if not _asks_for_nothing(name, fields.pop(name))]
    found += [(name, _WHY_NOT.get(name, _NOT_OFFERED)) for name in wanted]


def _asks_for_nothing(name: str, value: Any) -> bool:
    """Whether a value of an option that is not offered means that it is not wanted."""
    for nothing in ASKS_FOR_NOTHING.get(name, ()):
        if isinstance(nothing, dict) and isinstance(value, Mapping):
            return all(part in nothing and _same(nothing[part], value[part]) for part in value)
        if _same(nothing, value):
            return True
    return False


def _same(one: Any, other: Any) -> bool:
    # To Python 0 is False, and 1 is True.
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def read_create(body: Any) -> CreateRequest:
    """The body of create. A missing `sessionId` is chosen here.

    Raises `InvalidRequest` with every path that is wrong; an option that this version does not
    offer is refused by its name.
    """
    if not isinstance(body, Mapping):
        raise invalid([("", f"the body must be an object, not {_shown(body)}")])
    fields = {name: value for name, value in body.items() if value is not None}
    found: list[tuple[str, str]] = []
    _idle_in_seconds(fields, found)
    ids: dict[str, str | None] = {"sessionId": None, "leaseId": None}
    for name in ids:
        try:
            value = fields.pop(name, None)
            ids[name] = None if value is None else read_session_id(value)
        except ValueError as error:
            found.append((name, str(error)))
    _selenium(fields, found)
    _not_offered(fields, found)
    options = SessionOptions()
    try:
        options = _strict.structure(fields, SessionOptions)
    except ClassValidationError as error:
        found.extend(problems(error))
    except ValueError as error:
        found.extend(problems(error))
    if found:
        raise invalid(found)
    return CreateRequest(
        session_id=ids["sessionId"] or str(uuid.uuid4()),
        lease_id=ids["leaseId"],
        options=options,
        given=fields,
    )
