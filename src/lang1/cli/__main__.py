"""`python -m lang1.cli`: the same as `lang1`."""

from lang1.cli import main

main()
