"""Agents that run commands: who they are asked for, and how many sessions there are at a time."""

from collections.abc import Callable, Iterator

import msgspec
import pytest
from delivery_bench import Bench, FakeAgent

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import Job, Status

MDA = ActionSettings("mda", "mda", mda_command="x")
LMTP = ActionSettings("mda", "lmtp", lmtp_destination="/run/none", alias_table="t")


def job(bench: Bench, number: int, user: str, **target: str) -> Job:
    made = bench.job(f"{user}@d.test", action="mda", number=number, user=user)
    return replace_recipient(made, **target) if target else made


def replace_recipient(made: Job, **fields: str) -> Job:
    return msgspec.structs.replace(made, recipients=(msgspec.structs.replace(made.recipients[0], **fields),))


@pytest.fixture
def agents() -> Iterator[Callable[[Bench], list[FakeAgent]]]:
    """Answers every request with an agent that answers nothing by itself."""
    made: list[FakeAgent] = []

    def answer(bench: Bench) -> list[FakeAgent]:
        for asked in bench.asked:
            agent = FakeAgent(bench)
            agent.answer = False
            bench.delivery.agents.ready(m.AgentReady(asked.request), agent.fd)
            made.append(agent)
        return made

    yield answer
    for agent in made:
        agent.channel.close()


def test_targets_are_asked_for_by_their_source(agents):
    """An alias's has the alias user whoever the recipient is, a .forward's its user, whatever the action; and the
    command travels to the agent alone."""
    bench = Bench(LMTP)
    jobs = (
        job(bench, 1, "ann", target="|run it", target_source="alias"),
        job(bench, 2, "bob", target="/box", target_source="alias"),
        job(bench, 3, "bob", target="|own", target_source="forward", extension="tag"),
        job(bench, 4, "bob", target="|lost"),  # without a source it gets the least rights
    )
    bench.delivery.deliver(m.Deliver(jobs))
    bench.until(lambda: len(bench.asked) == 2)
    assert [(a.user, a.action, a.source) for a in bench.asked] == [
        ("_sps_alias", "mda", "alias"), ("bob", "mda", "forward"),
    ]  # fmt: skip
    alias, own = agents(bench)
    bench.until(lambda: len(alias.jobs) == 3 and len(own.jobs) == 1)
    assert [each.target for each in alias.jobs] == ["|run it", "/box", "|lost"]
    assert (own.jobs[0].target, own.jobs[0].extension) == ("|own", "tag")


def test_the_recipient_of_an_action_with_a_user(agents):
    """The agent is that user's; the command hears who the mail is for."""
    bench = Bench(ActionSettings("mda", "mda", mda_command="x", user="vmail"))
    bench.delivery.deliver(m.Deliver((job(bench, 1, "ann"), job(bench, 2, "bob"))))
    bench.until(lambda: bench.asked)
    assert [a.user for a in bench.asked] == ["vmail"]
    (agent,) = agents(bench)
    bench.until(lambda: len(agent.jobs) == 2)
    assert [each.user for each in agent.jobs] == ["ann", "bob"]


def test_commands_of_a_user_are_bounded(agents):
    """max-session-per-user; the recipient's sessions count, and another recipient of the same agent goes on."""
    bench = Bench(ActionSettings("mda", "mda", mda_command="x", user="vmail"), max_sessions_per_user=2)
    jobs = [job(bench, n, "ann") for n in range(1, 6)] + [job(bench, 6, "bob")]
    bench.delivery.deliver(m.Deliver(tuple(jobs)))
    bench.until(lambda: bench.asked)
    (agent,) = agents(bench)
    bench.until(lambda: len(agent.jobs) == 3)
    assert sorted(each.user for each in agent.jobs) == ["ann", "ann", "bob"]
    agent.channel.send(m.AgentResult(agent.jobs[0].job, Status.OK, "Delivered"))
    bench.until(lambda: len(agent.jobs) == 4)
    assert agent.jobs[3].user == "ann"


def test_all_sessions_are_bounded(agents):
    """max-session: a command of one user waits for those of others, and is begun when one of them has ended."""
    bench = Bench(MDA, max_agents=3)
    for number, user in enumerate(("ann", "ann", "ann", "ann", "bob"), 1):
        bench.delivery.deliver(m.Deliver((job(bench, number, user),)))
    bench.until(lambda: len(bench.asked) == 2)
    ann, bob = agents(bench)
    bench.until(lambda: len(ann.jobs) + len(bob.jobs) == 3)
    assert len(bob.jobs) == 1
    bob.channel.send(m.AgentResult(bob.jobs[0].job, Status.OK, "Delivered"))
    bench.until(lambda: len(ann.jobs) == 3)
    for at in range(2):
        ann.channel.send(m.AgentResult(ann.jobs[at].job, Status.OK, "Delivered"))
    bench.until(lambda: len(ann.jobs) == 4)


def test_a_new_user_comes_before_more_of_the_same(agents):
    """Where all sessions are taken, one that ends goes to who has none."""
    bench = Bench(MDA, max_agents=2)
    bench.delivery.deliver(m.Deliver(tuple(job(bench, n, "ann") for n in range(1, 6))))
    bench.until(lambda: bench.asked)
    (ann,) = agents(bench)
    bench.until(lambda: len(ann.jobs) == 2)
    bench.delivery.deliver(m.Deliver((job(bench, 9, "bob"),)))
    ann.channel.send(m.AgentResult(ann.jobs[0].job, Status.OK, "Delivered"))
    bench.until(lambda: len(bench.asked) == 2)
    assert bench.asked[1].user == "bob" and len(ann.jobs) == 2
