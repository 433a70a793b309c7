"""Where the local service and its key are written down, so that the SDK and the command line find them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dianaq.errors import DianaqError


class LocalService(BaseModel):
    """A service on this machine: its address, and a key of its owner."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    url: str
    key: str


def config_path() -> Path:
    """`dianaq/local.json` in the user's configuration folder (`$XDG_CONFIG_HOME`, default `~/.config`)."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "dianaq" / "local.json"


def load_local() -> LocalService | None:
    """The service that was written down last; None when there is none.

    Raises:
        DianaqError: the file cannot be read or holds something else.
    """
    path = config_path()
    try:
        return LocalService.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DianaqError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError:
        raise DianaqError(
            f"{path} does not hold the address and key of a service; remove it and run `dianaq up`"
        ) from None


def save_local(url: str, key: str) -> Path:
    """Write a service down. The file appears whole or not at all, and only its owner can read it.

    Returns:
        The file's path.
    """
    path = config_path()
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(LocalService(url=url, key=key).model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return path
