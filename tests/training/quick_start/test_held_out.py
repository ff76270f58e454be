from hypothesis import given
from hypothesis import strategies as st

from training.quick_start.held_out import held_out_groups


def test_of_equal_groups_about_a_fifth_is_held_out() -> None:
    groups = {f"group{i}": 20 for i in range(20)}
    assert len(held_out_groups(groups)) == 4
    assert len(held_out_groups(dict.fromkeys("abcde", 50))) == 1


def test_one_group_or_a_dominant_one_with_tiny_others_gives_none() -> None:
    assert held_out_groups({}) == ()
    assert held_out_groups({"all": 100}) == ()
    assert held_out_groups({"most": 100, "few": 4}) == ()


def test_a_group_that_holds_most_outliers_is_trained_on() -> None:
    assert held_out_groups({"most": 90, "rest": 10}) == ("rest",)


def test_the_choice_does_not_depend_on_the_order_of_the_groups() -> None:
    sizes = {f"group{i}": 10 + i for i in range(12)}
    assert held_out_groups(sizes) == held_out_groups(dict(reversed(sizes.items())))


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 1000), max_size=30))
def test_at_most_two_fifths_are_held_out_in_groups_of_five_or_more(sizes: dict[str, int]) -> None:
    held_out = held_out_groups(sizes)
    assert set(held_out) <= set(sizes)
    assert all(sizes[name] >= 5 for name in held_out)
    assert sum(sizes[name] for name in held_out) <= 0.4 * sum(sizes.values())
