// The page: what is asked is in the address; everything shown follows from it.

import { isRow, isUpload, large, last, read, small, write } from "./address.js";
import { Grid } from "./grid.js";
import { language, notes } from "./notes.js";
import { Reference } from "./reference.js";
import { call, post } from "./service.js";

const RESULTS = 60;
const CHUNK = 100; // pictures of the gallery whose names are asked for at once
const KEPT = 30; // answers, so that going back is instant
const SUGGESTED = 4;

const $ = (id) => document.getElementById(id);
const grid = new Grid($("grid"), (item) => go(item.steps));
const reference = new Reference($("reference"), $("looks"));
const answers = new Map(); // question -> answer
const paths = []; // row -> path, as far as they are known
let info; // /api/info
let aspect = 4 / 3; // of the gallery's pictures
let shown = { steps: [], image: null }; // what the address says; image: of the last step
let drawn = null; // the image that the reference shows

function go(steps) {
  if (write(steps) === shown.address) return show();
  history.replaceState({ scroll: scrollY }, "");
  history.pushState({ scroll: 0 }, "", write(steps));
  show();
}

const label = (image) => (isRow(image) ? paths[image] ?? `Picture ${image}` : "Your picture");

// --- What is shown ------------------------------------------------------------------------------

async function show() {
  const steps = read(location);
  const step = last(steps);
  if (shown.address === write(steps) && $("problem").hidden) return;
  shown.abort?.abort();
  shown = { steps, address: write(steps), image: step?.image ?? null, abort: new AbortController() };
  $("text").value = step?.text ?? "";
  $("wanting").textContent = "";
  $("problem").hidden = true;
  $("gallery").hidden = !step;
  say("");
  document.title = step?.text ? `${step.text} · cqr` : "cqr";
  trail(steps);
  if (drawn !== shown.image) draw(shown.image);
  words(null);
  notes($("notes"), $("heading"), null);
  await (step ? results(step, shown.abort.signal) : gallery());
}

function draw(image) {
  drawn = image;
  tries(image);
  if (image === null) reference.clear();
  else reference.show(large(image), label(image)).catch(blame);
}

async function gallery() {
  const { signal } = shown.abort;
  title("Gallery", "");
  if (!info) grid.show(24, () => null);
  try {
    await names(0);
  } catch (error) {
    return signal.aborted ? undefined : fail(error);
  }
  if (signal.aborted) return;
  title("Gallery", `${info.pictures.toLocaleString("en")} pictures: pick one to start from`);
  const item = (row) => tile(row, paths[row] ?? `Picture ${row}`, [{ image: String(row), text: "" }]);
  const visible = (first, end) => {
    for (let row = first; row < end; row += CHUNK) names(row).catch(() => {});
    if (end > first) names(end - 1).catch(() => {});
  };
  grid.show(info.pictures, item, { aspect, visible });
  restore();
}

// Ask for the names of the pictures around a row, once.
const asked = new Map();
async function names(row) {
  info ??= await call("/api/info");
  language($("language"), info);
  $("about").textContent = `${info.run} · ${info.pictures.toLocaleString("en")} pictures`;
  const start = row - (row % CHUNK);
  if (!asked.has(start)) {
    const part = call(`/api/gallery?start=${start}&count=${CHUNK}`);
    asked.set(start, part);
    part.then(
      ({ pictures }) => {
        for (const picture of pictures) paths[picture.row] = picture.path;
        if (start === 0 && pictures.length) aspect = middle(pictures);
        if (shown.image === null) grid.refresh();
      },
      () => asked.delete(start),
    );
  }
  return asked.get(start);
}

// The median of width over height, within what a grid can take.
function middle(pictures) {
  const sorted = pictures.map(({ width, height }) => width / height).sort((a, b) => a - b);
  return Math.min(1.6, Math.max(0.66, sorted[sorted.length >> 1]));
}

const tile = (image, text, steps) => ({ href: write(steps), src: small(String(image)), label: text, steps });

async function results(step, signal) {
  title(step.text || "Like this picture", "");
  const key = write([step]);
  if (!answers.has(key)) {
    $("grid").setAttribute("aria-busy", true);
    grid.show(24, () => null, { aspect, captions: true });
    try {
      await names(0);
      keep(key, await ask(step, signal));
    } catch (error) {
      return signal.aborted ? undefined : fail(error);
    }
    if (signal.aborted) return;
  }
  const { hits, seconds, attention, took } = answers.get(key);
  const rest = shown.steps;
  const items = hits.map(({ row, path, score }, i) => {
    paths[row] = path;
    return { ...tile(row, path, [...rest, { image: String(row), text: "" }]), rank: i + 1, score };
  });
  const search = 1000 * seconds.search;
  title(
    step.text || "Like this picture",
    items.length
      ? `best ${items.length} of ${info.pictures.toLocaleString("en")} in ${Math.round(took)} ms` +
        ` (search ${search < 10 ? search.toFixed(1) : Math.round(search)} ms)`
      : "Nothing was found.",
  );
  $("grid").removeAttribute("aria-busy");
  grid.show(items.length, (i) => items[i], { aspect, captions: true });
  words(attention);
  notes($("notes"), $("heading"), answers.get(key));
  restore();
}

