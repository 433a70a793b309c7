"""The command line: one file per group of commands; `options` turns options into a job specification.

From outside: `main`, and `dianaq.cli.options`. Other packages add commands through the entry-point group
`dianaq.commands`.
"""
