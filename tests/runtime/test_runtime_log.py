"""Log lines, whatever they quote."""

import subprocess
import sys

from smtpd_ps.runtime.log import MAX_LINE, escape


def test_a_line_stays_a_line():
    """Line breaks and escape sequences of strangers are shown, not obeyed; length is bounded."""
    assert escape("a\r\nb\x1b[2J") == "a\\r\\nb\\x1b[2J"
    assert len(escape("x" * 10_000)) == MAX_LINE


def test_escaping_imports_nothing_late():
    """The codec comes with the module: a confined process cannot open its file any more."""
    code = "import sys, smtpd_ps.runtime.log; sys.exit('encodings.unicode_escape' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
