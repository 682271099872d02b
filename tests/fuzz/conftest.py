"""The dialogue runner of tests/pure is what the targets drive a session with."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pure"))
