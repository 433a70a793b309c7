"""The shared ground floor: what client, service, worker and library say to each other, as pydantic models.

Jobs and recipes as users write them (`spec`, `recipe` and their parts), what comes back (`events`, `resources`,
`report`, `sweep_table`), and nothing that does anything. Needs pydantic alone; import the modules themselves.
"""
