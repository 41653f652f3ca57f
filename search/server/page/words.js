// Buttons that light regions of a picture: the words of a question, or the regions of a result.

import { button } from "./dom.js";
import { divided } from "./looked.js";

const NAMED = 6; // regions of a result that have a button
const pinned = new WeakMap(); // Reference -> { release(), light() } of the buttons one of which is pressed

// Draw the words into `place`, a `.chips`; `picture`: a Reference that shows their regions, or what
// a whole text changes.  Gives how many.
export function words(place, picture, attention) {
  return buttons(place, picture, attention, attention?.words ?? []);
}

// Draw the regions of a result that add most to its score; `said`: what the service said, or null.
// Gives how many.
export function shares(place, picture, said) {
  const named = said && divided(said);
  picture.sense(null);
  if (!named) return buttons(place, picture, null, []);
  const first = named.order.slice(0, NAMED);
  const one = (region) => named.shares.map((share, at) => (at === region ? Math.abs(share) : 0));
  const looked = { ...named, weights: [named.shares.map((share) => Math.max(0, share)), ...first.map(one)], regions: [null, ...first] };
  const texts = ["all", ...first.map((region) => named.name(region))];
  const number = buttons(place, picture, looked, texts);
  const chips = [...place.children];
  picture.sense(looked, (region, tapped) => {
    const chip = chips[looked.regions.indexOf(region, 1)];
    for (const other of chips) other.classList.toggle("pointed", other === chip);
    if (tapped) chip?.click();
  });
  return number;
}

function buttons(place, picture, looked, texts) {
  let pressed = null;
  pinned.delete(picture);
  const light = (at) => {
    picture.light(looked, at ?? pressed);
    if (at === null && pressed === null) pinned.get(picture)?.light();
    chips.forEach((chip, i) => {
      chip.classList.toggle("lit", i === (at ?? pressed));
      chip.setAttribute("aria-pressed", i === pressed);
    });
  };
  const press = (at) => {
    const before = pinned.get(picture);
    pinned.delete(picture);
    if (before && before !== own) before.release();
    pressed = pressed === at ? null : at;
    if (pressed !== null) pinned.set(picture, own);
    light(pressed);
  };
  const own = { release: () => press(pressed), light: () => light(pressed) };
  const chips = texts.map((text, i) => {
    const chip = button(text, () => press(i));
    chip.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && light(i));
    chip.addEventListener("pointerleave", () => light(null));
    chip.addEventListener("focus", () => chip.matches(":focus-visible") && light(i));
    chip.addEventListener("blur", () => light(null));
    return chip;
  });
  place.replaceChildren(...chips);
  light(null);
  return chips.length;
}
