"""Countries, languages and time zones: what there is, and what belongs together.

Languages are those of Unicode's CLDR (by Babel), time zones and coordinates those of the IANA time
zone database (by tzdata). Nothing is loaded before it is asked for.
"""

from __future__ import annotations

import re
import zoneinfo
from functools import cache
from importlib import import_module, resources
from typing import Any

from attrs import frozen

MAIN_ZONES = {
    "AU": "Australia/Sydney",
    "BR": "America/Sao_Paulo",
    "CA": "America/Toronto",
    "RU": "Europe/Moscow",
    "UZ": "Asia/Tashkent",
}
"""Where most people live. Of other countries the database names that zone first."""

LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?")
POSITION = re.compile(r"([+-]\d{4,6})([+-]\d{5,7})")


@frozen(kw_only=True)
class Place:
    """What a person in a country has set."""

    locale: str
    """Language and country, such as `en-US`."""

    timezone: str
    """IANA name of the zone where most people live."""

    latitude: float
    longitude: float
    """Degrees; of that zone's main city."""


def countries() -> tuple[str, ...]:
    """The code of every country (ISO 3166-1 alpha-2) that `place_of` knows."""
    return tuple(sorted(_zones()))


@cache
def place_of(country: str) -> Place:
    """What belongs to a country's code, such as `US`. Raises `KeyError` for one that is none."""
    zones = _zones()[country]
    zone = MAIN_ZONES.get(country) or next(iter(zones))
    latitude, longitude = zones[zone]
    return Place(
        locale=_language_of(country), timezone=zone, latitude=latitude, longitude=longitude
    )


def normal_locale(text: str) -> str | None:
    """A language tag as browsers write it, `pt-BR`; `None` for one of no known language or country.

    Takes a language, maybe a script, maybe a country.
    """
    if not LANGUAGE_TAG.fullmatch(text):
        return None
    english = _babel().Locale("en")  # has a name for each
    language, *rest = text.split("-")
    if language.lower() == "und" or language.lower() not in english.languages:
        return None
    parts = [language.lower()]
    for part in rest:
        script = len(part) == len("Latn")
        parts.append(part.title() if script else part.upper())
        if parts[-1] not in (english.scripts if script else english.territories):
            return None
    return "-".join(parts)


def locale_pattern() -> str:
    """A regular expression that matches what `normal_locale` knows, written as it writes it."""
    english = _babel().Locale("en")
    languages = [one for one in english.languages if one.isalpha() and one != "und"]
    scripts = [one for one in english.scripts if len(one) == len("Latn")]
    countries = [one for one in english.territories if LANGUAGE_TAG.fullmatch(f"en-{one}")]
    parts = ["|".join(sorted(each)) for each in (languages, scripts, countries)]
    return "^({})(-({}))?(-({}))?$".format(*parts)


def timezones() -> tuple[str, ...]:
    """Every name that `is_timezone` knows."""
    return tuple(sorted(_zone_names()))


def is_timezone(name: str) -> bool:
    """Whether the time zone database has this name."""
    return name in _zone_names()


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() - {"localtime", "Factory", "posixrules"})


@cache
def _zones() -> dict[str, dict[str, tuple[float, float]]]:
    """For each country its zones in the database's order, with latitude and longitude."""
    table = resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text("utf-8")
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for line in table.splitlines():
        if line and not line.startswith("#"):
            country, position, zone, *_ = line.split("\t")
            found.setdefault(country, {})[zone] = _degrees(position)
    return found


def _degrees(position: str) -> tuple[float, float]:
    """`+404251-0740023`: degrees, minutes and maybe seconds, without marks."""
    found = POSITION.fullmatch(position)
    assert found is not None, position  # noqa: S101
    latitude, longitude = found.groups()
    return _angle(latitude, 3), _angle(longitude, 4)


def _angle(text: str, end: int) -> float:
    degrees, minutes, seconds = text[1:end], text[end : end + 2], text[end + 2 :] or "0"
    size = int(degrees) + int(minutes) / 60 + int(seconds) / 3600
    return round(-size if text[0] == "-" else size, 4)


def _language_of(country: str) -> str:
    likely: str = _babel().get_global("likely_subtags").get(f"und_{country}", "")
    language = likely.partition("_")[0]
    # Nobody lives in Antarctica for good.
    return f"{language if language not in ('', 'und') else 'en'}-{country}"


def _babel() -> Any:
    return import_module("babel.core")
