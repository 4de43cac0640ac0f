"""The page of a dataset's report: one file that loads nothing but the pictures beside it, and those only when seen.

The rows are data in the page, of which a hundred are shown at a time, so that it opens with 100,000 clips as well.
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 1.6rem; }
.plots svg { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .2rem .55rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e4e4e4; }
th { background: #f6f6f6; vertical-align: bottom; }
#clips th { position: sticky; top: 0; } #clips th button { all: unset; cursor: pointer; font-weight: 600; }
#clips th button:focus-visible { outline: 2px solid #2a6fb0; }
.text { text-align: left; } .reason { white-space: normal; min-width: 16rem; }
tr.refused td, tr.damaged td { background: #fff4e5; }
#clips img { display: block; width: 48px; height: 48px; background: #eee; }
nav { margin: .6rem 0; } nav button, nav input, nav select { font: inherit; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
<h2>Columns</h2>
<div class="scroll"><table>
<thead><tr><th class="text">column</th><th>min</th><th>5 %</th><th>median</th><th>95 %</th><th>max</th>
<th>unknown</th><th class="text">what it is</th></tr></thead>
<tbody>$columns</tbody></table></div>
<h2>Distributions</h2>
<div class="plots">$plots</div>
<h2>Clips</h2>
<noscript><p>The table needs JavaScript; the numbers are in quality.csv, the refused clips in clips.csv.</p>
</noscript>
<nav><label>Find <input id="find" type="search" placeholder="name, person, reason"></label>
<label>Show <select id="state"><option value="">all</option><option>ok</option><option>refused</option>
<option>damaged</option></select></label>
<button id="back" type="button">&lsaquo; back</button> <span id="where"></span>
<button id="on" type="button">on &rsaquo;</button></nav>
<div class="scroll"><table id="clips"><thead><tr></tr></thead><tbody></tbody></table></div>
<script type="application/json" id="data">$data</script>
<script>
const {columns, titles, rows} = JSON.parse(document.getElementById("data").textContent);
const PER_PAGE = 100, TEXT = new Set(["name", "identity", "status", "reason"]);
const find = document.getElementById("find"), state = document.getElementById("state");
let shown = rows, page = 0, key = 0, rising = true;
const place = name => columns.indexOf(name);

function cell(row, value, tag = "td") {
  const element = row.appendChild(document.createElement(tag));
  if (value instanceof Node) element.append(value); else element.textContent = value ?? "–";
  return element;
}
function picture(row) {
  if (row[place("status")] !== "ok") return "";
  const file = encodeURIComponent(row[place("name")]) + ".jpg";
  const link = Object.assign(document.createElement("a"), {href: file});
  const image = {loading: "lazy", width: 48, height: 48, src: "thumbs/" + file, alt: "frames of " + row[place("name")]};
  link.append(Object.assign(document.createElement("img"), image));
  return link;
}
function number(value) { return typeof value === "number" ? Number(value.toPrecision(4)).toString() : value; }
function draw() {
  const pages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const body = document.createElement("tbody");
  for (const row of shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE)) {
    const line = body.appendChild(document.createElement("tr"));
    line.className = row[place("status")];
    cell(line, picture(row));
    row.forEach((value, k) => {
      const made = cell(line, number(value));
      if (TEXT.has(columns[k])) made.classList.add("text");
      if (columns[k] === "reason") made.classList.add("reason");
    });
  }
  document.querySelector("#clips tbody").replaceWith(body);
  document.getElementById("where").textContent = `page $${page + 1} of $${pages}, $${shown.length} clips`;
}
function order() {
  const words = find.value.toLowerCase();
  const texts = [...TEXT].map(place);
  shown = rows.filter(row => (!state.value || row[place("status")] === state.value)
    && (!words || texts.some(k => String(row[k]).toLowerCase().includes(words))));
  shown.sort((one, other) => {
    const [a, b] = [one[key], other[key]];
    if (a === b) return 0;
    if (a === null) return 1;  // the unknown come last in both directions
    if (b === null) return -1;
    return (a < b ? -1 : 1) * (rising ? 1 : -1);
  });
  page = 0;
  draw();
}
const head = document.querySelector("#clips thead tr");
cell(head, "", "th");
columns.forEach((name, k) => {
  const button = Object.assign(document.createElement("button"), {type: "button", textContent: name});
  button.addEventListener("click", () => { rising = key === k ? !rising : true; key = k; order(); mark(); });
  const made = cell(head, button, "th");
  made.title = titles[k];
  if (TEXT.has(name)) made.classList.add("text");
});
function mark() {
  [...head.children].forEach((made, k) => made.setAttribute("aria-sort",
    k - 1 === key ? (rising ? "ascending" : "descending") : "none"));
}
find.addEventListener("input", order);
state.addEventListener("change", order);
document.getElementById("back").addEventListener("click", () => { page -= 1; draw(); });
document.getElementById("on").addEventListener("click", () => { page += 1; draw(); });
mark();
order();
</script>
</body>
</html>
"""
