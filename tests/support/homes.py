"""Mail users with homes and .forward files, as the comparison with OpenSMTPD needs them."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

HOMES = Path("/var/tmp/sps-homes")  # fixed: it stands in passwd
PLAIN = ("spsanna", "spsbert", "spscarl")
FORWARDS = {
    "spsfone": "someone@far.test\n",
    "spsftwo": "# a comment\nspsanna, someone@far.test\n\\spsftwo\n",
    "spsfself": "spsfself\n",
    "spsfloop": "spsfloop2@local.test\n",
    "spsfloop2": "spsfloop@local.test\n",
    "spsfown": "spsfown@local.test\n",
    "spsfwrite": "someone@far.test\n",
    "spsfempty": "# nothing\n",
    "spsfmany": "".join(f"p{number}@far.test\n" for number in range(60)),
    "spsfgone": "nosuchuser\n",
    "spsfother": "someone@far.test\n",
    "spsflink": "someone@far.test\n",
    "spsfsticky": "someone@far.test\n",
    "spsffile": f"{HOMES}/spsffile/folder/box\n",
    "spsfpipe": f'"|cat > {HOMES}/spsfpipe/piped; id -un > {HOMES}/spsfpipe/who"\n',
    "spsfinc": ":include:/etc/hostname\n",
}
USERS = (*PLAIN, *FORWARDS)


def make_homes() -> None:
    """Make the users who are missing, and all homes anew."""
    shutil.rmtree(HOMES, ignore_errors=True)
    HOMES.mkdir(mode=0o755)
    for name in USERS:
        home = HOMES / name
        try:
            pwd.getpwnam(name)
        except KeyError:
            subprocess.run(["useradd", "-r", "-M", "-d", str(home), "-s", "/bin/sh", "-U", name], check=True)
        home.mkdir(mode=0o755)
        shutil.chown(home, name, name)
        if name in FORWARDS:
            path = home / ".forward"
            path.write_text(FORWARDS[name])
            path.chmod(0o644)
            shutil.chown(path, name, name)
    (HOMES / "spsfwrite/.forward").chmod(0o666)
    shutil.chown(HOMES / "spsfother/.forward", "spsanna", "spsanna")
    (HOMES / "spsflink/.forward").rename(HOMES / "spsflink/there")
    (HOMES / "spsflink/.forward").symlink_to("there")
    os.chmod(HOMES / "spsfsticky", 0o1755)
    folder = HOMES / "spsffile/folder"
    folder.mkdir()
    shutil.chown(folder, "spsffile", "spsffile")


def empty_homes() -> None:
    """Remove what was delivered."""
    for path in HOMES.glob("*/*"):
        if path.name in (".forward", "there"):
            continue
        if path.is_dir() and path.name != "folder":
            shutil.rmtree(path)
        elif path.is_dir():
            for inner in path.iterdir():
                inner.unlink()
        else:
            path.unlink()


def remove_homes() -> None:
    """Homes only: the users do no harm."""
    shutil.rmtree(HOMES, ignore_errors=True)
