"""What may be shown of a database's URL, wherever it stands in a text."""

from __future__ import annotations

import re

# of a URL's query; of all else nobody knows whether it is a secret
SHOWN = {"sslmode", "host", "port", "application_name", "charset", "connect_timeout", "driver"}
_PASSWORD = re.compile(r"(/[^/\s:@]*):\S*@")
_QUERY = re.compile(r"(:/\S*\?)(\S+)")


def without_secrets(text: str) -> str:
    """The text with `***` for the password of a URL and for the values in its query, but for those
    that tell nothing; a URL need not be a right one."""
    return _QUERY.sub(lambda found: found[1] + _query(found[2]), _PASSWORD.sub(r"\1:***@", text))


def _query(text: str) -> str:
    parts = (part.partition("=") for part in text.split("&"))
    return "&".join(
        name + equals + (value if name.casefold() in SHOWN else "***" * bool(equals))
        for name, equals, value in parts
    )
