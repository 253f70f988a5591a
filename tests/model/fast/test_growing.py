"""What is appended in place is what torch.cat makes, also if two go on from one beginning."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from infty.model.fast.growing import append

SIZES = st.lists(st.integers(0, 4), min_size=1, max_size=8)


@given(sizes=SIZES, dim=st.integers(0, 2), room=st.integers(0, 12))
def test_parts_are_put_behind_one_another(sizes: list[int], dim: int, room: int) -> None:
    parts = [torch.randn([3 if place != dim else size for place in range(3)]) for size in sizes]
    grown = parts[0]
    for part in parts[1:]:
        grown = append(grown, part, dim, room)
    assert torch.equal(grown, torch.cat(parts, dim))


def test_two_that_go_on_from_one_do_not_disturb_each_other() -> None:
    first, second, third = torch.randn(3, 1, 4)
    whole = append(first[:0], first, 0, 9)
    one, other = append(whole, second, 0, 9), append(whole, third, 0, 9)
    again = append(one, third, 0, 9)
    assert torch.equal(one, torch.cat([first, second]))
    assert torch.equal(other, torch.cat([first, third]))
    assert torch.equal(again, torch.cat([first, second, third]))
    assert torch.equal(append(again[1:], first, 0, 9), torch.cat([second, third, first]))
    assert torch.equal(again, torch.cat([first, second, third]))


def test_what_is_there_is_not_copied_as_long_as_there_is_room() -> None:
    grown = append(torch.zeros(0, 4), torch.ones(1, 4), 0, 3)
    places = {grown.data_ptr()}
    for _ in range(2):
        grown = append(grown, torch.ones(1, 4), 0, 3)
        places.add(grown.data_ptr())
    assert len(places) == 1
    assert append(grown, torch.ones(1, 4), 0, 3).data_ptr() not in places
