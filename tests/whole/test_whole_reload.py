"""Reload of the live daemon: all of the new configuration or none of it, and nobody is cut off."""

import os
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from support.certs import make_certificate, make_key, write_acme
from support.daemon import Daemon, cli, running, wait_until
from support.sink import Behaviour, sinking
from support.users import ensure_mail_user

GENERATION = ("keys", "smtp", "lookup", "delivery")
PLAIN = """
listen on 127.0.0.1 port {port}
action out relay host "smtp://127.0.0.1:SINK"
match from any for domain "DOMAIN" action out
"""
MESSAGE = "Subject: {0}\r\nX-Number: {0}\r\n\r\nhello {0}\r\n"


def plain(sink_port: int, domain: str) -> str:
    return PLAIN.replace("SINK", str(sink_port)).replace("DOMAIN", domain)


def children(daemon: Daemon) -> dict[int, str]:
    """Title by pid of every child of the parent."""
    assert daemon.process is not None
    pid = daemon.process.pid
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            title = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0].decode()
        except OSError:
            continue
        found[int(child)] = title.removeprefix("smtpd_ps: ")
    return found


def count(daemon: Daemon) -> Counter[str]:
    return Counter(children(daemon).values())


def one_generation(daemon: Daemon) -> bool:
    return count(daemon) == Counter(("control", "queue", *GENERATION))


def change(daemon: Daemon, config: str) -> None:
    daemon.config = config
    daemon.write_config()


def refused(daemon: Daemon) -> str:
    """What `smtpctl_ps reload` says to a configuration that it does not take."""
    done = cli("smtpctl_ps", "--state-dir", str(daemon.state), "reload")
    assert done.returncode == 1, (done, daemon.log[-4000:])
    return done.stderr


def codes(client: smtplib.SMTP, *recipients: str) -> list[int]:
    return [client.rcpt(recipient)[0] for recipient in recipients]


def test_new_sessions_have_new_rules_and_old_ones_end_under_the_old() -> None:
    """A session in the middle of a transaction finishes as it began; its mail takes the action's new definition."""
    with sinking() as before, sinking() as after, running(plain(before.port, "old.test")) as daemon:
        old = daemon.smtp()
        old.ehlo()
        assert old.mail("a@client.test")[0] == 250
        assert codes(old, "a@old.test", "a@new.test") == [250, 550]
        change(daemon, plain(after.port, "new.test"))
        assert daemon.ctl("reload") == "configuration reloaded\n"
        assert count(daemon)["smtp"] == 2
        assert codes(old, "b@old.test", "b@new.test") == [250, 550]
        with daemon.smtp() as new:
            new.ehlo()
            new.mail("a@client.test")
            assert codes(new, "a@old.test", "a@new.test") == [550, 250]
            assert new.data(MESSAGE.format(2))[0] == 250
        assert old.data(MESSAGE.format(1))[0] == 250
        old.sendmail("a@client.test", ["c@old.test"], MESSAGE.format(3))
        daemon.wait_empty()
        assert sorted(r for mail in after.mails for r in mail.recipients) == [
            "a@new.test", "a@old.test", "b@old.test", "c@old.test",
        ]  # fmt: skip
        assert before.mails == []
        wait_until("only the old session is left", lambda: "smtp.session=1\n" in daemon.ctl("show", "stats"))
        old.quit()
        wait_until("the old generation is gone", lambda: one_generation(daemon))
        daemon.wait_logged("generation 0 has ended")


