"""What the endpoints of a gateway work with."""

from __future__ import annotations

import msgspec

from adapter.http.authorization import Keys
from adapter.metrics import Metrics
from adapter.models import Models
from adapter.running.life import Life
from adapter.settings import Settings
from subnet import RemoteManager, SessionManager


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    settings: Settings
    keys: Keys
    models: Models
    sessions: SessionManager
    remotes: RemoteManager
    life: Life
    metrics: Metrics
