"""`report.html`: the report as one page that needs nothing else: no network, no scripts, no fonts, no other file.

`markup` makes HTML out of text and escapes it; `style` is the page's CSS; `charts` and `bars` draw; `verdict`, `tables`
and `figures` are its sections; `page` puts them together. From outside: `report_page`.
"""

from dianaq_quant.bundle.report_html.page import report_page

__all__ = ["report_page"]
