"""Where the folder of a database is: on disk, in the local Hub cache, on the Hub."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from rfm.data.schema import suggest
from rfm.secrets import without_secrets

_EMPTY = "no manifest.yaml in it, and no CSV or parquet files"
_TRUE = ("1", "true", "yes", "on")


def find_folder(spec: str | Path, root: Path | None = None) -> Path:
    """The RelBench folder that a spec means; see `rfm.data.database.open_database`.

    Raises:
        ValueError: lists what was tried, and the databases under `root`.
    """
    text = str(spec)
    here = Path(spec).expanduser()
    if not text:
        raise ValueError("no database given; give a folder, a name under data.root or a Hub name")
    tried = []
    for folder in [here, *([] if root is None else [Path(root).expanduser() / here])]:
        if (folder / "manifest.yaml").is_file():
            return folder
        tried.append(f"{folder} ({_EMPTY if folder.is_dir() else 'no folder'})")
    if not (here.is_absolute() or text.startswith((".", "~")) or here.is_dir()):
        for repo, subdir in _hub_places(text):
            folder_or_none = _in_cache(repo, subdir)
            if folder_or_none is not None:
                return folder_or_none
            tried.append(f"the local Hub cache of {repo}")
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE:
            tried.append("not the Hub itself (HF_HUB_OFFLINE=1)")
        else:
            downloaded, failure = _download(text)
            if downloaded is not None:
                return downloaded
            tried.append(f"the Hub ({failure})")
    there = [] if root is None else list_databases(Path(root).expanduser())
    known = f"; under {root}: {suggest(text, there)}" if there else ""
    if root is None:
        known = "; data.root=<folder of databases> was not given"
    raise ValueError(
        without_secrets(
            f"no database {text!r}; tried {', '.join(tried)}{known}; or give what `rfm import` "
            "takes: a database URL, a .sqlite or .duckdb file, a folder of CSV or parquet files"
        )
    )


def list_databases(root: Path) -> list[str]:
    """The names of the RelBench folders directly under `root`, sorted."""
    return sorted(path.parent.name for path in root.glob("*/manifest.yaml"))


def _hub_places(spec: str) -> list[tuple[str, str]]:
    """Repositories and the folders in them that a Hub name may mean."""
    from relbench.hf import RELBENCH_REPOS

    parts = [part for part in spec.split("/") if part]
    if len(parts) == 1:
        return [(repo, parts[0]) for repo in RELBENCH_REPOS]
    return [("/".join(parts[:2]), "/".join(parts[2:]))] if parts else []


def _in_cache(repo: str, subdir: str) -> Path | None:
    """The folder in the local Hub cache, where all of it is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        local = snapshot_download(repo, repo_type="dataset", local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    folder = Path(local) / subdir
    if not (folder / "manifest.yaml").is_file():
        return None
    try:
        manifest = yaml.safe_load((folder / "manifest.yaml").read_text(encoding="utf-8"))
        tables = list(manifest["tables"])
    except (yaml.YAMLError, KeyError, TypeError):
        return folder  # whole or not, opening it will say what is wrong
    return folder if all((folder / "db" / f"{t}.parquet").is_file() for t in tables) else None


def _download(spec: str) -> tuple[Path | None, str]:
    """The downloaded folder, or why there is none."""
    from relbench.hf import download_dataset_dir

    try:
        folder = download_dataset_dir(spec)
    except Exception as error:  # no network, no such repository, no access: the caller reports it
        return None, f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    if not (folder / "manifest.yaml").is_file():
        return None, f"no manifest.yaml in {spec}"
    return folder, ""
