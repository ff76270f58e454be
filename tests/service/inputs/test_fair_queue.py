"""The fair queue: lanes take turns, items of similar size are taken together, and no item is lost or starved."""

from hypothesis import given
from hypothesis import strategies as st

from service.inputs.fair_queue import FairQueue

lanes = st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=9), min_size=1, max_size=9)


def filled(content: list[list[int]], *, sized: bool = False) -> FairQueue[int, tuple[int, int, int]]:
    """A queue of items (lane, position in the lane, size)."""
    queue: FairQueue[int, tuple[int, int, int]] = FairQueue((lambda item: item[2]) if sized else None)
    for lane, sizes in enumerate(content):
        queue.extend(lane, [(lane, position, size) for position, size in enumerate(sizes)])
    return queue


def test_lanes_take_turns() -> None:
    queue = filled([[1, 1, 1], [1], [1, 1]])
    assert [lane for lane, _, _ in queue.take(4)] == [0, 1, 2, 0]
    assert [lane for lane, _, _ in queue.take(4)] == [2, 0]
    assert queue.take(4) == []


def test_a_new_lane_is_served_in_the_next_round() -> None:
    queue = filled([[1] * 10])
    queue.take(3)
    queue.extend(7, [(7, 0, 1)])
    assert [lane for lane, _, _ in queue.take(3)] == [0, 7, 0]


def test_items_appended_to_a_lane_follow_its_earlier_items() -> None:
    queue = filled([[1, 1], [1]])
    queue.extend(0, [(0, 2, 1), (0, 3, 1)])
    assert len(queue) == 5
    assert [(lane, position) for lane, position, _ in queue.take(9)] == [(0, 0), (1, 0), (0, 1), (0, 2), (0, 3)]
    assert len(queue) == 0


@given(lanes, st.integers(1, 7), st.booleans(), st.sets(st.integers(0, 8)))
def test_every_item_is_taken_once_except_those_of_discarded_lanes(
    content: list[list[int]], count: int, sized: bool, discarded: set[int]
) -> None:
    queue = filled(content, sized=sized)
    taken = queue.take(count)
    for lane in discarded:
        queue.discard(lane)
    remaining = [(lane, position, size) for lane, sizes in enumerate(content) for position, size in enumerate(sizes)]
    remaining = [item for item in remaining if item not in taken and item[0] not in discarded]
    assert len(queue) == len(remaining)
    rest = []
    while queue:
        batch = queue.take(count)
        assert 1 <= len(batch) <= count
        rest += batch
    assert sorted(rest) == remaining


def test_items_of_similar_size_are_taken_together() -> None:
    queue = filled([[100], [10], [95], [12], [110], [11]], sized=True)
    assert [size for _, _, size in queue.take(3)] == [100, 95, 110]
    assert [size for _, _, size in queue.take(3)] == [10, 12, 11]


def test_fewer_large_items_are_taken_where_positions_are_bounded() -> None:
    queue = filled([[100], [90], [10], [100], [12], [500]], sized=True)
    assert [size for _, _, size in queue.take(8, max_positions=250)] == [100, 100]
    assert [size for _, _, size in queue.take(8, max_positions=250)] == [90]
    assert [size for _, _, size in queue.take(8, max_positions=250)] == [10, 12]
    assert [size for _, _, size in queue.take(8, max_positions=250)] == [500]


@given(lanes, st.integers(1, 7), st.integers(1, 400))
def test_items_taken_together_stay_within_the_bound_on_positions(
    content: list[list[int]], count: int, max_positions: int
) -> None:
    queue = filled(content, sized=True)
    taken = 0
    while queue:
        sizes = [size for _, _, size in queue.take(count, max_positions)]
        assert 1 <= len(sizes) <= count
        assert len(sizes) == 1 or len(sizes) * max(sizes) <= max_positions
        taken += len(sizes)
    assert taken == sum(map(len, content))


@given(lanes, st.integers(1, 7))
def test_an_item_unlike_all_others_is_not_starved_by_new_items(content: list[list[int]], count: int) -> None:
    queue = filled(content, sized=True)
    queue.extend(99, [(99, 0, 100_000)])
    ahead = sum(map(len, content))
    taken: list[tuple[int, int, int]] = []
    for index in range(ahead + 1):
        taken += queue.take(count)
        queue.extend(100 + index, [(100 + index, 0, 50)])
    assert (99, 0, 100_000) in taken
