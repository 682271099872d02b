"""`smtpd_ps -n`: what it prints, and where."""

from pathlib import Path

import pytest

from smtpd_ps.cli.smtpd_ps import main

TEXT = (
    'spare = x\nplace = 127.0.0.1\nlisten on $place port 2525\naction "é l" mbox\nmatch from any for any action "é l"\n'
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "smtpd.conf"
    file.write_text(TEXT, encoding="utf-8")
    return str(file)


def test_the_configuration_as_understood(path: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """-n -v: on standard output there is nothing but a configuration, which prints as itself."""
    assert main(["-n", "-v", "-f", path]) == 0
    first = capfd.readouterr()
    assert "listen on 127.0.0.1 port 2525\n" in first.out
    assert 'match from any for any action "é l"\n' in first.out
    assert first.err.endswith("configuration OK\n")
    again = tmp_path / "again.conf"
    again.write_text(first.out, encoding="utf-8")
    assert main(["-nv", "-f", str(again)]) == 0
    assert capfd.readouterr().out == first.out


def test_unused_macros(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    """They are warned about with -v, also those of -D."""
    assert main(["-n", "-v", "-f", path, "-D", "other=y"]) == 0
    warnings = capfd.readouterr().err
    assert f'{path}:1: warning: macro "spare" is not used\n' in warnings
    assert '-D: warning: macro "other" is not used\n' in warnings


def test_without_v(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    """-n alone says OK, on standard error as OpenSMTPD does."""
    assert main(["-n", "-f", path]) == 0
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "configuration OK\n")


def test_an_error(path: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What is wrong goes to standard error, nothing to standard output, and the status is 1."""
    Path(path).write_text(TEXT + "lisen\n", encoding="utf-8")
    assert main(["-n", "-v", "-f", path]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert f"{path}:6" in said.err
