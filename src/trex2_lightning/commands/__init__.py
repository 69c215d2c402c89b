"""The command lines: arguments in, the work called, one line out; nothing is computed here."""
