"""DynamoDB's items out of moto at half the cost, and no dearer in a large table than in a small one.

moto looks for a member of an answer under up to four spellings, in each of the eleven types that a value of an item might be of: half the
time of a GetItem. The values it keeps have the API's own names, so here one look is enough. And its Query sorts the whole table to find
the items of one partition key, which it keeps together anyway.
"""

from __future__ import annotations

import functools
import threading
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
    _by_partition()


def _by_partition() -> None:
    """Have Query without an index look at the items of its partition key only."""
    from moto.dynamodb.models.table import Table

    query, all_items = Table.query, Table.all_items
    asked = threading.local()

    def of_one_key(table: Any, hash_key: Any, *args: Any, **kwargs: Any) -> Any:
        index = kwargs.get("index_name", args[6] if len(args) > 6 else None)
        asked.key = None if index else hash_key
        try:
            return query(table, hash_key, *args, **kwargs)
        finally:
            asked.key = None

    def items(table: Any) -> list[Any]:
        key = getattr(asked, "key", None)
        if key is None:
            return list(all_items(table))
        found = table.items.get(key)
        if found is None:
            return []
        return list(found.values()) if table.range_key_attr else [found]

    Table.query, Table.all_items = of_one_key, items  # type: ignore[method-assign, assignment]
