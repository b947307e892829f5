"""The command line: one command a file, found by discovery; the only place where sim and real meet robolearn."""
