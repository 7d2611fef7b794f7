"""Settings: a YAML file, a profile over it, the environment over that, the caller's words over all."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError

from mlops.errors import BadConfiguration
from mlops.values import Group

PREFIX = "MLOPS_"
NOT_SETTINGS = ("MLOPS_TEST_",)

Tree = dict[str, Any]


class Platform(Group):
    """Where the platform keeps what it makes; the scheme of a URL picks the adapter.

    In the place of a URL with a password stands the name of a secret: `secret://NAME` or `secret://NAME#FIELD`.
    """

    objects: str = Field("file://var", description="Files by key: file://FOLDER or s3://BUCKET[/PREFIX].")
    online: str = Field(
        "memory://", description="What live features remember: memory://, redis://HOST:PORT/NUMBER or secret://NAME."
    )
    journal: str = Field(
        "sqlite:///var/journal.db",
        description="Every decision: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME or secret://NAME.",
    )
    ledger: str = Field(
        "sqlite:///var/ledger.db",
        description="Every release, check and alert: a database of its own, sqlite:/// or postgresql:// as above.",
    )
    tracking: str = Field(
        "sqlite:///var/mlflow.db", description="MLflow's store: sqlite:///, postgresql://, http:// or secret://."
    )
    artifacts: str = Field(
        "var/mlartifacts", description="Where MLflow keeps a run's files; a server at http:// decides that itself."
    )


G = TypeVar("G", bound=Group)


def read(
    kind: type[G], file: Path, profile: str, environ: Mapping[str, str], arguments: Mapping[str, Any] | None = None
) -> G:
    """Read one `kind` of settings from `file`, with the profile, the environment and the arguments laid over it.

    Raises `BadConfiguration` with one line for everything that is wrong: a missing file, an unknown profile, an unknown
    key or variable, a value of the wrong type.
    """
    tree = _lay(_tree(file, profile, environ), dict(arguments or {}))
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise BadConfiguration(f"{file}: {_explain(error, kind)}") from None


def section(kind: type[G], name: str, file: Path, profile: str, environ: Mapping[str, str]) -> G:
    """Read one group of the settings of any module, laid over in the same way; the others are left to the module."""
    tree = _tree(file, profile, environ)
    try:
        return kind.model_validate(tree.get(name) or {})
    except ValidationError as error:
        raise BadConfiguration(f"{file}: in '{name}': {_explain(error, kind)}") from None


def variables(kind: type[Group], prefix: str = PREFIX) -> list[str]:
    """Name the environment variable of every setting of `kind` that is not itself a group."""
    names = []
    for name, field in kind.model_fields.items():
        inner, key = field.annotation, f"{prefix}{name.upper()}"
        if isinstance(inner, type) and issubclass(inner, Group):
            names += variables(inner, f"{key}__")
        else:
            names.append(key)
    return names


def _tree(file: Path, profile: str, environ: Mapping[str, str]) -> Tree:
    """The file with the profile and the environment laid over it."""
    tree = _load(file)
    profiles = tree.pop("profiles", None) or {}
    if profile not in profiles and profile != "local":
        known = ", ".join(sorted({"local", *profiles}))
        raise BadConfiguration(f"{file} has no profile '{profile}'; it has: {known}")
    tree = _lay(tree, profiles.get(profile) or {})
    return _lay(tree, _spelt_as(tree, _from_environment(environ)))


def _load(file: Path) -> Tree:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfiguration(f"cannot read the configuration {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise BadConfiguration(f"{file} must hold a mapping of groups such as 'data:', not {type(tree).__name__}")
    return tree


def _lay(below: Tree, above: Mapping[str, Any]) -> Tree:
    """Lay one tree over another: mappings are merged, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _lay(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _from_environment(environ: Mapping[str, str]) -> Tree:
    tree: Tree = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable.startswith(NOT_SETTINGS):
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        for key in reversed(variable.removeprefix(PREFIX).lower().split("__")):
            value = {key: value}
        tree = _lay(tree, value)
    return tree


def _spelt_as(tree: Tree, environment: Tree) -> Tree:
    """Give the keys of the environment, which has only capitals, the spelling that the tree has: `TX_AMOUNT`."""
    spelt: Tree = {}
    for key, value in environment.items():
        known = next((name for name in tree if str(name).lower() == key), key)
        below = tree.get(known)
        spelt[known] = _spelt_as(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return spelt


def _explain(error: ValidationError, kind: type[Group]) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        path = [str(part) for part in problem["loc"]]
        name = ".".join(path)
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key '{name}'{_nearest(path, kind)}; remove it or correct its spelling")
        elif problem["type"] == "missing":
            lines.append(f"'{name}' is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"'{name}': {message}" if path else message)
    return "; ".join(lines)


def _nearest(path: list[str], kind: type[Group]) -> str:
    inner: Any = kind
    for part in path[:-1]:
        field = getattr(inner, "model_fields", {}).get(part)
        inner = field.annotation if field else None
    close = difflib.get_close_matches(path[-1], list(getattr(inner, "model_fields", {})), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
