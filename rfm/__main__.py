"""The ``rfm`` command: ``rfm <command> [<what>] [key=value ...]``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_KEY = re.compile(r"[A-Za-z_][\w.-]*=")
Run = Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True)
class Command:
    """load: imports it, and gives its config, what it does and its help. first: the key that a word
    without one belongs to. more: keys that it must have besides. about: for the list."""

    load: Callable[[], tuple[type[Any], Run, str | None]]
    first: str
    more: str
    about: str


def _import() -> tuple[type[Any], Run, str | None]:
    from rfm.data import import_sql
    from rfm.data.database import open_database
    from rfm.data.first_question import next_steps

    def run(config: import_sql.ImportCommand) -> Mapping[str, Any]:
        done = import_sql.import_command(config)
        if config.out is not None and not config.dry_run:
            print(f"\n{next_steps(open_database(config.out.expanduser()))}")
        return done

    return import_sql.ImportCommand, run, import_sql.__doc__


def _describe() -> tuple[type[Any], Run, str | None]:
    from rfm.data import describe

    return describe.DescribeConfig, describe.describe_spec, describe.__doc__


def _predict() -> tuple[type[Any], Run, str | None]:
    from rfm import predict

    return predict.PredictConfig, predict.run, predict.__doc__


COMMANDS = {
    "import": Command(
        _import, "source", "out=<folder>", "a database: its URL, a file, a folder of files"
    ),
    "describe": Command(_describe, "database", "", "show tables, keys, kinds, a first question"),
    "predict": Command(
        _predict, "query", "checkpoint=... database=... out=<file>", "answer it, and say why"
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; see ``rfm --help``."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("--help", "-h"):
        print("usage: rfm <command> [<what>] [key=value ...] [--help]\n")
        for name, command in COMMANDS.items():
            print(f"  rfm {name} <{command.first}> {command.more}".rstrip())
            print(f"      {command.about}")
        raise SystemExit(0 if words else 2)
    name, *rest = words
    if name not in COMMANDS:
        from rfm.data.schema import suggest

        print(f"error: no command {name!r}; {suggest(name, COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    from rfm.config import run_command

    command = COMMANDS[name]
    config, run, doc = command.load()
    given = keyed(rest, command.first)
    run_command(config, run, prog=f"rfm {name}", doc=doc, argv=given, first=command.first)


def keyed(words: Sequence[str], first: str) -> list[str]:
    """``<what> --dry-run`` as ``<first>=<what> dry_run=true``: a first word without a key has that
    of the command, and a flag is a key that is true."""
    found = []
    for i, word in enumerate(words):
        if word == "--dry-run":
            word = "dry_run=true"
        elif i == 0 and not word.startswith("-") and not _KEY.match(word):
            word = f"{first}={word}"
        found.append(word)
    return found


if __name__ == "__main__":
    main()
