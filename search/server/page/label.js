// Labelling by the keyboard alone: a picture, what should be different, the picture that is so.

import { large, small } from "./address.js";
import { $ } from "./dom.js";
import { Grid } from "./grid.js";
import { paths } from "./listing.js";
import { enough } from "./marks.js";
import { Reference } from "./reference.js";
import { call, post } from "./service.js";

const CANDIDATES = 60;

const picture = new Reference($("label-picture"), $("label-looks"));
const grid = new Grid($("label-grid"), (item) => choose(item));
let info = null;
let on = false;
let reference = null; // the row that is asked about
let candidates = [];
let kept = []; // rows of the table that this page wrote, oldest first
let seen = []; // references, oldest first
let aspect = 4 / 3;

export function open(about, shape) {
  [info, aspect, on] = [about, shape, true];
  $("labelling").hidden = false;
  $("label-off").hidden = Boolean(info.collects);
  $("label-on").hidden = !info.collects;
  if (info.collects && reference === null) next();
  if (info.collects) count().catch((error) => say(error.message));
}

export function close() {
  on = false;
  $("labelling").hidden = true;
}

const say = (text) => ($("label-said").textContent = text);

async function count(said = null) {
  const { right, file } = said ?? (await call("/api/answers"));
  $("label-count").textContent = `${right.toLocaleString("en")} rows in ${file}: ${enough(right)}.`;
  $("label-train").textContent = info.collects.train;
}

// Another picture, that was not shown before if there is one.
function next() {
  const total = info.pictures;
  let row;
  do row = Math.floor(Math.random() * total); while (seen.length < total && seen.includes(row));
  seen.push(row);
  show(row);
}

async function show(row) {
  reference = row;
  $("label-text").value = "";
  $("label-text").focus({ preventScroll: true });
  picture.show(large(String(row)), "The picture to start from").catch((error) => say(error.message));
  try {
    const { hits } = await post("/api/search", { images: [row], k: CANDIDATES });
    if (reference !== row) return;
    candidates = hits.map((hit, i) => {
      paths[hit.row] = hit.path;
      return { ...hit, rank: i + 1, src: small(String(hit.row)), label: hit.path, href: `/?image=${hit.row}&text=` };
    });
    grid.show(candidates.length, (i) => candidates[i], { aspect, captions: true });
  } catch (error) {
    say(error.message);
  }
}

async function choose(item) {
  const text = $("label-text").value.trim();
  if (!text) {
    say("Say first what is different in the picture that you choose.");
    return $("label-text").focus();
  }
  try {
    const said = await post("/api/answers", { reference, text, right: [item.row] });
    kept.push({ reference, text, row: item.row });
    recent(text);
    say(`Kept: ${text}`);
    count(said);
    next();
  } catch (error) {
    say(error.message);
  }
}

function recent(text) {
  const list = $("label-recent");
  if ([...list.children].some(({ value }) => value === text)) return;
  list.prepend(Object.assign(document.createElement("option"), { value: text }));
}

async function undo() {
  const last = kept.at(-1);
  if (!last) return say("Nothing was kept on this page yet.");
  try {
    const said = await post("/api/answers", { reference: last.reference, text: last.text, taken_back: [last.row] });
    kept.pop();
    count(said);
    await show(last.reference);
    $("label-text").value = last.text;
    say("Taken back.");
  } catch (error) {
    say(error.message);
  }
}

$("label-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!$("label-text").value.trim()) return say("Say what is different, or press Escape for another picture.");
  say("");
  grid.focus(0);
});
$("label-skip").addEventListener("click", next);
$("label-undo").addEventListener("click", undo);
$("labelling").addEventListener("keydown", (event) => {
  const inText = event.target === $("label-text");
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && !(inText && $("label-text").value)) undo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "Escape" && inText) next();
  else if (event.key === "Escape") $("label-text").focus();
  else if (!inText && /^[1-9]$/.test(event.key) && candidates[event.key - 1]) choose(candidates[event.key - 1]);
  else if (!inText && event.key === "u") undo();
  else return;
  event.preventDefault();
});
