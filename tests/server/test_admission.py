"""Who may start, and when: slots, the line, refusals."""

from __future__ import annotations

import pytest

from browsercloud.errors import NoCapacity
from browsercloud.models import Capacity
from browsercloud.server.admission import Admission, Ticket
from browsercloud.stores.base import Limits

A, B, C = "a", "b", "c"


def admission(room: int, *, max_line: int = 100, **limits: Limits) -> Admission:
    """An open one with so many slots."""
    made = Admission(lambda project: limits.get(project, Limits()), max_line=max_line)
    made.open(Capacity(sessions=room, reason="as told"))
    return made


def enter(at: Admission, *projects: str) -> list[Ticket]:
    """One session of each, in this order."""
    return [at.enter(project, f"{project}{number}") for number, project in enumerate(projects)]


def granted(tickets: list[Ticket]) -> list[bool]:
    """Which of them have a slot."""
    return [ticket.granted.done() for ticket in tickets]


async def test_slots_are_given_while_there_are_any() -> None:
    """The next one waits until one is given back."""
    at = admission(2)
    tickets = enter(at, A, A, A)
    assert granted(tickets) == [True, True, False]
    assert (at.in_use, at.length) == (2, 1)
    at.leave(tickets[0])
    assert granted(tickets)[2]
    assert (at.in_use, at.length) == (2, 0)


async def test_a_slot_is_given_back_once() -> None:
    """Leaving twice is the same as once."""
    at = admission(1)
    first, second, third = enter(at, A, A, A)
    at.leave(first)
    at.leave(first)
    assert granted([second, third]) == [True, False]
    assert at.in_use == 1


async def test_first_come_first_served() -> None:
    """Within a project the line keeps its order, whoever leaves it."""
    at = admission(1)
    tickets = enter(at, *[A] * 5)
    assert [at.place(ticket) for ticket in tickets] == [None, 1, 2, 3, 4]
    at.leave(tickets[2])
    assert [at.place(ticket) for ticket in tickets] == [None, 1, None, 2, 3]
    at.leave(tickets[0])
    assert granted(tickets) == [True, True, False, False, False]


async def test_the_line_goes_round_the_projects() -> None:
    """Whoever asks for many keeps nobody waiting who asks for one."""
    at = admission(1)
    tickets = enter(at, A, A, A, A, B, C, B)
    order = []
    places = {ticket.session_id: at.place(ticket) for ticket in tickets[1:]}
    current = tickets[0]
    while waiting := [ticket for ticket in tickets if not ticket.granted.done()]:
        at.leave(current)
        current = next(ticket for ticket in waiting if ticket.granted.done())
        order.append(current.session_id)
    assert order == ["a1", "b4", "c5", "a2", "b6", "a3"]
    assert [places[name] for name in order] == [1, 2, 3, 4, 5, 6]


async def test_the_place_is_the_number_of_turns() -> None:
    """For any mix of projects the place that was told comes true, if nobody leaves."""
    for mix in ("abcabc", "aaabbc", "cbaacb", "aabcaacccb"):
        at = admission(1)
        (holder,) = enter(at, "z")
        tickets = enter(at, *mix)
        told = {ticket.session_id: at.place(ticket) for ticket in tickets}
        turn = 0
        while waiting := [ticket for ticket in tickets if not ticket.granted.done()]:
            at.leave(holder)
            turn += 1
            (holder,) = [ticket for ticket in waiting if ticket.granted.done()]
            assert told[holder.session_id] == turn, mix


async def test_a_projects_own_limit_lets_others_pass() -> None:
    """It waits although there are free slots; those behind it do not."""
    at = admission(3, a=Limits(max_sessions=1))
    tickets = enter(at, A, A, B, B)
    assert granted(tickets) == [True, False, True, True]
    at.leave(tickets[2])
    assert not tickets[1].granted.done()
    at.leave(tickets[0])
    assert tickets[1].granted.done()


async def test_a_raised_limit_is_looked_at_again() -> None:
    """Without waiting for somebody to leave."""
    limits = {A: Limits(max_sessions=1)}
    at = Admission(lambda project: limits.get(project, Limits()))
    at.open(Capacity(sessions=5, reason="as told"))
    tickets = enter(at, A, A)
    limits[A] = Limits(max_sessions=2)
    at.look_again()
    assert granted(tickets) == [True, True]


async def test_a_full_line_refuses() -> None:
    """With the figures, and when to ask again; another project's line is its own."""
    at = admission(1, max_line=2)
    enter(at, A, A, A)
    with pytest.raises(NoCapacity, match="wait already") as caught:
        at.enter(A, "one too many")
    (detail,) = caught.value.details
    assert (detail["limit"], detail["inUse"], detail["retryable"]) == (1, 1, True)
    assert caught.value.retry_after == 5
    assert (at.in_use, at.length) == (1, 2)
    assert at.place(at.enter(B, "of another project")) == 2


async def test_who_waits_is_told_the_place() -> None:
    """And which limit it is: the server's, or the project's own."""
    at = admission(2, a=Limits(max_sessions=1))
    tickets = enter(at, A, A, B, B)
    own, servers = at.wait_longer(tickets[1]), at.wait_longer(tickets[3])
    assert [error.details[0]["limit"] for error in (own, servers)] == [1, 2]
    assert [error.details[0]["place"] for error in (own, servers)] == [1, 2]
    assert own.retry_after == 1


async def test_a_running_session_is_counted_beyond_the_room() -> None:
    """One that was taken over has its slot already; nobody else starts until there is room."""
    at = admission(1)
    taken_over = [at.occupy(A, "x"), at.occupy(A, "y")]
    (waiting,) = enter(at, B)
    at.leave(taken_over[0])
    assert not waiting.granted.done()
    at.leave(taken_over[1])
    assert waiting.granted.done()


async def test_a_project_sees_its_own_part() -> None:
    """How much is in use by others is not told; what is left for it is."""
    at = admission(5, a=Limits(max_sessions=3))
    enter(at, A, B, B)
    seen = at.seen_by(A)
    assert (seen.sessions, seen.in_use, seen.queued, seen.limit) == (5, 1, 0, 3)
    assert seen.available == 2
    enter(at, A, A, A)
    assert (at.seen_by(A).available, at.seen_by(A).queued) == (0, 1)
    assert at.seen_by(C).limit is None


async def test_nobody_starts_before_the_room_is_known() -> None:
    """What comes while the server opens waits."""
    at = Admission(lambda project: Limits())
    tickets = enter(at, A, A)
    assert granted(tickets) == [False, False]
    at.open(Capacity(sessions=1, reason="as told"))
    assert granted(tickets) == [True, False]