def test_signal_reloads() -> None:
    """SIGHUP does what `smtpctl_ps reload` does; the log says how it went."""
    with running(plain(9, "old.test")) as daemon:
        assert daemon.process is not None
        change(daemon, plain(9, "new.test"))
        daemon.process.send_signal(signal.SIGHUP)
        wait_until("reloaded", lambda: "configuration reloaded, generation 1 serves" in daemon.log)
        with daemon.smtp() as client:
            client.ehlo()
            client.mail("a@client.test")
            assert codes(client, "a@old.test", "a@new.test") == [550, 250]
        change(daemon, "listen on 127.0.0.1 port {port}\nnonsense\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_until("refused", lambda: "configuration not reloaded, nothing has changed" in daemon.log)
        daemon.wait_logged(f"{daemon.config_path}:2")


BAD = {
    "syntax": ("listen on 127.0.0.1 port {port}\nmatch from any for any action nowhere\n", ":2"),
    "no file": ('include "{dir}/missing.conf"\n', "missing.conf"),
    "no table": (
        "listen on 127.0.0.1 port {port}\ntable t file:{dir}/missing\naction out relay\n"
        "match from src <t> for any action out\n", "missing",
    ),
    "bad table": (
        "listen on 127.0.0.1 port {port}\ntable t file:{dir}/table\naction box maildir alias <t>\n"
        "match from any for any action box\n", "table:2: expected a value",
    ),
    "address in use": ("listen on 127.0.0.1 port {port2}\naction out relay\nmatch from any for any action out\n",
                       "Address already in use"),
    "no certificate": (
        'pki mxkey cert "{dir}/missing.crt"\npki mxkey key "{dir}/missing.key"\n'
        "listen on 127.0.0.1 port {port} tls pki mxkey\n"
        "action out relay\nmatch from any for any action out\n", "missing.crt",
    ),
    "key of another": (
        'pki mxkey cert "{dir}/a/live/fullchain.pem"\npki mxkey key "{dir}/b/live/privkey.pem"\n'
        "listen on 127.0.0.1 port {port} tls pki mxkey\naction out relay\nmatch from any for any action out\n",
        "does not belong to the certificate",
    ),
}  # fmt: skip


def test_an_error_leaves_everything_as_it_was() -> None:
    """Each way to be wrong is answered with its reason, and the same processes serve the same sessions."""
    with sinking() as sink, running(plain(sink.port, "old.test")) as daemon, socket.socket() as other:
        other.bind(("127.0.0.1", daemon.port2))
        other.listen()
        write_acme(daemon.dir / "a", make_key("ecdsa"))
        write_acme(daemon.dir / "b", make_key("ecdsa"))
        (daemon.dir / "table").write_text("a b\nlonely\n")
        before = children(daemon)
        open_files = len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))  # type: ignore[union-attr]
        with daemon.smtp() as old:
            old.ehlo()
            old.mail("a@client.test")
            for name, (config, reason) in BAD.items():
                change(daemon, config)
                assert reason in (said := refused(daemon)), (name, said)
                assert codes(old, f"{name.replace(' ', '-')}@old.test") == [250]
                with daemon.smtp() as new:
                    new.ehlo()
                    new.mail("a@client.test")
                    assert codes(new, "a@old.test", "a@new.test") == [250, 550]
            wait_until("what was started is gone", lambda: children(daemon) == before)
            assert old.data(MESSAGE.format(1))[0] == 250
        daemon.wait_empty()
        assert len(sink.mails[0].recipients) == len(BAD)
        wait_until(
            "the parent has what it had",
            lambda: len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir())) == open_files,  # type: ignore[union-attr]
        )
        assert "all as declared" in daemon.ctl("audit")
        change(daemon, plain(sink.port, "new.test"))
        daemon.ctl("reload")


TLS = """
pki mxkey cert "{dir}/acme/live/fullchain.pem"
pki mxkey key "{dir}/acme/live/privkey.pem"
listen on 127.0.0.1 port {port} tls pki mxkey
action out relay host "smtp://127.0.0.1:SINK"
match from any for any action out
"""


def certificate(daemon: Daemon) -> bytes:
    """What a new session is shown."""
    with smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client:
        client.starttls(context=_any_certificate())
        shown = client.sock.getpeercert(True)  # type: ignore[union-attr]
        assert shown is not None
        return bytes(shown)


def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def on_disk(daemon: Daemon) -> bytes:
    return ssl.PEM_cert_to_DER_cert((daemon.dir / "acme/live/fullchain.pem").read_text())


