"""Download from and upload to the Hugging Face Hub.

The Hub's own settings apply: HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from segvit.errors import UserError
from segvit.utils.text import REPOSITORY
from segvit.weights.card import model_card
from segvit.weights.model_file import Saved, read_header, save_model

MODEL_FILE = "model.safetensors"
"""Name of the model in a repository."""


class NotOnHub(UserError):
    """A file that the Hub does not have, or a Hub that does not answer."""


def fetch(repo: str, file: str, *, revision: str | None = None) -> Path:
    """Return a file of a repository, from the Hub or from its cache of earlier downloads.

    Args:
        repo: `user/repo`.
        file: name of the file in the repository.
        revision: branch, tag or commit. Default: main.

    Raises:
        NotOnHub: the file cannot be fetched; the text says why.
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
        reason = "no connection to it, and no earlier download"
        if not constants.HF_HUB_OFFLINE:  # the library retries six times in half a minute
            reason += " (offline, HF_HUB_OFFLINE=1 skips the wait)"
        raise NotOnHub(f"{file} of {repo} on the Hugging Face Hub: {reason}") from error
    except GatedRepoError as error:
        reason = f"its owner must grant access: request it at {_address(repo)}, then run `hf auth login`"
        raise NotOnHub(f"{file} of {repo} on the Hugging Face Hub: {reason}") from error
    except RepositoryNotFoundError as error:
        reason = "no such repository, or a private one; run `hf auth login` with an account that may read it"
        raise NotOnHub(f"{repo} on the Hugging Face Hub: {reason}") from error
    except RevisionNotFoundError as error:
        raise NotOnHub(f"{repo} on the Hugging Face Hub: no branch, tag or commit {revision!r}") from error
    except EntryNotFoundError as error:
        raise NotOnHub(f"{repo} on the Hugging Face Hub: it has no {file}, so it is not a model of segvit") from error
    except Exception as error:  # the Hub's library passes on what its transport raises
        raise NotOnHub(f"{file} of {repo} on the Hugging Face Hub: {error}") from error


def push_model(model: Saved, repo: str, *, private: bool, token: str | None) -> str:
    """Write a model and its card into a repository; see `SegViT.push_to_hub`.

    Raises:
        UserError: the name is not user/repo, or the Hub cannot be reached or refuses the model.
    """
    from huggingface_hub import HfApi

    match = REPOSITORY.fullmatch(repo)
    if match is None or match["revision"]:
        raise UserError(f"{repo!r} is not a repository of the Hugging Face Hub: give `user/repo`")
    with TemporaryDirectory() as folder:
        file = Path(folder) / MODEL_FILE
        save_model(model, file)
        (file.parent / "README.md").write_text(model_card(read_header(file), repo=repo), encoding="utf-8")
        api = HfApi(token=token)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Model of segvit")
        except Exception as error:  # the Hub's library passes on what its transport raises
            raise UserError(
                f"{repo}: the Hugging Face Hub refuses the model ({error}); run `hf auth login` with an account that "
                "may write there, or give a token"
            ) from error
    return _address(repo)


def _address(repo: str) -> str:
    """Return the address of a repository for a browser."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}"
