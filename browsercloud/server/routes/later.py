"""What Steel's programs may ask for and this server does not have yet: the only list of it.

The routes are made from it, and the README's table is compared with it.
"""

from __future__ import annotations

from typing import NoReturn

from aiohttp import web
from attrs import frozen

from browsercloud.errors import ServiceError
from browsercloud.server.operations import Answer, Operation, Parameter

STATUS = 501


@frozen
class Later:
    """A call that is refused."""

    method: str
    path: str
    call: str
    """What it is in Steel's Python client."""

    part: str
    """The part of the server that it needs, as the refusal names it."""

    async def refuse(self, _: web.Request) -> NoReturn:
        """Not built yet: this server refuses the call, and the message names the part."""
        raise ServiceError(
            f"this server does not have this part yet: {self.part}",
            status=STATUS,
            code="invalid_request",
        )

    @property
    def about(self) -> Operation:
        """How `openapi.json` tells it."""
        names = [part[1:-1] for part in self.path.split("/") if part.startswith("{")]
        told = tuple(Parameter(name, "Of any form.") for name in names if name != "session_id")
        refusal = Answer(
            f"Not Implemented: `invalid_request`, as there is no part for it yet: {self.part}.",
            "application/json",
            {"$ref": "#/components/schemas/Error"},
            headers={"X-Should-Retry": "`false`: asking again is of no use."},
        )
        return Operation(path=told, answers={STATUS: refusal})


_ONE = "/v1/sessions/{session_id}"
_FILES, _CAPTCHAS = "files", "CAPTCHA solving"
_EXTENSIONS, _PROFILES, _VAULT = "extensions", "profiles", "the credentials vault"

NOT_YET = (
    Later("POST", "/v1/scrape", "scrape", "scraping"),
    Later("POST", "/v1/screenshot", "screenshot", "hosted screenshots"),
    Later("POST", "/v1/pdf", "pdf", "hosted PDFs"),
    Later("GET", f"{_ONE}/files", "sessions.files.list", _FILES),
    Later("POST", f"{_ONE}/files", "sessions.files.upload", _FILES),
    Later("DELETE", f"{_ONE}/files", "sessions.files.delete_all", _FILES),
    Later("GET", f"{_ONE}/files/{{path}}", "sessions.files.download", _FILES),
    Later("DELETE", f"{_ONE}/files/{{path}}", "sessions.files.delete", _FILES),
    Later("GET", f"{_ONE}/files.zip", "sessions.files.download_archive", _FILES),
    Later("GET", f"{_ONE}/captchas/status", "sessions.captchas.status", _CAPTCHAS),
    Later("POST", f"{_ONE}/captchas/solve", "sessions.captchas.solve", _CAPTCHAS),
    Later("POST", f"{_ONE}/captchas/solve-image", "sessions.captchas.solve_image", _CAPTCHAS),
    Later("GET", "/v1/files", "files.list", _FILES),
    Later("POST", "/v1/files", "files.upload", _FILES),
    Later("GET", "/v1/files/{path}", "files.download", _FILES),
    Later("DELETE", "/v1/files/{path}", "files.delete", _FILES),
    Later("GET", "/v1/extensions", "extensions.list", _EXTENSIONS),
    Later("POST", "/v1/extensions", "extensions.upload", _EXTENSIONS),
    Later("DELETE", "/v1/extensions", "extensions.delete_all", _EXTENSIONS),
    Later("GET", "/v1/extensions/{extension_id}", "extensions.download", _EXTENSIONS),
    Later("PUT", "/v1/extensions/{extension_id}", "extensions.update", _EXTENSIONS),
    Later("DELETE", "/v1/extensions/{extension_id}", "extensions.delete", _EXTENSIONS),
    Later("GET", "/v1/profiles", "profiles.list", _PROFILES),
    Later("POST", "/v1/profiles", "profiles.create", _PROFILES),
    Later("GET", "/v1/profiles/{profile_id}", "profiles.get", _PROFILES),
    Later("PATCH", "/v1/profiles/{profile_id}", "profiles.update", _PROFILES),
    Later("GET", "/v1/credentials", "credentials.list", _VAULT),
    Later("POST", "/v1/credentials", "credentials.create", _VAULT),
    Later("PUT", "/v1/credentials", "credentials.update", _VAULT),
    Later("DELETE", "/v1/credentials", "credentials.delete", _VAULT),
)
