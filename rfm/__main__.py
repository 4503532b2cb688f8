"""The ``rfm`` command: ``rfm <command> [<what>] [key=value ...]``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_KEY = re.compile(r"[A-Za-z_][\w.-]*=")


@dataclass(frozen=True)
class Command:
    """run: of its words. first: the key that a word without one belongs to. about: for the list."""

    run: Callable[[Sequence[str]], None]
    first: str
    about: str


def _import(words: Sequence[str]) -> None:
    from rfm.config import run_command
    from rfm.data import import_sql

    main, doc = import_sql.import_command, import_sql.__doc__
    run_command(import_sql.ImportCommand, main, prog="rfm import", doc=doc, argv=words)


def _describe(words: Sequence[str]) -> None:
    from rfm.config import run_command
    from rfm.data import describe

    main, doc = describe.describe_spec, describe.__doc__
    run_command(describe.DescribeConfig, main, prog="rfm describe", doc=doc, argv=words)


def _predict(words: Sequence[str]) -> None:
    from rfm import predict
    from rfm.config import run_command

    run_command(
        predict.PredictConfig, predict.run, prog="rfm predict", doc=predict.__doc__, argv=words
    )


COMMANDS = {
    "import": Command(
        _import, "source", "a database (SQLAlchemy URL, file, folder) -> a RelBench folder"
    ),
    "describe": Command(_describe, "database", "tables, keys and kinds of a database"),
    "predict": Command(_predict, "query", "answer a query about a database"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; see ``rfm --help``."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("--help", "-h"):
        print("usage: rfm <command> [<what>] [key=value ...] [--help]\n")
        for name, command in COMMANDS.items():
            print(f"  rfm {name:<9} <{command.first}> ...  {command.about}")
        raise SystemExit(0 if words else 2)
    name, *rest = words
    if name not in COMMANDS:
        from rfm.data.schema import suggest

        print(f"error: no command {name!r}; {suggest(name, COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    COMMANDS[name].run(keyed(rest, COMMANDS[name].first))


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
