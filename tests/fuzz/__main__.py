"""`make fuzz`: coverage-guided fuzzing of everything that parses what strangers send.

    python tests/fuzz [--secs 600] [TARGET ...]

Each target runs in a process of its own; inputs that reach new code are kept in tests/fuzz/corpora/TARGET,
and one that fails a rule is left in the working directory as crash-..., with the traceback.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "pure"), str(HERE.parent), str(HERE.parents[1])]
CORPORA = HERE / "corpora"
MAX_BYTES = 2000


def run(name: str, secs: int) -> None:
    """One target, here; does not return."""
    import atheris

    with atheris.instrument_imports(include=["smtpd_ps.pure"]):
        from targets import TARGETS
    corpus = CORPORA / name
    corpus.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={secs}",
            f"-max_len={MAX_BYTES}",
            "-timeout=20",
            "-print_final_stats=1",
        ],
        TARGETS[name],
    )
    atheris.Fuzz()


def main() -> int:
    """All or some targets, one after the other; 1 where any failed."""
    ask = argparse.ArgumentParser(prog="fuzz")
    ask.add_argument("--secs", type=int, default=600, help="for each target")
    ask.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    ask.add_argument("targets", nargs="*", metavar="TARGET", help="all of them where none is named")
    given = ask.parse_args()
    if given.here:  # nothing of ours may be imported before it can be instrumented
        run(given.targets[0], given.secs)
    from targets import TARGETS

    unknown = set(given.targets) - set(TARGETS)
    if unknown:
        ask.error(f"no target {', '.join(sorted(unknown))}: there are {', '.join(TARGETS)}")
    failed = []
    for name in given.targets or TARGETS:
        print(f"== {name}: {given.secs} s", flush=True)
        argv = [sys.executable, str(HERE), "--here", "--secs", str(given.secs), name]
        if subprocess.run(argv, check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "no failure")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
