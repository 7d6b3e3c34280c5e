"""`python -m segvit`, which `torchrun -m segvit` starts in every process."""

from segvit.cli.main import main

main()
