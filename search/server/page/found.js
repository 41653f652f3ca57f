// The results of a question: asked once, shown as tiles, page by page, or beside another run's.

import { isRow, isUpload, last, pictures, question, step, write } from "./address.js";
import { act, actions, actionsLarge, keysLarge, openLarge, tile } from "./acts.js";
import * as beside from "./beside.js";
import { $ } from "./dom.js";
import { paths } from "./listing.js";
import * as marks from "./marks.js";
import { notes } from "./notes.js";
import * as ask from "./question.js";
import { Results } from "./results.js";
import { post } from "./service.js";
import { grids, info, listing, restore, shown, title } from "./state.js";
import * as tools from "./tools.js";

const KEPT = 30; // answers, so that going back is instant

const { grid } = grids;
const answers = new Map(); // question -> what was found

export const heading = (asked) =>
  asked.text || (asked.also.length ? asked.also.map((one) => one.replace(/^1:/, "")).join(", ") : "Like this picture");

// `know()`: a promise that the service said what it is.
export async function results(asked, signal, know) {
  title(heading(asked), "");
  tools.hide();
  const found = await answered(asked, signal, know);
  if (signal.aborted) return;
  const { own, other } = found;
  tools.show("results", shown.view, info);
  notes($("notes"), $("heading"), own);
  if (other) pair(own, other);
  else {
    beside.hide();
    draw("grid", own);
  }
  restore();
  words(asked, found, signal);
  await marks.show(asked);
}

// What the words looked at, once the pictures are there: they need not wait for it.
async function words(asked, found, signal) {
  if (!info.attends || !asked.text || !asked.image || asked.region) return;
  found.attention ??= await attended(asked.image, asked.text, signal);
  if (!signal.aborted) ask.words(found.attention);
}

async function answered(asked, signal, know) {
  const key = write([asked], shown.view);
  if (!answers.has(key)) {
    const first = listing({});
    $("grid").setAttribute("aria-busy", true);
    pictures(asked).forEach(check);
    const coming = Promise.all([searched(asked, signal), first.around(0), know()]); // before any drawing
    grid.show(24, () => null, { aspect: first.aspect, captions: true });
    const [found] = await coming;
    signal.throwIfAborted(); // the words may be missing
    answers.set(key, found);
    if (answers.size > KEPT) answers.delete(answers.keys().next().value);
  }
  $("grid").removeAttribute("aria-busy");
  return answers.get(key);
}

async function searched(asked, signal) {
  const own = new Results(asked, shown.view);
  const other = shown.view.beside ? new Results(asked, shown.view, true) : null;
  await Promise.all([own.next(signal), other?.next(signal)]);
  return { own, other };
}

const attended = (image, text, signal) =>
  post("/api/attention", { image: isRow(image) ? Number(image) : image, text }, signal).catch(() => null);

function check(image) {
  if (!isRow(image) && !isUpload(image)) {
    throw new Error("The address names no picture: pick one from the gallery.");
  }
}

function pair(own, other) {
  const tiles = (found) => found.tiles(true).slice(0, 60);
  status(own, tiles(own).length);
  beside.show(
    { name: info.run, tiles: tiles(own) }, { name: info.beside.run, tiles: tiles(other) },
    (name, all, differing) => fill(name, all.map((hit) => item(hit, differing.get(hit.row)))),
  );
}

// A result as the grid takes it.
function item(hit, note = "") {
  paths[hit.row] = hit.path;
  const alike = hit.alike.length ? `+ ${hit.alike.length} alike` : "";
  return {
    ...tile(hit.row, hit.path, [...shown.steps, step(hit.row)]),
    rank: hit.place, score: hit.score, note: note || alike,
  };
}

function draw(name, found) {
  const items = () => found.tiles(Boolean(shown.view.unfold)).map((hit) => item(hit));
  const all = fill(name, items(), found, items);
  status(found, all.length);
}

// Fill one of the grids; `found` goes on where its end is near, and `again()` gives all items then.
function fill(name, items, found = null, again = null) {
  let all = items;
  const { signal } = shown.abort;
  const more = async () => {
    if (!found?.more || signal.aborted) return;
    await found.next();
    if (signal.aborted) return;
    all = again();
    status(found, all.length);
    grids[name].grow(all.length);
  };
  const marked = (one) => one && { ...one, mark: marks.of(one.row) };
  const here = {
    count: () => all.length, item: (i) => all[i], more, actions: actionsLarge,
    attended: looks, divided: (one) => divided(one, name === "other"),
    goesOn: () => Boolean(found?.more), total: () => info.pictures.toLocaleString("en"), keys: keysLarge(),
  };
  if (name === "grid") {
    shown.rows = () => all.map(({ rank: place, label: path, score, src }) => ({ place, path, score, src }));
  }
  grids[name].show(all.length, (i) => marked(all[i]), {
    aspect: listing({}).aspect, captions: true,
    open: (place) => openLarge(here, place, name),
    visible: (_, end) => {
      if (end >= all.length) more().catch(() => {});
    },
    actions: (one) => actions(one), act, keys: { y: "right", n: "wrong", Y: "right", N: "wrong", u: "undo" },
  });
  return all;
}

function status(found, tiles) {
  const search = 1000 * found.seconds.search;
  const alike = found.hits.length - tiles;
  $("status").textContent = found.hits.length
    ? `best ${found.hits.length.toLocaleString("en")} of ${info.pictures.toLocaleString("en")} in ${Math.round(found.took)} ms` +
      ` (search ${search < 10 ? search.toFixed(1) : Math.round(search)} ms)` + (alike > 0 ? `, ${alike} folded` : "")
    : "Nothing was found.";
}

// Where the words of the question look in a result.
function looks({ row }) {
  const asked = last(shown.steps);
  return info.attends && asked?.text ? attended(String(row), asked.text) : Promise.resolve(null);
}

// What the regions of a result add to its score, by this run or the one beside it.
function divided({ row }, beside) {
  const asked = last(shown.steps);
  if (!(beside ? info.beside.divides : info.divides)) return Promise.resolve(null);
  return post("/api/shares", { ...question(asked), row, beside }, shown.abort.signal);
}
