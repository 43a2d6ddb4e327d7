"""Traces are kept compressed, come back as they were, and the oldest go when there is no more room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.aws.services.xray import store
from lab.aws.services.xray.segments import Segment
from lab.aws.services.xray.store import TraceStore

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


def segment(trace: int, number: int, start: float = 0.0, **more: object) -> Segment:
    identity = f"1-{trace:08x}-{'0' * 24}"
    document = {"id": f"{number:016x}", "trace_id": identity, "name": "catalog", "start_time": start, "end_time": start + 1.5, **more}
    return Segment(identity, f"{number:016x}", None, "catalog", document, 1000)


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=5))
def test_a_document_comes_back_as_it_was(metadata: dict[str, object]) -> None:
    kept = TraceStore()
    sent = segment(1, 2, 1_700_000_000.123456, metadata={"default": metadata})
    kept.add([sent])
    trace = kept.get(sent.trace_id)
    assert trace is not None
    assert trace.segments[sent.id] == sent
    assert [each.id for each in kept.between(1_700_000_000, 1_700_000_001, overlap=False)] == [sent.trace_id]


def test_the_oldest_go_and_what_is_counted_is_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_BYTES", 50_000)
    kept = TraceStore()
    for number in range(300):
        kept.add(
            [segment(number, 1, float(number)), segment(number, 2, float(number)), segment(number, 1, float(number), in_progress=False)]
        )
    assert kept.get(segment(0, 1).trace_id) is None
    left = kept.between(0, 300, overlap=True)
    assert [trace.start for trace in left] == [float(number) for number in range(299, 299 - len(left), -1)]
    assert 20 <= len(left) <= 50_000 // (2 * store.OVERHEAD_BYTES)
    assert all(len(trace.segments) == 2 for trace in left)


def test_looking_for_traces_unpacks_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newest first; a segment that is sent again takes its trace to its new time."""
    kept = TraceStore()
    kept.add([segment(number, 1, float(number)) for number in range(5)])
    kept.add([segment(2, 1, 10.0), segment(3, 2, 1.0)])
    monkeypatch.setattr(store.zlib, "decompress", None)
    found = kept.identities(0.0, 20.0, overlap=False)
    assert found == [segment(number, 1).trace_id for number in (2, 4, 1, 3, 0)]
    assert kept.identities(11.2, 20.0, overlap=True) == [segment(2, 1).trace_id]
    assert kept.service_of(segment(3, 2).trace_id, segment(3, 2).id) == "catalog"
    assert kept.service_of(segment(3, 9).trace_id, segment(3, 9).id) is None
