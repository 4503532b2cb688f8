"""The folder of a saved model: its files, and where it is."""

from __future__ import annotations

import os
from pathlib import Path

WEIGHTS, CONFIG, TOKENIZER, CARD = "model.safetensors", "config.json", "tokenizer.json", "README.md"


def find_model(
    folder_or_id: str | Path, revision: str | None = None, local_files_only: bool = False
) -> Path:
    """The local folder of a saved model; a Hub id is looked up on the Hub, or in its local cache
    with ``local_files_only`` or HF_HUB_OFFLINE=1.

    Raises:
        ValueError: if there is none, or a file of it is missing.
    """
    folder = Path(folder_or_id).expanduser()
    if folder.is_file():
        raise ValueError(
            f"checkpoint {folder} is a file, wanted a folder with {CONFIG}, {WEIGHTS} and "
            f"{TOKENIZER}: a run writes one at its end, <run_dir>/model (its .ckpt files are for "
            "`resume=` alone)"
        )
    if not folder.is_dir():
        folder = _from_hub(str(folder_or_id), revision, local_files_only)
    if missing := [name for name in (CONFIG, WEIGHTS, TOKENIZER) if not (folder / name).is_file()]:
        raise ValueError(f"checkpoint {folder} lacks {', '.join(missing)}: {_remedy(folder)}")
    return folder


def _remedy(folder: Path) -> str:
    near = [folder / "model", *sorted(folder.glob("*/model")), folder.with_name("model")]
    if found := [path for path in near if path != folder and (path / CONFIG).is_file()]:
        return f"it is the folder of a run, or within one, whose model is {found[0]}"
    if (folder / "config.yaml").is_file() and (folder / "versions.json").is_file():
        return "it is the folder of a run that has not ended: its model is written at the end"
    return "copy the whole folder that save_pretrained wrote (a run keeps it under <run_dir>/model)"


def _from_hub(name: str, revision: str | None, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download  # slow import

    offline = local_files_only or os.environ.get("HF_HUB_OFFLINE") == "1"
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=offline))
    except Exception as error:  # no network, no such repository, no access, no name of one
        said = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"checkpoint '{name}' is neither a local folder nor to be had from the Hub ({said}); "
            "wanted the folder of a model, such as <run_dir>/model after `python -m pretrain`, or "
            "a Hub id, such as me/my-model"
        ) from error
