"""`docs/api.md` says what the code does."""

from __future__ import annotations

from pathlib import Path

import fastapi.routing
import pytest

from dianaq import _retry
from dianaq.errors import KeyInUse, KeyReused
from dianaq_service import idempotency
from dianaq_service.events import endpoints, follow, thinning
from dianaq_service.uploads import receive

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "api.md").read_text().split())


@pytest.mark.parametrize(
    "sentence",
    [
        f"the newest of each label, of the newest {thinning.PROGRESS_KEPT} labels",
        f"the first {thinning.LOGS_FIRST} and the newest {thinning.LOGS_LAST}; a note",
        f"of a message {thinning.MESSAGE_CHARACTERS:,} characters",
        f"ends after {follow.MAX_SECONDS / 60:.0f} minutes",
        {0.1: "looks at the database ten times a second"}[follow.POLL_SECONDS],
        f"(`: ping`) every {fastapi.routing._PING_INTERVAL:.0f} seconds",
        f"retry: {endpoints.RECONNECT_MILLISECONDS}",
        f"422 `{KeyReused.slug}`",
        f"409 `{KeyInUse.slug}`",
        f"`{idempotency.REPLAYED_HEADER}: true`",
        f"forgotten after {idempotency.KEEP.total_seconds() / 3600:.0f} hours",
        {60.0: "after a minute if the client fell silent"}[receive.SILENCE_SECONDS],
        {5: "sent up to five times"}[_retry.TRIES],
    ],
)
def test_figures_and_names(sentence: str) -> None:
    assert sentence in PAGE
