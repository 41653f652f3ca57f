"""The commands, a module for each part: they parse, and call `cqr.api`.

Each command is a function whose arguments are its options and whose docstring is its help;
`cqr.cli` registers them.
"""
