"""The command line: its options, what it prints, the streams and files that it reads and writes. Knows no HTTP."""
