// The page: what is asked is in the address; everything shown follows from it.

import { isRow, isUpload, last, pictures, read, readView, small, step, write } from "./address.js";
import * as beside from "./beside.js";
import { $, typing } from "./dom.js";
import * as files from "./export.js";
import * as favourites from "./favourites.js";
import * as fields from "./fields.js";
import { Grid } from "./grid.js";
import * as labelling from "./label.js";
import * as view from "./large.js";
import { Listing, paths } from "./listing.js";
import * as marks from "./marks.js";
import { language, notes } from "./notes.js";
import * as ask from "./question.js";
import { Results } from "./results.js";
import { call, post } from "./service.js";
import * as tools from "./tools.js";
import * as trail from "./trail.js";

const KEPT = 30; // answers, so that going back is instant
const NARROW = "(max-width: 700px)"; // the question stands above the pictures; as in style.css

const grids = {
  grid: new Grid($("grid"), (item) => go(item.steps)),
  other: new Grid($("other"), (item) => go(item.steps)),
};
const { grid } = grids;
const answers = new Map(); // question -> what was found
const listings = new Map(); // order -> Listing
let info; // /api/info
let asking; // the promise of it
let shown = { steps: [], view: {} }; // what the address says
let list = { count: 0, item: () => null }; // what the large view steps through

// Go to a question; `brought`: bring its results into view where they are below the question.
function go(steps, brought = false, how = keptView()) {
  if (write(steps, how) === shown.address) return show();
  history.replaceState({ scroll: scrollY }, "");
  history.pushState({ scroll: brought && matchMedia(NARROW).matches ? null : 0 }, "", write(steps, how));
  show();
}

// Of how it is shown, what outlasts a question.
const keptView = () => ({ unfold: shown.view.unfold, beside: shown.view.beside });
const start = (image) => go([step(image)]);

async function know() {
  asking ??= call("/api/info");
  try {
    const told = await asking;
    if (!info) begin((info = told));
    language($("language"), info);
  } catch (error) {
    asking = null;
    throw error;
  }
  return info;
}

// What is to be done once the service has said what it is.
function begin(info) {
  $("about").textContent = `${info.run} · ${info.pictures.toLocaleString("en")} pictures`;
  favourites.open(info.run);
  fields.offer(info.columns);
  ask.refresh();
  marks.start(info, () => {
    for (const one of Object.values(grids)) one.refresh();
  });
  $("label-link").hidden = !info.collects;
  if (info.detector.state === "absent") {
    $("open").disabled = true;
    $("open").title = info.detector.why;
  }
  if (info.answers_text) $("text").placeholder = "a red one, or any words";
}

// --- What is shown ------------------------------------------------------------------------------

