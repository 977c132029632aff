"""What a route takes and answers, said once: handlers read it, and so does `openapi.py`."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any

from attrs import field, frozen

JsonSchema = Mapping[str, Any]


@frozen
class Parameter:
    """One parameter of a query or a path, as the wire names it."""

    name: str
    about: str
    schema: JsonSchema = field(factory=lambda: {"type": "string"})
    required: bool = False


@frozen
class Answer:
    """An answer that is no model."""

    about: str
    media_type: str | None = None
    """`None` for one without a body."""

    schema: JsonSchema = field(factory=lambda: {"type": "string"})
    many: type | None = None
    """The model that the answer is a list of; then there is no need of a *schema*."""

    headers: Mapping[str, str] = field(factory=dict)
    """What further headers tell, by name."""


@frozen(kw_only=True)
class Operation:
    """What a route takes and answers, besides what its path and its guard say.

    Headers, the id in the path, and the errors that every route may answer go without saying.
    """

    query: tuple[Parameter, ...] = ()
    labels: Parameter | None = None
    """Parameters of any name that begins like this one's."""

    path: tuple[Parameter, ...] = ()
    body: type | UnionType | None = None
    """A model of `openapi.py`'s converter, or several to choose from; `None` for no body."""

    answers: Mapping[int, type | Answer]
    errors: tuple[str, ...] = ()
    """Codes of wire.md 2 that this route may answer besides the usual ones."""

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters of the query."""
        return tuple(parameter.name for parameter in self.query)


BROWSER_ERRORS = (
    "session_ended",
    "conflict",
    "launch_failed",
    "browser_unresponsive",
    "starting",
)
"""What a route answers that has to reach the session's browser and cannot."""

SWITCHED = Answer("It is a WebSocket from now on.")
BOOLEAN: JsonSchema = {"type": "boolean"}
