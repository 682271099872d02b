"""The scheduler: due times, limits, fairness, pauses; and the retry curve."""

from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.contract.settings import QueueSettings
from smtpd_ps.pure.scheduler import Limits, Scheduler, State, Ticket, route_key
from smtpd_ps.pure.scheduler_times import curve, warnings_due

A, B = ("mta", "out", "a.example"), ("mta", "out", "b.example")
LOCAL = ("mda", "home", "bob")


def ticket(msgid=1, key=A, count=1, due_ms=0, cost_bytes=100):
    return Ticket(msgid, key, [(msgid << 32) + n for n in range(count)], cost_bytes, due_ms)


def scheduler(**limits):
    return Scheduler(Limits(**limits))


def test_nothing_is_taken_before_its_time():
    """A ticket is due at its millisecond, not before."""
    one = scheduler()
    one.offer(ticket(due_ms=500), 0)
    assert one.take(499) == []
    assert one.next_due_ms() == 500
    assert len(one.take(500)) == 1
    assert one.next_due_ms() is None


def test_tickets_come_in_order_of_time():
    """The earlier due first, whatever the order of offering."""
    one = scheduler()
    for due in (30, 10, 20):
        one.offer(ticket(due, due_ms=due), 0)
    assert [t.msgid for t in one.take(100)] == [10, 20, 30]


def test_routes_take_turns():
    """A route with a thousand tickets does not delay another's by more than a quantum."""
    one = scheduler(envelopes=32)
    for n in range(1000):
        one.offer(ticket(n), 0)
    one.offer(ticket(5000, B), 0)
    assert 5000 in [t.msgid for t in one.take(0)]


def test_the_limit_of_a_route_leaves_room_for_others():
    """One route at its limit waits; when an envelope of it is answered it goes on."""
    one = scheduler(route_envelopes=3)
    for n in range(10):
        one.offer(ticket(n), 0)
    one.offer(ticket(99, B), 0)
    first = one.take(0)
    assert sorted(t.msgid for t in first) == [0, 1, 2, 99]
    assert one.take(0) == []
    assert one.answered(first[0]) is True
    assert [t.msgid for t in one.take(0)] == [3]


def test_the_limit_of_bytes_holds():
    """Bodies in flight are bounded; at least one is always let go."""
    one = scheduler(total_bytes=250)
    for n in range(5):
        one.offer(ticket(n), 0)
    first = one.take(0)
    assert len(first) == 3  # the third begins below the bound
    one.answered(first[0])
    assert len(one.take(0)) == 1


def test_a_ticket_ends_with_its_last_envelope():
    """Envelopes of a job may be answered one by one."""
    one = scheduler()
    one.offer(ticket(count=3), 0)
    (taken,) = one.take(0)
    assert [one.answered(taken) for _ in range(3)] == [False, False, True]
    assert (one.inflight_envelopes, one.inflight_bytes) == (0, 0)
    assert taken.state is State.GONE


def test_withdrawn_tickets_never_come():
    """Waiting and ready ones alike."""
    one = scheduler()
    ready, waiting, other = ticket(1), ticket(2, due_ms=10), ticket(3, due_ms=20)
    for each in (ready, waiting, other):
        one.offer(each, 0)
    one.withdraw(ready)
    one.withdraw(waiting)
    assert one.next_due_ms() == 20
    assert one.take(100) == [other]
    assert one.ready_tickets == 0


def test_hurry_brings_a_ticket_forward_once():
    """It comes now, and not again at its old time."""
    one = scheduler()
    late = ticket(due_ms=1000)
    one.offer(late, 0)
    assert one.hurry(late, 5) is True
    assert one.take(5) == [late]
    assert one.hurry(late, 5) is False
    one.answered(late)
    assert one.take(2000) == []


def test_pausing_a_part_leaves_the_other():
    """Paused before or after a route is known, full or not; resumed, all of it comes."""
    one = scheduler(route_envelopes=1)
    one.offer(ticket(1), 0)
    one.offer(ticket(2), 0)
    first = one.take(0)
    one.pause("mta")
    one.pause("mta")
    one.answered(first[0])
    one.offer(ticket(3, B), 0)
    one.offer(ticket(4, LOCAL), 0)
    assert [t.msgid for t in one.take(0)] == [4]
    assert list(one.paused) == ["mta"]
    one.resume("mta")
    one.resume("mta")
    assert sorted(t.msgid for t in one.take(0)) == [2, 3]