def test_a_renewed_certificate() -> None:
    """New handshakes show the new one; a session under TLS from before goes on; a bad pair changes nothing."""
    daemon = Daemon(TLS.replace("SINK", "9"))
    write_acme(daemon.dir / "acme", make_key("ecdsa"))
    try:
        daemon.start()
        first = certificate(daemon)
        assert first == on_disk(daemon)
        old = daemon.smtp()
        old.starttls(context=_any_certificate())
        write_acme(daemon.dir / "acme", make_key("rsa"))
        assert certificate(daemon) == first, "nobody asked for a reload yet"
        daemon.ctl("reload")
        second = certificate(daemon)
        assert second == on_disk(daemon) != first
        old.sendmail("a@client.test", ["b@example.com"], MESSAGE.format(1))
        (daemon.dir / "acme/archive/fullchain1.pem").write_bytes(make_certificate(make_key("rsa")))
        assert "does not belong to the certificate" in refused(daemon)
        assert certificate(daemon) == second
        old.quit()
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(10)
        daemon.remove()


def test_listeners_open_close_and_stay() -> None:
    """A new address is served, one that is gone refuses, and one that stays never refuses in between."""
    rest = 'action out relay host "smtp://127.0.0.1:9"\nmatch from any for any action out\n'
    one, two = "listen on 127.0.0.1 port {port}\n", "listen on 127.0.0.1 port {port2} hostname two.test\n"
    with running(one + rest) as daemon:
        failures: list[OSError] = []
        stop = threading.Event()

        def knock() -> None:
            while not stop.is_set():
                try:
                    with socket.create_connection(("127.0.0.1", daemon.port), 10) as sock:
                        assert sock.recv(100).startswith(b"220")
                        sock.sendall(b"QUIT\r\n")
                        sock.recv(100)
                except OSError as error:
                    failures.append(error)

        thread = threading.Thread(target=knock)
        thread.start()
        change(daemon, one + two + rest)
        daemon.ctl("reload")
        with daemon.smtp(daemon.port2) as client:
            assert b"two.test" in client.ehlo()[1]
            change(daemon, one + rest)
            daemon.ctl("reload")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", daemon.port2), 5)
            assert client.noop()[0] == 250, "whoever was connected stays so"
        stop.set()
        thread.join()
        assert failures == []


def test_paused_stays_paused() -> None:
    """A reload does not undo `smtpctl_ps pause smtp`, nor `pause mta`."""
    with sinking() as sink, running(plain(sink.port, "old.test")) as daemon:
        with daemon.smtp() as client:
            daemon.ctl("pause", "smtp")
            daemon.ctl("pause", "mta")
            daemon.ctl("reload")
            assert daemon.ctl("show", "status").count("paused") == 2
            with socket.create_connection(("127.0.0.1", daemon.port), 5) as waiting:
                waiting.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    waiting.recv(100)
                client.sendmail("a@client.test", ["b@old.test"], MESSAGE.format(1))
                daemon.ctl("resume", "smtp")
                waiting.settimeout(10)
                assert waiting.recv(100).startswith(b"220")
        assert sink.mails == []
        daemon.ctl("resume", "mta")
        daemon.wait_empty()


def test_two_at_once() -> None:
    """A second reload while one is under way is answered so; the first is not disturbed."""
    with running(plain(9, "old.test")) as daemon:
        argv = [sys.executable, "-I", "-m", "smtpd_ps.cli.smtpctl_ps", "--state-dir", str(daemon.state), "reload"]
        smtp = daemon.pids()["smtp"]
        os.kill(smtp, signal.SIGSTOP)  # the first waits for it to say that it accepts nobody any more
        try:
            with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
                daemon.wait_logged("reloading the configuration")
                assert "under way" in refused(daemon)
                os.kill(smtp, signal.SIGCONT)
                said = first.communicate(timeout=60)
        finally:
            os.kill(smtp, signal.SIGCONT)
        assert (first.returncode, *said) == (0, "configuration reloaded\n", "")
        daemon.ctl("reload")


