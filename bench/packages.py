"""Debian packages unpacked side by side: OpenSMTPD and Postfix could not both be installed."""

import os
import re
import subprocess
from pathlib import Path

NEED = Path(__file__).resolve().parents[1] / ".ci/need"


class Packages:
    """Trees of unpacked packages below `cache`, which the servers' own users can enter."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._ready: dict[str, Path] = {}

    def tree(self, package: str) -> Path:
        """The package's files, downloaded where this is the first time, with the libraries that they need.

        Raises RuntimeError where apt-get cannot.
        """
        if package in self._ready:
            return self._ready[package]
        tree = self.cache / package
        if not tree.is_dir():
            self.cache.mkdir(parents=True, exist_ok=True)
            self.cache.chmod(0o755)
            self._download(package)
            half = self.cache / f"{package}.part"
            _run("rm", "-rf", str(half))
            _run("dpkg", "-x", str(self._file(package)), str(half))
            half.rename(tree)
        self._libraries(package)
        self._ready[package] = tree
        return tree

    def version(self, package: str) -> str:
        """Debian's version of the unpacked package."""
        return _run("dpkg-deb", "-f", str(self._file(package)), "Version").strip()

    def _file(self, package: str) -> Path:
        return next(iter(sorted(self.cache.glob(f"{package}_*.deb"))))

    def _download(self, package: str) -> None:
        for old in self.cache.glob(f"{package}_*.deb"):
            old.unlink()
        try:
            _run("apt-get", "download", package, cwd=self.cache)
        except RuntimeError:  # no package lists yet, or old ones
            _run("apt-get", "update")
            _run("apt-get", "download", package, cwd=self.cache)

    def _libraries(self, package: str) -> None:
        """Shared libraries conflict with nothing, so these are installed."""
        depends = _run("dpkg-deb", "-f", str(self._file(package)), "Depends")
        wanted = [name for name in re.findall(r"(?:^|, )([a-z0-9.+-]+)", depends) if name.startswith("lib")]
        _run("sh", str(NEED), "-n", *wanted)


def _run(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, text=True, capture_output=True, env=os.environ | {"LC_ALL": "C"}, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout
