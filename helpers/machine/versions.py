"""Which packages the project asks for, as pyproject.toml says, and which are installed. Imports none of them."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from helpers.machine.paths import PROJECT

STACK = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate")  # what a result depends on


def pyproject() -> dict:
    """pyproject.toml."""
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def lower_bounds(extras: bool = False) -> dict[str, str]:
    """The oldest version of each package that the project works with; `extras`: for Jupyter and the tests, too."""
    project = pyproject()["project"]
    wanted = list(project["dependencies"])
    if extras:
        wanted += [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    return dict(requirement.split(">=") for requirement in wanted)


def installed_version(name: str) -> str | None:
    """The installed version of a package; None without."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def can_import(name: str) -> bool:
    """Whether a package can be imported; a folder that only happens to have its name does not count."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def versions(names: tuple[str, ...] = STACK) -> dict[str, str]:
    """The installed versions of these packages."""
    return {name: version(name) for name in names}
