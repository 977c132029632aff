"""Settings: one table, one object, read in one place."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from browsercloud.errors import UsageError
from browsercloud.server.config import SETTINGS, ServerConfig, from_environment

MADE = {"token_secret"}
"""Fields that are no settings: made, or read from the data folder."""


def test_the_table_has_every_setting_once() -> None:
    """Names are the object's fields; options and variables are spelled alike."""
    names = [row.name for row in SETTINGS]
    assert sorted(names) == sorted({f.name for f in attrs.fields(ServerConfig)} - MADE)
    for row in SETTINGS:
        assert row.option == "--" + row.name.replace("_", "-")
        assert row.variable == "BROWSERCLOUD_" + row.name.upper()
        assert row.help.endswith(".")


def test_the_defaults_in_words_are_the_real_ones() -> None:
    """Where the table tells a value, it is that of the object."""
    config = from_environment({}, {})
    told = {row.name: row.parse(row.default) for row in SETTINGS if row.default in WORDS}
    assert told == {name: getattr(config, name) for name in told}
    assert set(told) == {
        "host",
        "port",
        "no_auth",
        "lease_grace",
        "max_queue",
        "queue_timeout",
        "drain",
        "keep_ended",
        "orphan_grace",
        "session_memory",
        "pool_size",
        "log_format",
        "log_level",
        "handler_cancellation",
    }
    assert config.data_dir is not None


WORDS = ["127.0.0.1", "8700", "no", "10", "7", "60", "100", "300", "2048", "2", "auto", "info"]


def test_the_command_line_outranks_the_environment(tmp_path: Path) -> None:
    """And an empty variable counts as absent."""
    environ = {
        "BROWSERCLOUD_PORT": "1",
        "BROWSERCLOUD_HOST": "::1",
        "BROWSERCLOUD_LEASE_GRACE": "",
        "BROWSERCLOUD_DATA_DIR": str(tmp_path),
    }
    config = from_environment({"port": "2", "host": None}, environ)
    assert (config.port, config.host, config.lease_grace) == (2, "::1", 10)
    assert config.data_dir == tmp_path


def test_a_wrong_value_names_where_it_came_from() -> None:
    """The option when it was given, else the variable."""
    with pytest.raises(UsageError, match="^--port: "):
        from_environment({"port": "x"}, {"BROWSERCLOUD_PORT": "1"})
    with pytest.raises(UsageError, match="^BROWSERCLOUD_PORT: "):
        from_environment({}, {"BROWSERCLOUD_PORT": "1e3"})


def test_a_grace_and_a_cap_may_be_none() -> None:
    """0 is a value for both; a cap below what a browser needs is refused, in megabytes."""
    given = {"orphan_grace": "0", "session_memory": "0"}
    config = from_environment(given, {})
    assert (config.orphan_grace, config.session_memory) == (0, 0)
    assert from_environment({"session_memory": "300"}, {}).session_memory == 300 * 2**20
    for wrong in ({"orphan_grace": "-1"}, {"session_memory": "1"}, {"session_memory": "-5"}):
        with pytest.raises(UsageError, match="give a "):
            from_environment(dict(wrong), {})


def test_readme_has_the_table() -> None:
    """The README's table of the server's settings is the one that is in force."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for setting in SETTINGS:
        row = f"| `{setting.option}` | `{setting.variable}` | {setting.default} | {setting.help} |"
        assert row in readme


def test_hosts_may_be_written_as_in_addresses() -> None:
    """Brackets around IPv6 go; names are compared in lower case."""
    given = {"host": "[::1]", "allowed_hosts": "A.example, b.example"}
    config = from_environment(given, {})
    assert (config.host, config.allowed_hosts) == ("::1", ("a.example", "b.example"))


@pytest.mark.parametrize("text", [" ", " secret", "sécret", "se\ncret", "secret\t"])
def test_ill_formed_keys_are_refused_unseen(text: str) -> None:
    """The message does not repeat them."""
    with pytest.raises(UsageError, match="--api-key: give printable") as caught:
        from_environment({"api_key": text}, {})
    assert "cret" not in str(caught.value)
