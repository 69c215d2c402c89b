"""The command lines: arguments in, the work called, one line out; nothing is computed here.

A file is a command by its `main`. What stands at its top makes the arguments, and is imported in no time; the work,
which takes seconds to import, is imported behind them: `--help` and a mistyped option answer at once.
"""
