"""The environment of an MDA command: these names and no others (FEATURES A10; OpenSMTPD's mda_unpriv.c).

Pure; runs in agents. Values are addresses of strangers: a command finds them as data, and no shell
reads them unless the command has one do so.
"""

PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin"


def mda_environment(user: str, home: str, sender: str, rcpt: str, dest: str, extension: str) -> dict[str, str]:
    """`user` is the recipient's name, `home` the directory of the user that the command runs as."""
    local, _, domain = rcpt.rpartition("@")
    out = {
        "PATH": PATH,
        "DOMAIN": domain,
        "HOME": home,
        "ORIGINAL_RECIPIENT": rcpt,
        "RECIPIENT": dest,
        "SHELL": "/bin/sh",
        "LOCAL": local,
        "LOGNAME": user,
        "USER": user,
        "SENDER": sender,
    }
    if extension:
        out["EXTENSION"] = extension
    return out
