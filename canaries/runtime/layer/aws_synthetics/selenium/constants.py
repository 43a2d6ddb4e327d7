"""Names that a run needs in more than one place."""

from __future__ import annotations

from typing import Final

NAMESPACE: Final = "CloudWatchSynthetics"
USER_AGENT: Final = "CloudWatchSynthetics"
BROWSER: Final = "Chrome"
RUNTIME: Final = "crosswatch-stand-in"
