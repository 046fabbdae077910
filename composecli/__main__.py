"""python -m composecli"""

from composecli.cli import run

run()
