// A result as a thing: large, with what is known of it and what can be done with it.

import { large, small } from "./address.js";
import { copy } from "./copy.js";
import { $, button, make, typing } from "./dom.js";
import * as favourites from "./favourites.js";
import { about, objects } from "./objects.js";
import { Reference } from "./reference.js";
import { shares, words } from "./words.js";

const dialog = $("large");
const picture = new Reference($("large-picture"), $("large-looks"));
let shown = null; // what `open` was given, and the place

// `given`: { count(), item(i), more(i): asks for further items, act(name, item): what a button or
// key does, attended(item): a promise of { words, boxes, weights } or null, divided(item): one of
// { boxes, shares, score } or null, actions(item): [{ name, text, pressed }] }.
export function open(given, index) {
  shown = { ...given, index };
  if (!dialog.open) dialog.showModal();
  draw();
}

export const isOpen = () => dialog.open;
export const close = () => dialog.close();

// Where it stands by now.
export const place = () => shown?.index ?? 0;

async function draw() {
  const item = shown.item(shown.index);
  if (!item) return;
  const image = String(item.row);
  const current = () => dialog.open && shown.item(shown.index)?.row === item.row;
  const path = item.label.split("/");
  $("large-title").textContent = path.pop();
  $("large-folder").textContent = path.length ? `in ${path.join("/")}` : "";
  const total = shown.count().toLocaleString("en");
  $("large-place").textContent = item.score === undefined
    ? `${(shown.index + 1).toLocaleString("en")} of ${total}`
    : `${item.rank.toLocaleString("en")} of ${shown.total?.() ?? total} · score ${item.score.toFixed(3)}`;
  $("large-before").ariaDisabled = String(shown.index === 0); // disabled, they would lose the focus
  $("large-after").ariaDisabled = String(shown.index >= shown.count() - 1 && !shown.goesOn?.());
  $("large-said").textContent = "";
  actions(item);
  $("large-known").replaceChildren();
  for (const id of ["large-objects", "large-why", "large-words"]) $(id).hidden = true;
  $("large-boxes").checked = false;
  picture.sense(null);
  picture.light(null, null);
  const drawn = picture.show(large(image), item.label).catch((error) => ($("large-said").textContent = error.message));
  new Image().src = shown.item(shown.index + 1) ? large(String(shown.item(shown.index + 1).row)) : small(image);
  const [said, attention, parts] = await Promise.all([
    about(image).catch(() => null), shown.attended(item).catch(() => null), shown.divided(item).catch(() => null), drawn,
  ]);
  if (!current()) return;
  if (said) {
    known(said);
    boxes(item, said);
  }
  $("large-why").hidden = !shares($("large-why").querySelector(".chips"), picture, parts);
  $("large-words").hidden = !words($("large-words").querySelector(".chips"), picture, attention);
}

function known({ width, height, known: values }) {
  const lines = [["size", `${width} × ${height}`], ...Object.entries(values)];
  $("large-known").replaceChildren(
    ...lines.flatMap(([name, value]) => [
      make("dt", { textContent: name }), make("dd", { textContent: value ?? "not known" }),
    ]),
  );
}

function boxes(item, { boxes: all }) {
  const chips = $("large-objects").querySelector(".chips");
  const draw = () => {
    const on = $("large-boxes").checked;
    objects(chips, picture, on ? all : [], (region) => shown.act("object", { ...item, region }));
  };
  $("large-boxes").onchange = draw;
  $("large-count").textContent = all.length === 1 ? "1 object" : `${all.length} objects`;
  $("large-objects").hidden = !all.length;
  draw();
}

function actions(item) {
  const own = [
    { name: "start", text: "Start from this" },
    ...shown.actions(item),
    { name: "favourite", text: favourites.has(item.label) ? "♥ Favourite" : "♡ Favourite", pressed: favourites.has(item.label) },
    { name: "copy", text: "Copy path" },
  ];
  const place = $("large-actions");
  const focused = place.contains(document.activeElement) && document.activeElement.dataset.name;
  const download = make("a", {
    className: "button", href: large(String(item.row)), textContent: "Download", title: "As JPEG, at most 1,024 pixels long",
    download: item.label.split("/").pop().replace(/\.[^.]*$/, "") + ".jpg",
  });
  place.replaceChildren(
    ...own.map(({ name, text, pressed }) => {
      const made = button(text, () => act(name));
      made.dataset.name = name;
      if (pressed !== undefined) made.setAttribute("aria-pressed", pressed);
      return made;
    }),
    download,
  );
  if (focused) place.querySelector(`[data-name="${focused}"]`)?.focus();
}

export async function act(name) {
  const item = shown.item(shown.index);
  if (name === "copy") {
    const done = await copy(item.label);
    $("large-said").textContent = done ? `Copied ${item.label}` : `Copy it by hand: ${item.label}`;
  } else if (name === "favourite") {
    favourites.toggle(item.label);
    actions(item);
  } else {
    await shown.act(name, item);
    if (dialog.open) actions(shown.item(shown.index) ?? item);
  }
}

async function step(by) {
  const to = shown.index + by;
  if (to < 0) return;
  if (!shown.item(to)) await shown.more(to);
  if (!shown.item(to)) return;
  shown.index = to;
  draw();
}

$("large-before").addEventListener("click", () => step(-1));
$("large-after").addEventListener("click", () => step(1));
$("large-close").addEventListener("click", close);
dialog.addEventListener("close", () => shown?.closed(shown.index));
dialog.addEventListener("click", (event) => event.target === dialog && close());
dialog.addEventListener("keydown", (event) => {
  if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
  const way = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  const name = { c: "copy", f: "favourite", ...shown.keys }[event.key];
  if (way) step(way);
  else if (name) act(name);
  else return;
  event.preventDefault();
});
