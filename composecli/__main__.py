"""python -m composecli"""

from composecli.cli import main

main(prog_name="composecli")
