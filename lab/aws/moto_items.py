"""DynamoDB's items out of moto at half the cost.

moto looks for a member of an answer under up to four spellings, in each of the eleven types that a value of an item might be of: half the
time of a GetItem. The values it keeps have the API's own names, so here one look is enough.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def quick() -> None:
    """Give moto's answers this way to find values, from now on."""
    from moto.core import responses
    from moto.core.serialize import AttributePickerContext, XFormedAttributePicker

    class Picker(XFormedAttributePicker):
        """moto's, but for the types of an item's values."""

        def __call__(self, context: AttributePickerContext) -> Any:
            parent = getattr(context.shape, "parent", None)
            if parent is not None and parent.name == "AttributeValue" and type(context.obj) is dict and not self.response_transformers:
                return context.obj.get(context.key)
            return super().__call__(context)

    responses.XFormedAttributePicker = Picker  # type: ignore[attr-defined]  # a name that moto imports there, and looks up for each answer
