"""After confinement lookup imports nothing: there would be no file to import from."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
sys.path[:0] = [{root!r}]
from smtpd_ps.lookup import __main__ as recipe
from smtpd_ps.contract import messages as m
from smtpd_ps.contract import settings as s
from smtpd_ps.contract.values import Dsn, Process
from smtpd_ps.pure.hosts_file import NO_HOSTS, ResolverSettings
from smtpd_ps.pure.table import from_settings
from smtpd_ps.lookup.files import Files
from smtpd_ps.runtime.loop import Loop
import smtpd_ps.runtime.channel, socket

def tables(*entries):
    return {{t.name: from_settings(t) for t in entries}}

HASHES = {{k.strip("$"): v.decode() for k, v in recipe.crypt_r.KNOWN.items()}}
virtuals = s.TableSettings("v", "inline", "map", (("@v.org", "cyrus, a@b.org"),))
submitters = s.TableSettings("p", "inline", "map", tuple(HASHES.items()))
any_rule = s.RuleSettings((s.ConditionSettings("from-any"), s.ConditionSettings("for-any")), "a", 1)
settings = s.LookupSettings("h", (any_rule,),
    (s.ActionSettings("a", "lmtp", virtual_table="v", lmtp_destination="/lmtp"), s.ActionSettings("r", "relay")),
    (virtuals, submitters), (), ())
loop = Loop()
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
files = Files(tables(virtuals, submitters), ResolverSettings((server.getsockname(),), 0.2, 1), NO_HOSTS)
hashes = recipe.PasswordHashes({system})
hashes.preload(recipe.schemes_in(files.tables))
checking = recipe.Checking(loop, hashes)
desk = recipe.Desk(loop, settings, files, hashes, checking, lambda text: None, print)
recipe.dns_wire.preload()

class Box:
    def send(self, message, *fds):
        got.append(message)

got = []
for p in (Process.SMTP, Process.QUEUE, Process.DELIVERY, Process.PARENT):
    desk.attach(p, Box())
before = set(sys.modules)

checking.start()
smtp, delivery = desk.handlers(Process.SMTP), desk.handlers(Process.DELIVERY)
smtp[m.PeerQuery](m.PeerQuery(1, 0, "192.0.2.1"))
smtp[m.PeerQuery](m.PeerQuery(2, 0, "2001:db8::1"))
smtp[m.RcptRequest](m.RcptRequest(1, 1, 1, "h", False, "", "x@v.org", Dsn()))
for n, user in enumerate(HASHES):
    smtp[m.PeerQuery](m.PeerQuery(10 + n, 0, "127.0.0.1"))
    smtp[m.AuthRequest](m.AuthRequest(10 + n, "p", user, "password"))
delivery[m.RouteQuery](m.RouteQuery(1, "r", "b\\u00fccher.org"))
def say_no():
    data, address = server.recvfrom(4096)
    server.sendto(data[:2] + bytes([0x81, 0x83]) + data[4:], address)
loop.read_on(server.fileno(), say_no)
while len([x for x in got if isinstance(x, (m.Route, m.AuthReply, m.PeerInfo))]) < 1 + 2 * len(HASHES) + 2:
    loop.turn(0.1)
late = sorted(set(sys.modules) - before)
checking.stop()
print("LATE", late, [x.verdict for x in got if isinstance(x, m.AuthReply)])
"""


def run(system: str) -> str:
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT.format(root=root, system=system)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_with_the_systems_crypt() -> None:
    """DNS, expansion and checks with crypt(3) load no module once set up."""
    assert run("recipe.crypt_r.load()").startswith("LATE [] ")


def test_with_passlib() -> None:
    """And neither do they with passlib, whose handlers load late by habit."""
    out = run("None")
    assert out.startswith("LATE [] ")
    assert out.count("'ok'") >= 2


def test_no_heavy_modules() -> None:
    """What lookup never needs it does not carry."""
    root = str(Path(__file__).parents[2])
    script = (
        f"import sys; sys.path[:0] = [{root!r}]; import smtpd_ps.lookup.__main__;"
        "print(sorted({'asyncio', 'ssl', 'dns.resolver', 'dns.message', 'dns.query', 'hashlib',"
        " 'passlib', 'sqlite3', 'http'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