def test_delivery_under_way_ends_in_the_old_generation() -> None:
    """A message that the old delivery is sending is sent once, and mail after the reload goes the new way."""
    slow = Behaviour(slow_secs=2.0)
    with sinking(behaviour=slow) as before, sinking() as after, running(plain(before.port, "old.test")) as daemon:
        with daemon.smtp() as client:
            client.sendmail("a@client.test", ["a@old.test"], MESSAGE.format(1))
            wait_until("it is being sent", lambda: before.connections == 1)
            change(daemon, plain(after.port, "old.test"))
            daemon.ctl("reload")
            client.sendmail("a@client.test", ["a@old.test"], MESSAGE.format(2))
        daemon.wait_empty()
        wait_until("the old generation is gone", lambda: one_generation(daemon))
        assert [len(before.mails), len(after.mails)] == [1, 1]


def test_agents_write_where_their_generation_says() -> None:
    """The parent answers a delivery by the configuration that it belongs to."""
    user = ensure_mail_user()
    config = (
        'listen on 127.0.0.1 port {port}\naction box maildir "{dir}/mail/BOX" virtual { "@" = USER }\n'
        "match from any for any action box\n"
    ).replace("USER", user)
    daemon = Daemon(config.replace("BOX", "one"))
    folder = daemon.dir / "mail"
    folder.mkdir()
    if os.getuid() == 0:
        import shutil

        shutil.chown(folder, user, user)
    try:
        daemon.start()
        with daemon.smtp() as client:
            client.sendmail("a@client.test", ["x@example.com"], MESSAGE.format(1))
            daemon.wait_empty()
            change(daemon, config.replace("BOX", "two"))
            daemon.ctl("reload")
            client.sendmail("a@client.test", ["x@example.com"], MESSAGE.format(2))
            daemon.wait_empty()
        assert [len(list((folder / box / "new").iterdir())) for box in ("one", "two")] == [1, 1]
        assert daemon.stop() == 0
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(10)
        daemon.remove()


def test_mail_whose_action_is_gone_waits() -> None:
    """It stays queued and `show queue` says why; when the action is back it goes."""
    gone = "listen on 127.0.0.1 port {port}\naction other relay\nmatch from any for any action other\n"
    with sinking() as sink, running(plain(sink.port, "old.test")) as daemon:
        daemon.ctl("pause", "mta")
        with daemon.smtp() as client:
            client.sendmail("a@client.test", ["b@old.test"], MESSAGE.format(1))
        change(daemon, gone)
        daemon.ctl("reload")
        daemon.ctl("resume", "mta")
        wait_until("it was tried", lambda: "configured no more" in daemon.ctl("show", "queue"))
        change(daemon, plain(sink.port, "old.test"))
        daemon.ctl("reload")
        daemon.schedule_until("the queue is empty", lambda: daemon.queued() == 0)
        assert len(sink.mails) == 1


@pytest.mark.parametrize("retired", [False, True])
@pytest.mark.parametrize("victim", GENERATION)
def test_a_lost_process_of_any_generation_stops_everything(victim: str, retired: bool) -> None:
    """Half-alive separation hides attacks, in the generation that serves and in one that still has sessions."""
    daemon = Daemon(plain(9, "old.test"))
    try:
        daemon.start()
        client = daemon.smtp()
        before = children(daemon)
        daemon.ctl("reload")
        pids = [pid for pid, title in children(daemon).items() if title == victim and (pid in before) == retired]
        assert len(pids) == 1
        os.kill(pids[0], signal.SIGKILL)
        assert daemon.process is not None
        assert daemon.process.wait(10) == 1
        daemon.wait_logged(f"lost child {victim} (pid {pids[0]}): killed by signal 9")
        client.close()
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(10)
        daemon.remove()


def test_stop_with_retired_generations() -> None:
    """The daemon stops in order while old sessions are open, which hear 421."""
    with running(plain(9, "old.test")) as daemon:
        clients = []
        for _ in range(3):
            clients.append(daemon.smtp())
            daemon.ctl("reload")
        assert count(daemon)["smtp"] == 4
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(20) == 0
        for client in clients:
            assert client.noop()[0] == 421
            client.close()
        assert "lost child" not in daemon.log


def test_old_generations_are_bounded() -> None:
    """With clients that never leave, the oldest generations are ended as if the daemon stopped."""
    with running(plain(9, "old.test")) as daemon:
        clients = []
        for _ in range(5):
            clients.append(daemon.smtp())
            daemon.ctl("reload")
        wait_until("the oldest is gone", lambda: count(daemon)["smtp"] == 5)
        assert clients[0].noop()[0] == 421
        assert clients[1].noop()[0] == 250
        for client in clients:
            client.close()


