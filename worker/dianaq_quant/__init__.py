"""The quantisation library: import, editors, training, integerisation, export.

Usable alone, in a notebook or as `python -m dianaq_quant`. No HTTP, no Celery, no database.
"""
