"""The lookup process: `python -m smtpd_ps.lookup`, started by the parent."""

from functools import partial

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process
from smtpd_ps.lookup import dns_wire
from smtpd_ps.lookup.checking import Checking
from smtpd_ps.lookup.credentials import schemes_in
from smtpd_ps.lookup.desk import Desk
from smtpd_ps.lookup.files import FilesError, read_files
from smtpd_ps.lookup.password_hash import SCHEMES, PasswordHashes
from smtpd_ps.lookup.programs import Programs
from smtpd_ps.osdep import crypt_r
from smtpd_ps.pure.relay_url import RelayUrlError
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.child import Child

PROGRAM_FDS = 3  # that come with one message


def main() -> None:
    """Receive the set-up, read the files, be confined, serve."""
    child = Child.boot(Process.LOOKUP)
    assert isinstance(child.setup, m.LookupSetup)
    settings = child.setup.settings
    try:
        files = read_files(settings, child.assets)
        hashes = PasswordHashes(crypt_r.load())
        missing = hashes.preload(schemes_in(files.tables))
        if any(table.source == "program" and "credentials" in table.uses for table in settings.tables):
            hashes.preload(SCHEMES)  # nobody knows which of them the program will name
        checking = Checking(child.loop, hashes)
        programs = Programs(child.loop, child.log.warning)
        desk = Desk(
            child.loop, settings, files, hashes, checking, child.log.warning, child.fail, programs, child.log.info
        )
    except FilesError as error:
        for line in error.errors:
            child.log.error(line)
        child.fail(f"tables cannot be used: {'; '.join(error.errors)}")
    except (KeyError, RelayUrlError) as error:
        child.fail(f"settings do not fit together: {error}")
    if missing:
        child.log.warning(f"nothing here can check password hashes of scheme {', '.join(missing)}")
    dns_wire.preload()

    def meet_programs() -> None:
        for message, fds in child.programs:
            programs.started(message, *fds)
        wrong = desk.await_programs()
        if wrong:
            child.fail("; ".join(wrong))

    child.confine(meet_programs)
    checking.start()
    for peer in (Process.SMTP, Process.QUEUE, Process.DELIVERY, Process.CONTROL):
        for seat, channel in child.channels(peer, partial(desk.handlers, peer)).items():
            desk.attach(peer, channel, seat)

    def attach_parent(channel: Channel) -> None:
        channel.spare_fds = PROGRAM_FDS
        desk.attach(Process.PARENT, channel)

    child.serve(desk.handlers(Process.PARENT), attach_parent)


if __name__ == "__main__":
    main()
