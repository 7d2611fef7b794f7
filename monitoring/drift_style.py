"""How a drift report looks: one style sheet for light and dark, without fonts or pictures from elsewhere."""

STYLE = """
:root { color-scheme: light dark; --back: #f4f5f6; --paper: #ffffff; --ink: #1b2027; --muted: #5d6773; --line: #dfe3e8;
  --then: #c3cad3; --now: #2f6db5; --drifted: #b3261e; --drifted-back: #fbeae8; --stable: #1b7a48;
  --stable-back: #e6f4ec; --few: #7a5c0d; --few-back: #faf2da; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --paper: #1d2126; --ink: #e7eaee; --muted: #9ba6b3;
  --line: #323941; --then: #56606c; --now: #6fabf0; --drifted: #ff8a80; --drifted-back: #3d1f1d; --stable: #6fd39b;
  --stable-back: #16321f; --few: #e6c462; --few-back: #362d12; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 12px 0 20px; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 40px 0 4px; }
h3 { font-size: 15px; margin: 0; overflow-wrap: anywhere; }
p { margin: 4px 0 14px; color: var(--muted); max-width: 76ch; }
dl { display: flex; flex-wrap: wrap; gap: 12px 36px; margin: 0; }
dt { color: var(--muted); font-size: 12px; }
dd { margin: 0; overflow-wrap: anywhere; }
section.row { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); margin-top: 28px; }
section.charts { display: grid; align-items: start; gap: 14px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
article { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  min-width: 0; }
article.tile strong { display: block; font-size: 21px; line-height: 1.3; margin: 6px 0 0; }
article.tile header { flex-wrap: wrap; gap: 4px 12px; }
article.tile h3 { white-space: nowrap; }
article .mark { font-size: 12px; padding: 2px 8px; }
article small { color: var(--muted); font-size: 13px; }
article header { display: flex; justify-content: space-between; gap: 12px; align-items: start; margin-bottom: 4px; }
article ul { margin: 2px 0 8px; padding: 0; list-style: none; font-size: 13px; color: var(--muted);
  overflow-wrap: anywhere; }
.mark { display: inline-block; padding: 2px 10px; border-radius: 99px; font-size: 13px; font-weight: 600;
  white-space: nowrap; }
.mark.drifted { color: var(--drifted); background: var(--drifted-back); }
.mark.stable { color: var(--stable); background: var(--stable-back); }
.mark.few { color: var(--few); background: var(--few-back); }
.scroll { overflow-x: auto; background: var(--paper); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { padding: 8px 12px; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--muted); font-weight: 500; font-size: 12px; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 110px; }
.faint { color: var(--muted); }
.key { display: flex; gap: 18px; font-size: 13px; color: var(--muted); margin: 0 0 10px; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font: 11px system-ui, sans-serif; }
svg .then, .key .then { fill: var(--then); background: var(--then); }
svg .now, .key .now { fill: var(--now); background: var(--now); }
svg .line { stroke: var(--line); stroke-width: 1; }
@media print { body { background: none; } article, tr { break-inside: avoid; } }
"""