async function ask({ image, text }, signal) {
  if (!isRow(image) && !isUpload(image)) {
    throw new Error("The address names no picture: pick one from the gallery.");
  }
  const began = performance.now();
  const sent = isRow(image) ? Number(image) : image;
  const texts = text ? [{ text }] : [];
  const [found, attention] = await Promise.all([
    post("/api/search", { images: [sent], texts, k: RESULTS }, signal).then((answer) => ({
      ...answer, took: performance.now() - began,
    })),
    info.attends && text
      ? post("/api/attention", { image: sent, text }, signal).catch(() => null)
      : null,
  ]);
  signal.throwIfAborted(); // the words may be missing
  return { ...found, attention };
}

function keep(key, answer) {
  answers.set(key, answer);
  if (answers.size > KEPT) answers.delete(answers.keys().next().value);
}

function title(text, status) {
  $("heading").textContent = text;
  $("status").textContent = status;
}

function trail(steps) {
  const items = steps.map(({ image, text }, i) => {
    const [item, link, picture] = ["li", "a", "img"].map((name) => document.createElement(name));
    picture.src = small(image);
    picture.alt = `${i + 1}. ${label(image)}`;
    link.href = write(steps.slice(0, i + 1));
    link.append(picture);
    if (i === steps.length - 1) item.setAttribute("aria-current", "step");
    item.append(link);
    const [said, arrow] = [document.createElement("span"), i < steps.length - 1 ? " →" : ""];
    said.textContent = text + arrow;
    item.append(said);
    return item;
  });
  $("trail").hidden = items.length < 2;
  $("trail").firstElementChild.replaceChildren(...items);
  $("trail").firstElementChild.scrollLeft = 1e6;
}

function words(attention) {
  reference.regions(attention);
  let pinned = null;
  const light = (word) => {
    reference.light(word ?? pinned);
    chips.forEach((chip, i) => {
      chip.classList.toggle("lit", i === (word ?? pinned));
      chip.setAttribute("aria-pressed", i === pinned);
    });
  };
  const chips = (attention?.words ?? []).map((word, i) => {
    const chip = button(word, () => light((pinned = pinned === i ? null : i)));
    chip.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && light(i));
    chip.addEventListener("pointerleave", () => light(null));
    chip.addEventListener("focus", () => chip.matches(":focus-visible") && light(i));
    chip.addEventListener("blur", () => light(null));
    return chip;
  });
  $("words").hidden = !chips.length;
  $("words").querySelector(".chips").replaceChildren(...chips);
  if (chips.length) light(null);
}

async function tries(image) {
  const place = $("tries");
  place.hidden = true;
  if (image === null) return;
  const of = isRow(image) ? `?row=${image}` : `?upload=${encodeURIComponent(image)}`;
  const { texts } = await call(`/api/suggestions${of}`).catch(() => ({ texts: [] }));
  if (shown.image !== image) return;
  place.querySelector(".chips").replaceChildren(
    ...texts.slice(0, SUGGESTED).map((text) => button(text, () => find(text))),
  );
  $("text").placeholder = texts[0] ?? "";
  place.hidden = !texts.length;
}

function button(text, act) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  made.addEventListener("click", act);
  return made;
}

function fail(error) {
  $("grid").removeAttribute("aria-busy");
  grid.show(0, () => null);
  title(last(shown.steps)?.text || (shown.image === null ? "Gallery" : "Like this picture"), "");
  $("problem").firstElementChild.textContent = error.message;
  $("problem").hidden = false;
}

// Say something about the picture of the question.
function say(text, kind = "") {
  $("trouble").textContent = text;
  $("trouble").className = kind;
}

const blame = (error) => say(error.message, "bad");

// --- What a person does -------------------------------------------------------------------------

function find(text) {
  $("wanting").textContent = "";
  if (shown.image === null) {
    $("wanting").textContent = "Pick a picture first: drop one, or choose one from the gallery.";
    return;
  }
  if (!text) {
    $("wanting").textContent = "Say what should be different from this picture.";
    return;
  }
  go([...shown.steps.slice(0, -1), { image: shown.image, text }]);
}

async function take(file) {
  const before = shown;
  [before.address, drawn] = [null, undefined];
  reference.wait();
  say("Looking for its regions …");
  try {
    info ??= await call("/api/info");
    const most = info.limits.upload_bytes;
    if (file.size > most) {
      throw new Error(`This file has more than the ${Math.floor(most / 2 ** 20)} MB that are read.`);
    }
    const { id } = await call("/api/uploads", {
      method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" },
    });
    if (shown !== before) return; // something else was asked for meanwhile
    go([{ image: id, text: "" }]);
    if (matchMedia("(hover: hover)").matches) $("text").focus();
  } catch (error) {
    if (shown !== before) return;
    show();
    blame(error);
  }
}

function restore() {
  const { scroll } = history.state ?? {};
  if (scroll !== undefined) scrollTo(0, scroll);
}

// A click that opens no other tab or window.
const plain = (event) => !(event.ctrlKey || event.metaKey || event.shiftKey || event.button);

history.scrollRestoration = "manual";
addEventListener("popstate", show);
addEventListener("pagehide", () => history.replaceState({ scroll: scrollY }, ""));
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.defaultPrevented || !plain(event) || link.hash) return;
  event.preventDefault();
  go(read(link.href));
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  find($("text").value.trim());
});
$("problem").lastElementChild.addEventListener("click", show);
$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) take($("file").files[0]);
  $("file").value = "";
});
$("any").addEventListener("click", async () => {
  try {
    await names(0);
    go([{ image: String(Math.floor(Math.random() * info.pictures)), text: "" }]);
  } catch (error) {
    fail(error);
  }
});
addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
});
addEventListener("keydown", (event) => {
  const typing = event.target.closest("input");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    $("text").select();
  }
  if (event.key === "Escape" && typing) typing.blur();
});
show();
