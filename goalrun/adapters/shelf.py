"""What calls of a flow said: what is short in the journal itself, else one file each, whole, its digest there."""

import hashlib
from pathlib import Path

from goalrun.adapters.files import private_folder, write_whole
from goalrun.core.flow.model import Result

RESULT = "result.json"
MAX_BYTES = 64 << 20
SHORT_BYTES = 2_000


class FileShelf:
    """Results as files below the goal's folder; see ``flows.ports.Shelf``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, place: str, result: Result) -> tuple[str, str]:
        """Keep a result durably: where, or where it is short all of it, and its digest."""
        data = result.model_dump_json(by_alias=True).encode("utf-8", "surrogatepass")
        if len(data) <= SHORT_BYTES:
            return data.decode("utf-8", "surrogatepass"), ""
        path = private_folder(self._folder / place) / RESULT
        write_whole(path, data)
        return str(path.relative_to(self._folder)), hashlib.sha256(data).hexdigest()

    def get(self, place: str, digest: str) -> Result | None:
        """What was kept; None where it is not what it was."""
        if place.startswith("{"):
            return Result.model_validate_json(place)
        try:
            with (self._folder / place).open("rb") as file:
                data = file.read(MAX_BYTES)
        except OSError:
            return None
        return Result.model_validate_json(data) if hashlib.sha256(data).hexdigest() == digest else None
