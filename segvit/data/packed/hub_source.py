"""Open datasets of the Hugging Face library `datasets` (the extra `hub`): of the Hub, saved folders, parquet files.

    tables = open_tables(config)                # {"train": Dataset, "validation": Dataset}

The code of a repository is never run, and nothing is unpickled: segvit opens only tables and folders of images.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segvit.config import DataConfig
from segvit.data.pairs import first
from segvit.errors import UserError
from segvit.utils.optional import need
from segvit.utils.text import REPOSITORY

SAFE_BUILDERS = ("parquet", "arrow", "imagefolder")
"""Readers of `datasets` that segvit allows. The others are for formats without images, or for shards."""
SAVED = ("dataset_dict.json", "state.json")
"""Files by which a folder of `save_to_disk` is known: of several splits, and of one."""


def open_tables(config: DataConfig) -> Mapping[str, Any]:
    """Open the splits of `data.hub`, each as a `datasets.Dataset`. Splits without rows are left out.

    Raises:
        UserError: the library is missing, there is no such folder or repository, or it holds no tables of images.
    """
    assert config.hub is not None
    check_hub(config)
    need("datasets", "Hugging Face datasets", extra="hub")
    from datasets import DatasetDict, load_from_disk

    with _opening(config.hub):
        if is_saved(Path(config.hub)):
            found = load_from_disk(config.hub)
        else:
            found = _load(config.hub, config.hub_subset)
    splits = dict(found) if isinstance(found, DatasetDict) else {"train": found}
    splits = {str(name): rows for name, rows in splits.items() if len(rows)}
    if not splits:
        raise UserError(f"data.hub: {config.hub} has no rows; give another dataset")
    return splits


def check_hub(config: DataConfig) -> None:
    """Refuse a dataset that cannot be one, without opening it.

    Raises:
        UserError: there is no such folder, and the name is no repository; or the folder holds no such dataset.
    """
    assert config.hub is not None
    folder = Path(config.hub)
    if folder.is_file():
        raise UserError(f"data.hub: {folder} is a file; give the folder that holds it")
    if not folder.is_dir() and (REPOSITORY.fullmatch(config.hub) is None or folder.parent.is_dir()):
        raise UserError(
            f"data.hub: there is no folder {folder}, and it is not a repository of the Hugging Face Hub: give "
            "`user/dataset`, a folder saved by `save_to_disk`, or a folder of parquet files"
        )
    if is_saved(folder) and config.hub_subset is not None:
        raise UserError(f"data.hub_subset is {config.hub_subset!r}, but {folder} holds one dataset; leave it out")


def is_saved(folder: Path) -> bool:
    """True if the folder was written by `save_to_disk`."""
    return any((folder / name).is_file() for name in SAVED)


def fetch_text(source: str, file: str) -> str | None:
    """Return the text of a file in a folder or in a dataset of the Hub. None if there is no such file.

    Raises:
        UserError: the file is not UTF-8, or the Hub cannot be reached.
    """
    path: Path | None = Path(source) / file
    if not Path(source).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        repo, revision = _split_revision(source)
        with _opening(source):
            try:
                path = Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision))
            except EntryNotFoundError:
                path = None
    if path is None or not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as UTF-8 text") from error


def _load(source: str, subset: str | None) -> Any:
    """Return the splits of a repository, or of a folder of parquet files or images."""
    from datasets import load_dataset_builder

    path, revision = (source, None) if Path(source).is_dir() else _split_revision(source)
    builder = load_dataset_builder(path, name=subset, revision=revision)
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in SAFE_BUILDERS:
        tables = f"--data.hub {source.partition('@')[0]}@refs/convert/parquet"
        remedy = f"give the Hub's tables of it, `{tables}`, or save it as parquet"
        if kind == "webdataset":
            remedy = "give its .tar files as data.shards"
        raise UserError(f"data.hub: {source} has files of the kind {kind}, not {first(SAFE_BUILDERS)}; {remedy}")
    builder.download_and_prepare()
    return builder.as_dataset()


def _split_revision(source: str) -> tuple[str, str | None]:
    """Return the repository and the revision in `user/dataset@revision`."""
    match = REPOSITORY.fullmatch(source)
    assert match is not None
    return match["repo"], match["revision"]


@contextmanager
def _opening(source: str) -> Iterator[None]:
    """Turn what `datasets` raises into an error that names the dataset.

    Raises:
        UserError: something inside the block failed.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the library passes on what its transport and its readers raise
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "check the name, the network and `hf auth login`" if not Path(source).is_dir() else "save it again"
        if "Config name is missing" in reason or "BuilderConfig" in reason:
            remedy = "choose one with --data.hub-subset"
        raise UserError(f"data.hub: {source} cannot be opened ({reason}); {remedy}") from error