def test_nothing_leaks_and_the_audit_passes() -> None:
    """After ten reloads there are as many processes and descriptors as after the first; each is as declared."""
    with running(plain(9, "old.test")) as daemon:
        assert daemon.process is not None

        def descriptors() -> dict[str, int]:
            named = {**children(daemon), daemon.process.pid: "parent"}  # type: ignore[union-attr]
            return {title: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid, title in named.items()}

        daemon.ctl("reload")
        wait_until("the first is gone", lambda: one_generation(daemon))
        before = descriptors()
        for at in range(10):
            with daemon.smtp() as client:
                client.noop()
                daemon.ctl("reload")
                if at == 5:
                    assert "all as declared" in daemon.ctl("audit"), "with two generations"
        wait_until("the old ones are gone", lambda: one_generation(daemon))
        assert "all as declared" in daemon.ctl("audit")
        wait_until("they hold as many descriptors", lambda: descriptors() == before)


MESSAGES, CLIENTS, RELOADS = 5000, 8, 50


@pytest.mark.timeout(500)
def test_a_stream_of_mail_over_reloads() -> None:
    """Good and bad reloads by turns, a renewed certificate among them: no session and no message is lost."""
    with sinking() as sink:
        config = TLS.replace("SINK", str(sink.port)) + "smtp limit max-mails 100000\n"
        config = config.replace("for any action", 'for domain { "example.com", "round0.test" } action')
        daemon = Daemon(config)
        write_acme(daemon.dir / "acme", make_key("ecdsa"))
        broken: list[str] = []
        accepted: set[int] = set()
        numbers = iter(range(MESSAGES))
        lock = threading.Lock()

        def client() -> None:
            """Some sessions carry many messages, some one, some are under TLS."""
            try:
                session: smtplib.SMTP | None = None
                while True:
                    with lock:
                        number = next(numbers, None)
                    if number is None:
                        break
                    if session is None:
                        session = daemon.smtp()
                        if number % 3 == 0:
                            session.starttls(context=_any_certificate())
                    body = MESSAGE.format(number) + ("large " * 12 + "\r\n") * (2000 if number % 100 == 0 else 1)
                    session.sendmail("a@client.test", ["b@example.com"], body)
                    accepted.add(number)
                    if number % 7 == 0:
                        session.quit()
                        session = None
                if session is not None:
                    session.quit()
            except (OSError, smtplib.SMTPException) as error:
                broken.append(repr(error))

        try:
            daemon.start()
            threads = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
            for thread in threads:
                thread.start()
            for at in range(RELOADS):
                wait_until(
                    "the stream goes on", lambda due=at: len(accepted) >= due * MESSAGES // RELOADS or broken, 60
                )
                now = config.replace("round0", f"round{at - at % 2}")
                if at % 2:
                    change(daemon, now.replace("round", "never") + "nonsense\n")
                    assert "nonsense" in refused(daemon)
                else:
                    if at % 10 == 4:
                        write_acme(daemon.dir / "acme", make_key("ecdsa"))
                    change(daemon, now)
                    daemon.ctl("reload")
                    assert certificate(daemon) == on_disk(daemon)
                with daemon.smtp() as judge:
                    judge.ehlo()
                    judge.mail("a@client.test")
                    assert codes(judge, f"a@round{at - at % 2}.test", f"a@round{at + 2}.test", "a@never.test") == [
                        250, 550, 550,
                    ]  # fmt: skip
            for thread in threads:
                thread.join(120)
            assert broken == []
            assert len(accepted) == MESSAGES
            daemon.wait_empty(60)
            arrived = Counter(int(mail.data.split(b"X-Number: ")[1].split(b"\r\n")[0]) for mail in sink.mails)
            assert set(arrived) == accepted
            assert max(arrived.values()) == 1, "nothing is sent twice either"
            wait_until("the old generations are gone", lambda: one_generation(daemon))
            assert daemon.stop() == 0
            assert "Traceback" not in daemon.log
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()
