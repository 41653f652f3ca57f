// Marks on results, which the model can learn from: right, not right, none of these.

import { isRow, teaches } from "./address.js";
import { copy } from "./copy.js";
import { $ } from "./dom.js";
import { pick } from "./picker.js";
import { call, post } from "./service.js";

const TESTED = 5; // every fifth reference is kept to test by, where a table says nothing else
const SURE = 10; // points of recall: from there on a training can be told from chance

let collects = null; // { file, train }, or null
let asked = null; // the step whose results are marked, or null
let marks = new Map(); // row -> "right" | "wrong"
let none = false;
let done = []; // what undoes the marks of this page, oldest first
let counts = null;
let changed = () => {};

export const on = () => asked !== null;
export const of = (row) => marks.get(row) ?? "";

// `info`: what the service says of itself.  `tell()`: marks are others now.
export function start(info, tell) {
  [collects, changed] = [info.collects, tell];
}

// The results of a step are shown now; null: none.
export async function show(step) {
  const able = Boolean(collects) && step !== null && teaches(step);
  asked = able ? step : null;
  [marks, none] = [new Map(), false];
  $("marking").hidden = !collects || step === null || !(step.text || step.also.length);
  $("marking-able").hidden = !able;
  $("marking-not").hidden = able;
  $("marking-not").textContent = step && !isRow(step.image)
    ? "Results of a picture of your own cannot be marked: its regions are not kept."
    : "Results can be marked for one picture with one text.";
  if (able) await read();
}

// Read what is marked by now, here or in another window.
async function read() {
  if (!asked) return;
  const of = asked;
  const query = new URLSearchParams({ reference: of.image, text: of.text });
  try {
    const [said, total] = await Promise.all([call(`/api/marks?${query}`), call("/api/answers")]);
    if (asked !== of) return;
    marks = new Map([...said.right.map((row) => [row, "right"]), ...said.wrong.map((row) => [row, "wrong"])]);
    [none, counts] = [said.none, total];
    draw();
  } catch (error) {
    say(error.message);
  }
}

// Mark a result; the mark that it has already is taken back.
export async function mark(row, kind) {
  const before = of(row);
  const now = before === kind ? "" : kind;
  await set(row, now, kind === "right" && none);
  done.push({ of: asked, row, before, none: kind === "right" && none });
}

async function set(row, kind, hadNone = false) {
  const sent = { taken_back: [row], none_taken_back: hadNone };
  if (kind) sent[kind] = [row];
  await send(sent);
}

async function send(sent) {
  try {
    counts = await post("/api/answers", { reference: Number(asked.image), text: asked.text, ...sent });
    await read();
  } catch (error) {
    say(error.message);
    throw error;
  }
}

async function noneOfThese() {
  const rights = [...marks].filter(([, kind]) => kind === "right").map(([row]) => row);
  const before = none;
  await send(none ? { none_taken_back: true } : { none: true, taken_back: rights });
  done.push({ of: asked, rights: before ? [] : rights, before });
}

async function another() {
  const row = await pick("Which picture is the right one?");
  if (row === null) return;
  if (of(row) !== "right") await mark(row, "right");
}

async function undo() {
  const last = done.filter((one) => one.of.image === asked.image && one.of.text === asked.text).pop();
  if (!last) return say("Nothing of this question was marked on this page.");
  done = done.filter((one) => one !== last);
  if (last.row !== undefined) {
    await set(last.row, last.before);
    if (last.none) await send({ none: true });
  } else {
    await send(last.before ? { none: true } : { none_taken_back: true, right: last.rights });
  }
}

export const act = { none: noneOfThese, another, undo };

const say = (text) => ($("marking-said").textContent = text);

// What so many right answers are enough for: 95 of 100 times a share that is measured on n questions
// is off by less than 98 / sqrt(n) points.
export function enough(right) {
  const sure = 98 / Math.sqrt(right / TESTED);
  const need = TESTED * Math.ceil((98 / SURE) ** 2);
  if (sure > 25) return `too few to tell what was learned; ${need} tell recall to ± ${SURE} points`;
  if (sure > SURE) return `enough to tell recall to ± ${Math.ceil(sure)} points; ${need} tell it to ± ${SURE}`;
  return `enough to tell recall to ± ${Math.ceil(sure)} points`;
}

function draw() {
  const { right, wrong, none: nones } = counts;
  $("marking-count").textContent =
    `${right.toLocaleString("en")} right, ${wrong.toLocaleString("en")} not right, ${nones.toLocaleString("en")} without an answer in ${counts.file}: ${enough(right)}.`;
  $("train-command").textContent = collects.train;
  $("mark-none").setAttribute("aria-pressed", none);
  say("");
  changed();
}

for (const [id, name] of [["mark-none", "none"], ["mark-another", "another"], ["mark-undo", "undo"]]) {
  $(id).addEventListener("click", () => act[name]().catch(() => {})); // it is said where marks are
}
$("train-copy").addEventListener("click", async () => {
  say((await copy(collects.train)) ? "Copied." : "Copy it by hand.");
});
addEventListener("focus", read); // another window may have marked since