KEYS = [A, B, LOCAL]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from(KEYS), st.integers(1, 5), st.integers(0, 50)),
        st.tuples(st.just("take")),
        st.tuples(st.just("answer"), st.integers(0, 1000)),
        st.tuples(st.just("withdraw"), st.integers(0, 1000)),
        st.tuples(st.just("hurry"), st.integers(0, 1000)),
        st.tuples(st.sampled_from(["pause", "resume"]), st.sampled_from(["mta", "mda"])),
        st.tuples(st.just("sleep"), st.integers(1, 30)),
    ),
    max_size=80,
)


@given(STEPS)
def test_nothing_is_lost_doubled_or_over_the_limits(steps):
    """Whatever happens in whatever order: each ticket comes once, or was withdrawn."""
    limits = Limits(envelopes=8, route_envelopes=5, total_bytes=600)
    one, now = Scheduler(limits), 0
    offered, flying, came = [], [], []

    def take():
        taken = one.take(now)
        assert all(t.due_ms <= now for t in taken)
        flying.extend(taken)
        came.extend(taken)
        largest = 5  # a ticket may begin below a limit and end above it
        assert one.inflight_envelopes == sum(t.open for t in flying) < limits.envelopes + largest
        for key in KEYS:
            assert sum(t.open for t in flying if t.key == key) < limits.route_envelopes + largest
        return taken

    def answer(t):
        if one.answered(t):
            flying.remove(t)

    for step in steps:
        match step:
            case ("offer", key, count, delay):
                t = Ticket(len(offered), key, list(range(count)), 100, now + delay)
                offered.append(t)
                one.offer(t, now)
            case ("take",):
                paused = set(one.paused)
                assert not any(t.key[0] in paused for t in take())
            case ("answer", n) if flying:
                answer(flying[n % len(flying)])
            case ("withdraw", n) if offered and offered[n % len(offered)].state is not State.INFLIGHT:
                one.withdraw(offered[n % len(offered)])
            case ("hurry", n) if offered:
                one.hurry(offered[n % len(offered)], now)
            case ("pause" | "resume" as how, part):
                (one.pause if how == "pause" else one.resume)(part)
            case ("sleep", ms):
                now += ms
            case _:
                pass
    one.resume("mta")
    one.resume("mda")
    now += 1000
    while take() or flying:
        while flying:
            answer(flying[0])
    assert len(came) == len(set(map(id, came)))
    assert all(t.state is State.GONE for t in offered)
    assert (one.inflight_envelopes, one.inflight_bytes, one.ready_tickets) == (0, 0, 0)


def test_route_keys_follow_the_shape():
    """agent by user, mx by lower-cased domain, lmtp and host by action."""
    assert route_key("agent", "in", "bob", "bob@h") == ("mda", "in", "bob")
    assert route_key("lmtp", "in", "bob", "bob@h") == ("mda", "in", "")
    assert route_key("mx", "out", "", "x@Example.ORG") == ("mta", "out", "example.org")
    assert route_key("host", "out", "", "x@example.org") == ("mta", "out", "")


SETTINGS = QueueSettings(hostname="h", actions=())


def test_the_curve_is_opensmtpds():
    """Creation + 400 s x n x n for a relay, 10 s for local mail."""
    relay, local = curve(SETTINGS, "mx", 0), curve(SETTINGS, "agent", 0)
    assert [relay.next_try_ms(0, n, 1) // 1000 for n in (1, 2, 3, 4)] == [400, 1600, 3600, 6400]
    assert [local.next_try_ms(0, n, 1) // 1000 for n in (1, 2, 3)] == [10, 40, 90]


def test_a_point_of_the_curve_in_the_past_is_skipped():
    """After a standstill the next try is on the curve and still to come."""
    relay = curve(SETTINGS, "host", 0)
    assert relay.next_try_ms(0, 1, 2_000_000) == 3_600_000
    assert relay.next_try_ms(0, 1, 400_000) == 1_600_000


def test_expiry_is_the_actions_the_queues_or_a_bounces():
    """4 days; what the action says; 7 days for a bounce."""
    assert curve(SETTINGS, "mx", 0).expires_ms(5, False) == 5 + 4 * 86400_000
    assert curve(SETTINGS, "mx", 60).expires_ms(5, False) == 60_005
    assert curve(SETTINGS, "mx", 60).expires_ms(5, True) == 5 + 7 * 86400_000


def test_a_warning_is_due_when_the_next_try_reaches_its_mark():
    """At or after the mark, each mark once."""
    assert warnings_due((100, 200), 0, 99_999) == 0
    assert warnings_due((100, 200), 0, 100_000) == 1
    assert warnings_due((100, 200), 0, 900_000) == 2
