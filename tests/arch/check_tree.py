"""What linters cannot say about this tree: who may import what, sizes, names, docstrings, words.

Run by `make check`; prints `path:line: message` for each finding and ends 1 when there is one.
usage: check_tree.py [ROOT]
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_LINES = 600

# A module that only these parts of the package may import, as prefixes below smtpd_ps.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "ctypes": ("osdep", "keys"),
    "sqlite3": ("queue.store", "programs"),
    "dns": ("lookup", "programs"),
    "dkim": ("programs",),
    "publicsuffixlist": ("programs",),
    "psycopg": ("programs",),
    "asyncio": ("filterkit", "programs"),  # programs are no processes of the daemon
    "passlib": ("lookup", "cli"),
    "subprocess": ("cli", "osdep.bsd_inspect"),  # the latter runs in the audit alone
    "ssl": ("runtime.tls", "runtime.tls_context", "smtp", "delivery", "keys", "config", "cli"),
}
BANNED_IMPORTS = frozenset(
    ("pickle", "marshal", "shelve", "dill", "logging", "uvloop", "multiprocessing", "imp", "runpy", "code")
)
BANNED_CALLS = frozenset(
    ("eval", "exec", "__import__", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput")
)
BANNED_MODULE_NAMES = frozenset(("utils", "util", "helpers", "helper", "misc", "common", "tools", "lib"))

# Registry hosts, paths of one machine, and tools are nobody's business in this tree. Written in two
# halves so that this file does not find itself.
BANNED_WORDS = tuple(
    first + second
    for first, second in (
        ("pypi", ".org"),
        ("python", "hosted.org"),
        ("deb.debian", ".org"),
        ("security.debian", ".org"),
        ("registry.npm", "js.org"),
        ("proxy.golang", ".org"),
        ("/work", "/main"),
        ("/work", "/shared"),
        ("/tmp", "/venv"),
        ("/root", "/.pyenv"),
        ("clau", "de"),
        ("anthro", "pic"),
        ("chat", "gpt"),
        ("language", " model"),
    )
)
TEXT_SUFFIXES = frozenset((".py", ".md", ".toml", ".sh", ".tsv", ".conf", ".service", ".subr", ".txt", ".cf", ""))

Finding = tuple[Path, int, str]


def tracked(root: Path) -> list[Path]:
    """The files of the tree: what git knows or would add; without git, everything not hidden."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        names = [name for name in listed.stdout.decode().split("\0") if name]
        return [root / name for name in sorted(set(names)) if (root / name).is_file()]
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(part == "__pycache__" for part in path.relative_to(root).parts)
    )


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and absolute name of each import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "."
            elif node.module:
                yield node.lineno, node.module


def dotted(node: ast.expr) -> str:
    """`os.system` for the expression that says so, "" for anything but a dotted name."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            before = dotted(value)
            return f"{before}.{attribute}" if before else ""
        case _:
            return ""


def below(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether the dotted `name` is one of the prefixes or inside one."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def check_module(path: Path, module: str, tree: ast.Module) -> Iterator[Finding]:
    """One module of the package; `module` is its dotted name below smtpd_ps."""
    if not ast.get_docstring(tree):
        yield path, 1, "the module has no docstring"
    if path.stem in BANNED_MODULE_NAMES or path.parent.name in BANNED_MODULE_NAMES:
        yield path, 1, f"{path.stem} says nothing about what is in it"
    for line, name in imports(tree):
        top = name.partition(".")[0]
        if name == ".":
            yield path, line, "relative import"
        if top in BANNED_IMPORTS:
            yield path, line, f"{top} is banned"
        if top in ONLY_IN and not below(module, ONLY_IN[top]):
            yield path, line, f"{top} is only for {', '.join(ONLY_IN[top])}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in BANNED_CALLS:
            yield path, node.lineno, f"{name} is banned"
        for keyword in node.keywords:
            if keyword.arg == "shell" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield path, node.lineno, "shell= is banned"


def check_tests(paths: list[Path]) -> Iterator[Finding]:
    """Every test says its rule; file names are unique, since test folders are not packages."""
    seen: dict[str, Path] = {}
    for path in paths:
        if path.name == "__init__.py":
            yield path, 1, "test folders are not packages"
        if path.name.startswith("test_"):
            if path.name in seen:
                yield path, 1, f"there is another {path.name}: {seen[path.name]}"
            seen[path.name] = path
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node):
                yield path, node.lineno, f"{node.name} does not say the rule it checks"


def check_words(path: Path) -> Iterator[Finding]:
    """No word of BANNED_WORDS in a text file."""
    try:
        text = path.read_text(encoding="utf-8").lower()
    except UnicodeDecodeError:
        return
    for word in BANNED_WORDS:
        if word in text:
            yield path, text[: text.index(word)].count("\n") + 1, f"{word!r} has no place in this tree"


def check(root: Path) -> list[Finding]:
    """All findings below `root`."""
    findings: list[Finding] = []
    files = tracked(root)
    package = root / "smtpd_ps"
    tests = root / "tests"
    for path in files:
        if path.suffix == ".py":
            lines = path.read_bytes().count(b"\n")
            if lines > MAX_LINES:
                findings.append((path, MAX_LINES, f"{lines} lines; the most is {MAX_LINES}"))
            if package in path.parents:
                module = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
                findings += check_module(path, module, ast.parse(path.read_bytes(), str(path)))
        if path.suffix in TEXT_SUFFIXES or path.suffix[1:].isdigit():
            findings += check_words(path)
    findings += check_tests([path for path in files if path.suffix == ".py" and tests in path.parents])
    return findings


def main(arguments: list[str]) -> int:
    """Print the findings; 1 when there are any."""
    root = Path(arguments[0] if arguments else Path(__file__).parents[2]).resolve()
    findings = check(root)
    for path, line, text in findings:
        print(f"{path.relative_to(root)}:{line}: {text}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
