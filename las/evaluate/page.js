"use strict";
// Sorts the tables and draws the utterances: rows by the hundred as the reader comes to them, what lies behind a row
// when it is opened. Texts reach the page through textContent alone.
const STEP = 100;
const NUMBERS = ["seconds", "words", "errors", "rate"];

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function markSorted(heads, chosen, descending) {
  for (const head of heads) head.removeAttribute("aria-sort");
  chosen.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

const inOrder = new Intl.Collator(undefined, { numeric: true });
function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : inOrder.compare(a, b);
}

// ------------------------------------------------------------------------------------------ tables that stand there
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") !== "descending";
    const value = (row) => {
      const cell = row.cells[column];
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
    };
    const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b)) * (descending ? -1 : 1));
    table.tBodies[0].append(...rows);
    markSorted(heads, head, descending);
  }));
}

// ----------------------------------------------------------------------------------------------------- utterances
function steps(one) {
  const said = one.reference ? one.reference.split(" ") : [];
  const heard = one.hypothesis ? one.hypothesis.split(" ") : [];
  let left = 0, right = 0;
  return [...one.operations].map((sign) => ({
    sign, said: sign === "I" ? "" : said[left++], heard: sign === "D" ? "" : heard[right++],
  }));
}

function inline(one) {
  const line = make("span", { dir: "auto" });
  for (const { sign, said, heard } of steps(one)) {
    if (sign === "=") line.append(said);
    else {
      const mark = make("span", { className: sign === "S" ? "wrong" : "" });
      if (said) mark.append(make("del", { textContent: said }));
      if (heard) mark.append(make("ins", { textContent: heard }));
      line.append(mark);
    }
    line.append(" ");
  }
  return line;
}

function opened(one, media, expected) {
  const box = make("div");
  const aligned = make("div", { className: "aligned", dir: "auto" });
  for (const { sign, said, heard } of steps(one)) {
    const pair = make("span", { className: "pair " + (sign === "=" ? "" : sign) });
    pair.append(make("span", { textContent: said || "∗" }), make("span", { textContent: heard || "∗" }));
    pair.append(make("i", { textContent: sign === "=" ? "" : sign }));
    aligned.append(pair);
  }
  box.append(aligned);
  if (media && media.audio) box.append(make("audio", { controls: true, preload: "metadata", src: media.audio }));
  else if (expected) box.append(make("p", { textContent: "Recording left out of this report, for its size." }));
  if (media && media.attention) {
    const { pieces, picture } = media.attention;
    const labels = make("div", {}, ...pieces.map((piece) => make("span", { textContent: piece })));
    const image = make("img", { src: picture, alt: "attention: a row for each token, time from left to right" });
    image.style.height = 16 * pieces.length + "px";
    const end = one.seconds === null ? "end" : one.seconds.toFixed(2) + " s";
    const time = make("p", {}, make("span", { textContent: "0" }), make("span", { textContent: end }));
    box.append(make("div", { className: "attention" }, labels, image, time));
  }
  return box;
}

function utterances(place) {
  const number = place.dataset.set;
  const all = JSON.parse(document.getElementById("set-" + number).textContent);
  all.forEach((one, index) => {
    one.index = index;
    const count = (sign) => one.operations.split(sign).length - 1;
    [one.S, one.D, one.I] = ["S", "D", "I"].map(count);
    one.errors = one.S + one.D + one.I;
    one.words = one.operations.length - one.I;
    one.rate = one.words ? one.errors / one.words : one.errors ? Infinity : 0;
    one.searched = [one.id, one.speaker || "", one.reference, one.hypothesis].join("\n").toLowerCase();
  });
  const columns = [["id", "id"]];
  if (all.some((one) => one.speaker !== null)) columns.push(["speaker", "speaker"]);
  if (all.some((one) => one.seconds !== null)) columns.push(["seconds", "s"]);
  columns.push(["words", "words"], ["errors", "errors"], ["rate", "WER"], ["reference", "said and written"]);

  const search = make("input", { type: "search", placeholder: "search id, speaker, text" });
  const wrong = make("input", { type: "checkbox" });
  const count = make("span", { className: "count" });
  const tools = make("div", { className: "tools" }, search, make("label", {}, wrong, " only with errors"), count);
  const body = make("tbody");
  const heads = columns.map(([key, title]) => make(
    "th", { scope: "col", className: NUMBERS.includes(key) ? "number" : "" },
    make("button", { textContent: title, onclick: () => sortBy(key) })));
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body);
  const sentinel = make("div", { className: "sentinel" });
  place.replaceChildren(make("h3", { textContent: "Utterances" }), tools, table, sentinel);

  let shown = all, key = "errors", descending = true;
  function sortBy(chosen) {
    descending = chosen === key ? !descending : !["id", "speaker", "reference"].includes(chosen);
    key = chosen;
    refresh();
  }
  function refresh() {
    const query = search.value.trim().toLowerCase();
    shown = all.filter((one) => (!wrong.checked || one.errors) && one.searched.includes(query));
    const sign = descending ? -1 : 1;
    shown.sort((a, b) => compare(a[key] ?? "", b[key] ?? "") * sign || a.index - b.index);
    markSorted(heads, heads[columns.findIndex((column) => column[0] === key)], descending);
    count.textContent = shown.length + " of " + all.length;
    body.replaceChildren();
    more();
  }
  function more() {
    const from = body.querySelectorAll("tr.one").length;
    body.append(...shown.slice(from, from + STEP).map(row));
  }
  function cell(one, column) {
    if (column === "reference") return make("td", { className: "text" }, inline(one));
    if (column === "id") return make("td", { className: "id", dir: "auto", textContent: one.id });
    if (column === "speaker") return make("td", { dir: "auto", textContent: one.speaker ?? "" });
    let text = one[column];
    if (column === "seconds") text = text === null ? "" : text.toFixed(2);
    if (column === "rate") text = one.words ? (100 * one.rate).toFixed(1) + "%" : one.errors ? "undefined" : "";
    return make("td", { className: "number", textContent: text });
  }
  function row(one) {
    const line = make("tr", { className: "one", tabIndex: 0 }, ...columns.map(([column]) => cell(one, column)));
    const toggle = () => {
      if (line.classList.toggle("open")) {
        const found = document.getElementById("media-" + number + "-" + one.index);
        const media = found && JSON.parse(found.textContent);
        line.after(make("tr", { className: "more" }, make("td", { colSpan: columns.length }, opened(one, media, "media" in place.dataset))));
      } else line.nextElementSibling.remove();
    };
    line.addEventListener("click", toggle);
    line.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); }
    });
    return line;
  }
  search.addEventListener("input", refresh);
  wrong.addEventListener("change", refresh);
  refresh();
  new IntersectionObserver((found) => { if (found.some((one) => one.isIntersecting)) more(); }, { rootMargin: "800px" })
    .observe(sentinel);
}
for (const place of document.querySelectorAll(".utterances")) utterances(place);