async function show() {
  const [steps, how] = [read(location), readView(location)];
  const address = write(steps, how);
  if (shown.address === address && $("problem").hidden) return;
  shown.abort?.abort();
  shown = { steps, view: how, address, abort: new AbortController() };
  const asked = last(steps);
  if (view.isOpen()) view.close();
  $("problem").hidden = true;
  $("gallery").hidden = !asked && !how.show;
  $("notes").replaceChildren();
  document.title = asked?.text ? `${asked.text} · cqr` : "cqr";
  trail.show(steps, ask.label);
  ask.show(asked);
  for (const id of ["ask", "pictures"]) $(id).hidden = how.show === "label";
  if (how.show !== "label") labelling.close();
  if (!asked) {
    marks.show(null);
    beside.hide();
  }
  const { signal } = shown.abort;
  try {
    if (how.show === "label") await label(signal);
    else if (how.show === "favourites") await favoured(signal);
    else await (asked ? results(asked, signal) : gallery(signal));
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

function listing(how) {
  const key = `${how.sort ?? ""} ${how.descending ?? ""}`;
  if (!listings.has(key)) {
    const made = new Listing(how, () => shown.list === made && grid.refresh());
    listings.set(key, made);
  }
  return listings.get(key);
}

const tile = (row, path, steps) => ({
  row, href: write(steps, keptView()), src: small(String(row)), label: path, steps, mark: marks.of(row),
});

async function label(signal) {
  document.title = "Label · cqr";
  const first = listing({});
  await Promise.all([know(), first.around(0)]);
  if (!signal.aborted) labelling.open(info, first.aspect);
}

async function gallery(signal) {
  title("Gallery", "");
  const all = (shown.list = listing(shown.view));
  if (!all.total) {
    tools.hide();
    grid.show(24, () => null);
  }
  await Promise.all([know(), all.around(0)]);
  if (signal.aborted) return;
  title("Gallery", `${info.pictures.toLocaleString("en")} pictures: pick one to start from`);
  tools.show("gallery", shown.view, info);
  const item = (place) => {
    const picture = all.pictures[place];
    return picture ? tile(picture.row, picture.path, [step(picture.row)]) : null;
  };
  list = {
    count: () => all.total, item, actions: () => [], keys: {}, more: (place) => all.around(place),
    attended: async () => null,
  };
  grid.show(all.total, item, {
    aspect: all.aspect,
    visible: (first, end) => {
      all.visible(first, end);
      if (grid.height) tools.position(grid.span, all.total);
    },
    actions: () => [{ name: "large", label: "Look at it", text: "⤢" }],
    act: (_, __, place) => openLarge(place),
    keys: { " ": "large" },
  });
  restore();
}

async function favoured(signal) {
  title("Favourites", "");
  grid.show(0, () => null);
  const first = listing({});
  await Promise.all([know(), first.around(0)]);
  const found = await Promise.all(favourites.all().map(async (path) => {
    const place = await first.place(path).catch(() => null);
    if (place === null) return null;
    await first.around(place);
    const { row, path: there } = first.pictures[place];
    return there === path ? { row, path } : null;
  }));
  if (signal.aborted) return;
  const items = found.filter(Boolean).map(({ row, path }) => tile(row, path, [step(row)]));
  title("Favourites", items.length ? `${items.length} pictures, kept in this browser` : "None yet: press ♡ in the large view of a picture.");
  tools.show("favourites", shown.view, info);
  list = { count: () => items.length, item: (i) => items[i], actions: () => [], keys: {}, attended: async () => null, more: async () => {} };
  shown.rows = () => items.map(({ label: path, src }, i) => ({ place: i + 1, path, src }));
  grid.show(items.length, (i) => items[i], { aspect: first.aspect, open: openLarge, ...startAction });
}

const startAction = {
  actions: () => [{ name: "start", label: "Start from this", text: "→" }],
  act: (name, item) => act(name, item),
};

const heading = (asked) =>
  asked.text || (asked.also.length ? asked.also.map((one) => one.replace(/^1:/, "")).join(", ") : "Like this picture");

async function results(asked, signal) {
  title(heading(asked), "");
  tools.hide();
  const found = await answered(asked, signal);
  if (signal.aborted) return;
  const { own, other, attention } = found;
  shown.found = found;
  tools.show("results", shown.view, info);
  notes($("notes"), $("heading"), own);
  if (other) pair(own, other);
  else {
    beside.hide();
    draw("grid", own);
  }
  ask.words(attention);
  restore();
  await marks.show(asked);
}

async function answered(asked, signal) {
  const key = write([asked], shown.view);
  if (!answers.has(key)) {
    const first = listing({});
    $("grid").setAttribute("aria-busy", true);
    grid.show(24, () => null, { aspect: first.aspect, captions: true });
    for (const image of pictures(asked)) check(image);
    const [found] = await Promise.all([searched(asked, signal), first.around(0), know()]);
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
  const attends = info ?? (asked.text && !asked.region && asked.image ? await know() : null);
  const [attention] = await Promise.all([
    attends?.attends && asked.text && asked.image && !asked.region ? attended(asked.image, asked.text, signal) : null,
    own.next(signal), other?.next(signal),
  ]);
  return { own, other, attention };
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
    count: () => all.length, item: (i) => all[i], more, attended: (one) => large(one), actions: actionsLarge,
    goesOn: () => Boolean(found?.more), total: () => info.pictures.toLocaleString("en"), keys: keysLarge(),
  };
  if (name === "grid") {
    list = here;
    shown.rows = () => all.map(({ rank: place, label: path, score, src }) => ({ place, path, score, src }));
  }
  grids[name].show(all.length, (i) => marked(all[i]), {
    aspect: listing({}).aspect, captions: true,
    open: (place) => {
      list = here;
      openLarge(place, name);
    },
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

function title(text, status) {
  $("heading").textContent = text;
  $("status").textContent = status;
}

function fail(error) {
  $("grid").removeAttribute("aria-busy");
  grid.show(0, () => null);
  tools.hide();
  const asked = last(shown.steps);
  title(asked ? heading(asked) : "Gallery", "");
  $("problem").firstElementChild.textContent = error.message;
  $("problem").lastElementChild.hidden = !error.again;
  $("problem").hidden = false;
}

// --- What is done with a result -----------------------------------------------------------------

const MARKS = [
  { name: "right", label: "Right", text: "✓" },
  { name: "wrong", label: "Not right", text: "✗" },
];

function actions({ row }) {
  const own = marks.on() ? MARKS.map((one) => ({ ...one, pressed: marks.of(row) === one.name })) : [];
  return [...own, ...startAction.actions()];
}

function actionsLarge({ row }) {
  const own = marks.on()
    ? MARKS.map(({ name, label, text }) => ({ name, text: `${text} ${label}`, pressed: marks.of(row) === name }))
    : [];
  return [{ name: "more", text: "More like this" }, { name: "less", text: "Less like this" },
          { name: "and", text: "Add to the question" }, ...own];
}

const keysLarge = () => (marks.on() ? { y: "right", n: "wrong" } : {});

async function act(name, item) {
  const [steps, row] = [shown.steps, String(item.row)];
  const asked = last(steps);
  if (name === "start") return go(item.steps);
  if (name === "object") return go([...item.steps.slice(0, -1), step(row, "", { region: String(item.region) })]);
  if (name === "more" || name === "less" || name === "and") {
    const without = Object.fromEntries(["more", "less", "and"].map((list) => [list, asked[list].filter((one) => one !== row)]));
    return go([...steps.slice(0, -1), { ...asked, ...without, [name]: [...without[name], row] }]);
  }
  if (!marks.on()) return undefined;
  if (name === "undo") return marks.act.undo().catch(() => {});
  return marks.mark(item.row, name).catch(() => {}); // it is said where marks are
}

function openLarge(place, name = "grid") {
  view.open({ ...list, act, closed: (at) => grids[name].focus(at) }, place);
}

// Where the words of the question look in a result.
function large({ row }) {
  const asked = last(shown.steps);
  return info.attends && asked?.text ? attended(String(row), asked.text) : Promise.resolve(null);
}

// --- What a person does -------------------------------------------------------------------------

function restore() {
  const { scroll } = history.state ?? {};
  if (scroll === null) $("title").scrollIntoView();
  else if (scroll !== undefined) scrollTo(0, scroll);
}

async function jump(text) {
  const all = shown.list;
  try {
    const number = /^[\d,]+$/.test(text) ? Number(text.replaceAll(",", "")) : null;
    const place = number === null ? await all.place(text) : Math.min(Math.max(1, number), all.total) - 1;
    await all.around(place);
    grid.focus(place);
  } catch (error) {
    $("position").textContent = error.message;
  }
}

// A click that opens no other tab or window.
const plain = (event) => !(event.ctrlKey || event.metaKey || event.shiftKey || event.button);
const said = () => `${$("heading").textContent} (${ask.label(last(shown.steps)?.image || "")})`;

history.scrollRestoration = "manual";
addEventListener("popstate", show);
addEventListener("pagehide", () => history.replaceState({ scroll: scrollY }, ""));
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.defaultPrevented || !plain(event) || link.hash || link.download) return;
  event.preventDefault();
  go(read(link.href), false, readView(link.href));
});
$("problem").lastElementChild.addEventListener("click", show);
$("any").addEventListener("click", async () => {
  try {
    await know();
    start(Math.floor(Math.random() * info.pictures));
  } catch (error) {
    fail(error);
  }
});
addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "/" && !typing(event.target) && !event.ctrlKey && !event.metaKey && !$("ask").hidden) {
    event.preventDefault();
    $("text").select();
  }
  if (event.key === "Escape" && typing(event.target)) event.target.blur();
});
favourites.onChange(() => {
  const number = favourites.all().length;
  $("favourites").textContent = number ? `Favourites (${number})` : "Favourites";
});
tools.listen({
  change: (how) => go(shown.steps, false, { ...shown.view, ...how }),
  jump,
  table: () => files.table(shown.rows(), said()),
  sheet: () => files.sheet(shown.rows(), said()),
});
ask.listen({ go, start, know, steps: () => shown.steps, info: () => info });
show();
