"""What a run leaves behind: config, versions, data fingerprints, metrics, checkpoints, model."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from rfm.config import config_yaml, save_config
from rfm.files import file_hash, publish
from rfm.nn.model_folder import WEIGHTS

_PACKAGES = (
    "rfm", "torch", "lightning", "torch-geometric", "transformers", "tokenizers", "relbench",
    "datasets", "omegaconf", "numba", "numpy", "pandas", "pyarrow", "safetensors", "wandb",
    "huggingface-hub", "scikit-learn", "lightgbm", "duckdb",
)  # fmt: skip


def new_run_dir(name: str) -> Path:
    """``runs/<name>-<time>``, not there yet."""
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def weights_of(checkpoint: str) -> dict[str, str]:
    """The fingerprint of the weights in a checkpoint's folder, if it is one."""
    weights = Path(checkpoint) / WEIGHTS
    return {"checkpoint": file_hash(weights)} if weights.is_file() else {}


def write_json(path: Path, content: Any) -> None:
    with publish(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")


def versions() -> dict[str, Any]:
    """Packages, machine and, in a git checkout, the commit (``-dirty`` with changes)."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device or platform.machine(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "packages": found,
    }


def commit() -> str:
    """The commit of the code, or ``unknown`` outside a git checkout."""
    here = Path(__file__).parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here, capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def start_run(run_dir: Path, config: Any, fingerprints: Mapping[str, str]) -> None:
    """Record what the run is made of."""
    run_dir.mkdir(parents=True, exist_ok=True)
    save_config(config, run_dir / "config.yaml")
    write_json(run_dir / "versions.json", versions())
    write_json(run_dir / "data.json", dict(fingerprints))


def check_same_run(
    run_dir: Path,
    config: Any,
    fingerprints: Mapping[str, str],
    free: tuple[str, ...],
    instead: str = "or start over with resume=never",
) -> None:
    """Refuse to resume from checkpoints of a run whose config or data differ.

    Args:
        run_dir: of the run that wrote the checkpoint.
        free: dotted keys (or their beginnings) that may differ.
        instead: what else than another run_dir one may choose.

    Raises:
        ValueError: naming the keys and both values, or a file of the run that is missing.
    """
    for name in ("config.yaml", "data.json"):
        if not (run_dir / name).is_file():
            raise ValueError(
                f"{run_dir} holds checkpoints but no {name}, so that nobody can tell what they are "
                f"of: choose another run_dir, {instead}"
            )
    before = _flat(_read(run_dir / "config.yaml", yaml.safe_load, instead))
    now = _flat(yaml.safe_load(config_yaml(config)))
    keys = sorted(
        key
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key) and not any(_under(key, prefix) for prefix in free)
    )
    if keys:
        changes = "; ".join(f"{k}: was {before.get(k)!r}, now {now.get(k)!r}" for k in keys)
        if "trainer.precision" in keys:
            changes += ", which auto stands for here"
        raise ValueError(
            f"{run_dir} holds a run with another config ({changes}): give the same config, choose "
            f"another run_dir, {instead}"
        )
    data = _read(run_dir / "data.json", json.loads, instead)
    changed = sorted(
        n for n in data.keys() | fingerprints.keys() if data.get(n) != fingerprints.get(n)
    )
    if changed:
        raise ValueError(
            f"{run_dir} holds a run on other data, {changed} changed since: choose another "
            f"run_dir, {instead}"
        )


def _read(path: Path, parse: Callable[[str], Any], instead: str) -> dict[str, Any]:
    """A mapping from a file of a run."""
    try:
        content = parse(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}; choose another run_dir, {instead}"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged; choose another run_dir, {instead}")
    return content


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _under(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(f"{prefix}.")
