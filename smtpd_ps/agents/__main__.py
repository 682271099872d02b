"""The agent process: `python -I -m smtpd_ps.agents`, started by the parent as a mail user."""

import os
import signal
import sys
import time

from smtpd_ps.agents.agent import Agent, Store
from smtpd_ps.agents.maildir import Maildir
from smtpd_ps.agents.mbox import Mbox
from smtpd_ps.agents.runner import Runner
from smtpd_ps.contract.messages import AgentSetup
from smtpd_ps.contract.values import Process
from smtpd_ps.pure.maildir_name import MaildirNames
from smtpd_ps.runtime.child import Child
from smtpd_ps.runtime.signals import watch_signals


def main() -> None:
    """Boot, be confined, store mail until delivery or the parent closes its channel."""
    child = Child.boot(Process.AGENT)
    assert isinstance(child.setup, AgentSetup)
    settings = child.setup.settings
    time.localtime()  # reads the time zone while it can
    if settings.kind in ("mda", "targets"):
        runner = Runner(child.loop, settings)
        watch_signals(child.loop, [signal.SIGCHLD], runner.reap)
        child.confine()
        runner.answers = child.channel(Process.DELIVERY, runner.handlers())
        child.serve({})
        runner.end()
        return
    if settings.kind == "submit":
        if child.submission is None:
            sys.exit("smtpd_ps: agent: nothing to submit")
        from smtpd_ps.agents.submitter import Submitter  # brings the SMTP client, which no other agent needs

        submitter = Submitter(*child.submission, settings, child.log)
        child.confine()
        sys.exit(submitter.run())
    store: Store
    if settings.kind == "maildir":
        store = Maildir(settings, MaildirNames(os.getpid(), settings.hostname), time.time_ns)
    elif child.mailbox_fd is not None:
        store = Mbox(child.mailbox_fd)
    else:
        sys.exit("smtpd_ps: agent: an mbox without its file")
    agent = Agent(child.loop, store)
    child.confine()
    agent.answers = child.channel(Process.DELIVERY, agent.handlers())
    child.serve({})


if __name__ == "__main__":
    main()
