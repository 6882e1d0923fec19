"""The only room that imports transformer_lens: named sites, and the states read there."""

from __future__ import annotations

from pythiageo.lens.bridge import BridgeReader

__all__ = ["BridgeReader"]
