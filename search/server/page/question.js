// The question: its picture and that picture's objects, the words, texts to try, an upload.

import { isRow, large, last, step } from "./address.js";
import { $, button } from "./dom.js";
import * as fields from "./fields.js";
import { paths } from "./listing.js";
import { about, objects } from "./objects.js";
import { Reference } from "./reference.js";
import { call } from "./service.js";
import { words as chips } from "./words.js";

const SUGGESTED = 4;

const reference = new Reference($("reference"), $("looks"));
let drawn = null; // the image that the reference shows; undefined: one that is on its way
let unsent = false; // whether somebody typed what was not asked yet
let app; // { go(steps), steps(), info() }
let upload = null; // what ends the upload that is on its way

export const label = (image) => (isRow(image) ? paths[image] ?? `Picture ${image}` : "Your picture");

// The picture whose words and objects are shown; null without one.
const current = () => last(app.steps())?.image || null;

export function show(asked) {
  if (!unsent || asked?.text) {
    $("text").value = asked?.text ?? "";
    unsent = false;
  }
  $("wanting").textContent = "";
  say("");
  refresh();
  const image = asked?.image || null;
  if (drawn !== image) draw(image);
  boxes(asked);
  words(null);
}

// Show the fields anew: what they offer is known now.
export function refresh() {
  fields.show(last(app.steps()) ?? step(""), drop);
}

function draw(image) {
  drawn = image;
  $("boxes").checked = false;
  tries(image);
  if (image === null) reference.clear();
  else reference.show(large(image), label(image)).catch(blame);
}

export function words(attention) {
  const step = last(app.steps());
  const told = step?.region ? null : attention; // of the whole picture, which is not what was asked
  $("words").hidden = !chips($("words").querySelector(".chips"), reference, told);
}

// --- Objects ------------------------------------------------------------------------------------

async function boxes(step) {
  const image = step?.image || null;
  $("objects").hidden = true;
  if (image === null) return;
  const known = await about(image).catch(() => null);
  if (!known?.boxes.length || current() !== image) return;
  const region = step.region ? Number(step.region) : null;
  $("objects").hidden = false;
  $("all-objects").hidden = region === null;
  $("objects-count").textContent = region === null
    ? known.boxes.length === 1 ? "1 object" : `${known.boxes.length} objects`
    : `Only object ${region + 1}`;
  const choose = (number) => restrict(number === region ? "" : String(number));
  const refresh = () => {
    const shown = $("boxes").checked ? known.boxes : [];
    objects($("objects").querySelector(".chips"), reference, shown, choose, region);
    if (region !== null && !shown.length) reference.objects([known.boxes[region]].filter(Boolean), () => restrict(""), 0);
  };
  $("boxes").onchange = refresh;
  refresh();
}

function restrict(region) {
  const steps = app.steps();
  app.go([...steps.slice(0, -1), { ...last(steps), region }]);
}

$("all-objects").addEventListener("click", () => restrict(""));

// --- Asking -------------------------------------------------------------------------------------

function find(text) {
  const [steps, info] = [app.steps(), app.info()];
  const step = last(steps);
  const more = fields.say();
  $("wanting").textContent = "";
  if (!step && !(info?.answers_text && text)) {
    $("wanting").textContent = "Pick a picture first: drop one, or choose one from the gallery.";
    return;
  }
  if (!text && !more.also.length && !more.not.length && !more.where && !more.k && !asks(step)) {
    $("wanting").textContent = "Say what should be different from this picture.";
    return;
  }
  unsent = false;
  app.go([...steps.slice(0, -1), { image: "", region: "", ...step, text, ...more }], true);
}

// Whether a step has fields that may just have been emptied.
const asks = (step) => Boolean(step && (step.where || step.k || step.not.length || step.also.length || step.text));

function drop(name, image) {
  const steps = app.steps();
  const step = last(steps);
  app.go([...steps.slice(0, -1), { ...step, [name]: step[name].filter((one) => one !== image) }]);
}

async function tries(image) {
  const place = $("tries");
  place.hidden = true;
  if (image === null) return;
  const of = isRow(image) ? `?row=${image}` : `?upload=${encodeURIComponent(image)}`;
  const { texts } = await call(`/api/suggestions${of}`).catch(() => ({ texts: [] }));
  if (current() !== image) return;
  place.querySelector(".chips").replaceChildren(
    ...texts.slice(0, SUGGESTED).map((text) => button(text, () => find(text))),
  );
  $("text").placeholder = texts[0] ?? "";
  place.hidden = !texts.length;
}

// --- A picture of one's own ---------------------------------------------------------------------

export async function take(file) {
  const before = app.steps();
  upload?.abort();
  const own = (upload = new AbortController());
  drawn = undefined;
  reference.wait();
  $("cancel").hidden = false;
  say("Looking for its regions …");
  try {
    const info = await app.know();
    const most = info.limits.upload_bytes;
    if (file.size > most) {
      throw new Error(`This file has more than the ${Math.floor(most / 2 ** 20)} MB that are read.`);
    }
    await ready(own.signal);
    const { id } = await call("/api/uploads", {
      method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" }, signal: own.signal,
    });
    if (app.steps() !== before) return; // something else was asked for meanwhile
    app.start(id);
    if (matchMedia("(hover: hover)").matches) $("text").focus();
  } catch (error) {
    if (app.steps() !== before || upload !== own) return;
    draw(current());
    boxes(last(before));
    if (own.signal.aborted) say("");
    else blame(error);
  } finally {
    if (upload === own) {
      upload = null;
      $("cancel").hidden = true;
    }
  }
}

// Wait until the detector is there, and say so meanwhile.
async function ready(signal) {
  for (;;) {
    const { detector } = await call("/api/info", { signal });
    if (detector.state !== "loading") return say("Looking for its regions …");
    say(`The detector is being loaded: ${Math.round(detector.seconds)} s so far …`);
    await new Promise((later) => setTimeout(later, 500));
  }
}

// Say something about the picture of the question.
function say(text, kind = "") {
  $("trouble").textContent = text;
  $("trouble").className = kind;
}

const blame = (error) => say(error.message, "bad");

// --- What a person does -------------------------------------------------------------------------

export function listen(given) {
  app = given;
  fields.listen((image) => {
    const steps = app.steps();
    const step = last(steps);
    if (!step) return app.start(image);
    app.go([...steps.slice(0, -1), { ...step, and: [...step.and, image] }]);
  });
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  find($("text").value.trim());
});
$("text").addEventListener("input", () => (unsent = true));
$("cancel").addEventListener("click", () => upload?.abort());
for (const id of ["open", "invitation"]) $(id).addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) take($("file").files[0]);
  $("file").value = "";
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
