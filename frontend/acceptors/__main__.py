"""`python -m frontend.acceptors`: one acceptor, started by a frontend."""

from frontend.acceptors.process import main

main()
