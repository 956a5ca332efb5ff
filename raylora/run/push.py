"""A run's adapter or merged model on the hub, with its model card."""

from __future__ import annotations

import tempfile
from pathlib import Path

from raylora.errors import UserError
from raylora.models import public_name
from raylora.run.export import export
from raylora.run.folder import read_run


def push(run_dir: str | Path, repo: str, *, merge: bool = False, private: bool = False, base: str | None = None) -> str:
    """Upload what `export` writes as a model repository, in one commit; returns its address.

    The token is that of `hf auth login` or `HF_TOKEN`; `HF_ENDPOINT` names another hub.

    Args:
        repo: `ORG/NAME`; made where it is not there.
        private: of a repository that is made.
        base: Hub id of the base model, for a base that is a folder and does not say.

    Raises:
        UserError: as `export`; nobody else would find the base; the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    _, spec = read_run(run_dir)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UserError(f"REPO: {repo!r}; allowed: ORG/NAME", field="REPO", value=repo)
    named = base or public_name(spec.model)
    if named is None and not merge:
        raise UserError(
            f"--base: the base is the folder {spec.model}, which nobody else has; name its hub id, or add --merge",
            field="--base",
            value=spec.model,
        )
    with tempfile.TemporaryDirectory() as place:
        folder = export(run_dir, Path(place) / repo.split("/")[1], merge=merge, base=named)
        try:
            api = HfApi()
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Add what raylora found")
        except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled, OSError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"REPO: the hub does not take {repo!r}: {first}; check `hf auth whoami`, the name and the network",
                field="REPO",
                value=repo,
            ) from error
    return f"{api.endpoint}/{repo}"
