"""The Hugging Face Hub: a file from a repository, a model into one; and the folder where segvit keeps what it fetched.

The Hub's own settings hold: HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.
"""

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from segvit.errors import UserError
from segvit.weights.card import model_card
from segvit.weights.model_file import read_header, save_model

if TYPE_CHECKING:
    from segvit.models.segvit import SegViT

MODEL_FILE = "model.safetensors"
"""Name of the model in a repository."""
CACHE_VARIABLE = "SEGVIT_CACHE"
"""Environment variable that names another folder than the platform's."""
REPOSITORY = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>\S+))?")
"""`user/repo` or `user/repo@revision`."""


class NotOnHub(UserError):
    """The Hub answers, but has no such file; or it does not answer."""


def cache_folder() -> Path:
    """Where converted models of the zoo are kept: $SEGVIT_CACHE, or the platform's folder for caches."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "segvit"


def fetch(repo: str, file: str, *, revision: str | None = None) -> Path:
    """A file of a repository, from the Hub or from the Hub's own cache of former downloads.

    Args:
        repo: `user/repo`.
        file: its name there.
        revision: branch, tag or commit. Default: main.

    Raises:
        NotOnHub: it cannot be had; the text says why.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except LocalEntryNotFoundError as error:
        reason = "no connection to it, and no former download here"
        if not constants.HF_HUB_OFFLINE:  # which the library tries for half a minute, six times
            reason += " (without a network, HF_HUB_OFFLINE=1 says so at once)"
        raise NotOnHub(f"{file} of {repo} on the Hugging Face Hub: {reason}") from error
    except GatedRepoError as error:
        reason = f"its owner asks for consent: ask for access at {_address(repo)}, then `hf auth login`"
        raise NotOnHub(f"{file} of {repo} on the Hugging Face Hub: {reason}") from error
    except RepositoryNotFoundError as error:
        reason = "no such repository, or a private one: `hf auth login` as somebody who may read it"
        raise NotOnHub(f"{repo} on the Hugging Face Hub: {reason}") from error
    except RevisionNotFoundError as error:
        raise NotOnHub(f"{repo} on the Hugging Face Hub: no branch, tag or commit {revision!r}") from error
    except EntryNotFoundError as error:
        raise NotOnHub(f"{repo} on the Hugging Face Hub: no {file} in it, so not a model of segvit") from error
    except Exception as error:  # the Hub's library lets through what its transport raises
        raise NotOnHub(f"{file} of {repo} on the Hugging Face Hub: {error}") from error


def push_model(model: "SegViT", repo: str, *, private: bool, token: str | None) -> str:
    """Write a model and its card into a repository; see `SegViT.push_to_hub`.

    Raises:
        UserError: a name that is not user/repo, or the Hub cannot be reached or does not take it.
    """
    from huggingface_hub import HfApi

    match = REPOSITORY.fullmatch(repo)
    if match is None or match["revision"]:
        raise UserError(f"{repo!r} is no repository of the Hugging Face Hub: give `user/repo`")
    with TemporaryDirectory() as folder:
        file = Path(folder) / MODEL_FILE
        save_model(model, file)
        (file.parent / "README.md").write_text(model_card(read_header(file), repo=repo), encoding="utf-8")
        api = HfApi(token=token)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Model of segvit")
        except Exception as error:  # the Hub's library lets through what its transport raises
            raise UserError(
                f"{repo}: the Hugging Face Hub does not take the model ({error}); log in with `hf auth login` as "
                "somebody who may write there, or give a token"
            ) from error
    return _address(repo)


def _address(repo: str) -> str:
    """Of a repository, for a browser."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}"
