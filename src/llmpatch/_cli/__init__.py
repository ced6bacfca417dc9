"""The command line: one file per verb over the library. A verb reads options and prints; it decides nothing."""
