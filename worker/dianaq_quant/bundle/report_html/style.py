"""The page's CSS: light and dark by the reader's settings, readable on a phone, no fonts but those that are there."""

CSS = """
:root { color-scheme: light dark; --back: #fff; --card: #f5f6f8; --text: #1d2129; --soft: #5b6472; --line: #d5d9e0;
  --good: #1a7f4b; --warn: #a15c00; --c0: #2563ab; --c1: #b4541a; --c2: #2f855a; --c3: #8b3f9e; --grid: #e6e8ec; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --card: #1e2229; --text: #e6e8ec; --soft: #a0a8b5;
  --line: #363c47; --good: #5cc98d; --warn: #eaa94b; --c0: #6ea8e8; --c1: #eb9460; --c2: #6fcf9c; --c3: #cf8fe0;
  --grid: #2a2f38; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; }
p { max-width: 48rem; margin: .5rem 0; }
a { color: var(--c0); }
.soft, caption, figcaption, small { color: var(--soft); font-size: .85rem; }
.verdict { border-left: .3rem solid var(--good); padding: .5rem 1rem; background: var(--card); font-size: 1.1rem;
  max-width: none; }
.verdict.warn { border-color: var(--warn); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: .75rem;
  margin: 1rem 0; }
.cards > div { background: var(--card); border-radius: .4rem; padding: .75rem 1rem; margin: 0; }
.cards dt { color: var(--soft); font-size: .85rem; }
.cards dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.cards dd + dd { font-size: .85rem; font-weight: 400; color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem 2rem; }
.two { grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); }
.small { grid-template-columns: repeat(auto-fill, minmax(min(13rem, 100%), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { margin-bottom: .25rem; }
svg { display: block; width: 100%; height: auto; max-width: 40rem; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .15rem 1rem; padding: 0; margin: .25rem 0;
  font-size: .85rem; }
.legend svg { display: inline-block; width: 1.8rem; vertical-align: middle; margin-right: .35rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .35rem; }
th, td { text-align: left; padding: .25rem .55rem; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; font-weight: 400; }
thead th { color: var(--soft); border-bottom-width: 2px; vertical-align: bottom; }
thead th:first-child { padding-left: 0; }
tbody th { position: sticky; left: 0; background: var(--back); padding-left: 0; max-width: min(22rem, 40vw);
  white-space: normal; overflow-wrap: break-word; }
.n { text-align: right; }
.wide { white-space: normal; min-width: 16rem; }
.bars { display: grid; grid-template-columns: minmax(4rem, auto) 3fr auto; gap: .15rem .6rem; font-size: .875rem;
  align-items: center; margin: 0; font-variant-numeric: tabular-nums; }
.bars > div { display: contents; }
.bars dt { overflow-wrap: anywhere; max-width: 11rem; line-height: 1.2; }
.bars dd { margin: 0; min-width: 0; }
.bars .n { white-space: nowrap; }
.bar { display: flex; height: .8rem; background: var(--grid); border-radius: .15rem; overflow: hidden; }
.bar i { display: block; height: 100%; }
.f0 { background: var(--c0); } .f1 { background: var(--c1); } .f2 { background: var(--c2); }
.f3 { background: var(--c3); }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); } .s3 { stroke: var(--c3); }
.curve { fill: none; stroke-width: 2; }
.dot { stroke: none; }
.d0 { fill: var(--c0); } .d1 { fill: var(--c1); } .d2 { fill: var(--c2); } .d3 { fill: var(--c3); }
.grid { stroke: var(--grid); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
details { margin: .75rem 0; }
summary { cursor: pointer; }
pre { overflow-x: auto; background: var(--card); padding: .75rem; font-size: .8rem; border-radius: .4rem; }
ul.list { padding-left: 1.2rem; max-width: 56rem; }
ul.list li { margin: .35rem 0; }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; vertical-align: -.05rem;
  margin-right: .35rem; }
@media print { .scroll { overflow: visible; } details > * { display: block; } }
"""
