"""Parts of uploaded networks that jobs want: looked into before a job is queued, each once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from dianaq.errors import InvalidModel
from dianaq.schemas.resources import Model, ModelInfo
from dianaq.schemas.spec import JobSpec, NetworkPart
from dianaq_service.database import Database, ModelRow
from dianaq_service.storage import Storage
from dianaq_service.uploads.inspect import Inspector

REMEMBERED = 1_000
"""Parts whose inspection is not repeated: a few MB. Sweeps and repeated submissions name the same ones."""

Wanted = tuple[str, NetworkPart]
"""An upload and the part of it."""

Found = Mapping[Wanted, ModelInfo]

NO_PARTS: Found = MappingProxyType({})


class Parts:
    """What inspection found in parts of networks. Lives in the event loop of a process."""

    def __init__(self, database: Database, storage: Storage, inspector: Inspector) -> None:
        self._database = database
        self._storage = storage
        self._inspector = inspector
        self._known: OrderedDict[tuple[str, NetworkPart], ModelInfo] = OrderedDict()

    async def inspect(self, owner: str, specs: Iterable[JobSpec]) -> Found:
        """The parts that some jobs want. Those of no network of the owner's are left out: the intake refuses them.

        Raises:
            InvalidModel, UnsupportedOperator: a part cannot be used.
            InvalidSpec: a network has no such part.
        """
        wanted = dict.fromkeys((spec.upload, spec.part) for spec in specs if spec.upload and spec.part)
        found: dict[Wanted, ModelInfo] = {}
        for upload, part in wanted:
            if upload is None or part is None:
                continue
            sha256 = await asyncio.to_thread(self._network, owner, upload)
            if sha256 is not None:
                found[upload, part] = await self._look_into(owner, sha256, part)
        return found

    def _network(self, owner: str, upload: str) -> str | None:
        """The digest of an uploaded network; None for any other upload, and for another owner's."""
        with self._database.read() as session:
            row = session.get(ModelRow, upload)
        if row is None or row.owner != owner:
            return None
        model = Model.model_validate(row, from_attributes=True)
        return model.sha256 if isinstance(model.info, ModelInfo) else None

    async def _look_into(self, owner: str, sha256: str, part: NetworkPart) -> ModelInfo:
        info = self._known.get((sha256, part))
        if info is None:
            path = self._storage.blob(owner, sha256)
            info = ModelInfo.model_validate(await self._inspector.inspect("model", path, InvalidModel, part))
        self._known[sha256, part] = info
        self._known.move_to_end((sha256, part))
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return info
