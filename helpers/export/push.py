"""Publishing an exported folder on the Hub. Asks for nothing unless it is called, and prints no token."""

from pathlib import Path

from helpers.machine.language import phrase, tr

NO_CARD = phrase("{folder} has no README.md: export the run first, a model without a card helps nobody.")
NO_TOKEN = phrase(
    "there is no token on this machine. Make one with the role 'write' under Settings, Access Tokens on the Hub; then "
    "run `hf auth login` in a terminal, or on Colab add it as the secret HF_TOKEN."
)
OTHERS_READ = phrase("{repository} is {there} already, not {wanted}: choose another name, or PRIVATE.")
CONTENT = ("*.safetensors", "*.json", "*.jinja", "README.md")  # what an export consists of, and nothing else


class PushError(RuntimeError):
    """Nothing was uploaded; the message says why and what to do. It holds no token."""


def push(folder: Path, repository: str, *, private: bool = True, endpoint: str | None = None) -> str:
    """Uploads an exported folder to `repository` ("name/model"), and returns the address of the commit.

    private: whether only you (and those whom you name on the Hub) can read it. A repository that is there already must
    be so too: this never changes who can read one. endpoint: of another Hub; None is huggingface.co.
    Raises PushError when there is no token, it may not write, or the repository's visibility is another.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    folder, token = Path(folder), get_token()
    if not (folder / "README.md").exists():
        raise PushError(tr(NO_CARD, folder=folder.name))
    if not token:
        raise PushError(tr(NO_TOKEN))
    hub = HfApi(endpoint=endpoint, token=token)
    try:
        if hub.whoami().get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise PushError(tr("your token may only read: make one with the role 'write'."))
        hub.create_repo(repository, private=private, exist_ok=True)
        if bool(hub.repo_info(repository).private) != private:
            there, wanted = (tr("public"), tr("private")) if private else (tr("private"), tr("public"))
            raise PushError(tr(OTHERS_READ, repository=repository, there=there, wanted=wanted))
        return str(
            hub.upload_folder(
                repo_id=repository, folder_path=folder, allow_patterns=list(CONTENT), commit_message="Add the adapter"
            ).commit_url
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).replace(token, "***").splitlines()
        raise PushError(
            tr("the Hub refused ({kind}: {value}).", kind=type(error).__name__, value=(reason or [""])[0])
        ) from None
