// The words of a question as buttons: each lights what it looks at.

import { button } from "./dom.js";

// Draw them into `place`, a `.chips`; `picture`: a Reference that shows their regions.  Gives how many.
export function words(place, picture, attention) {
  picture.regions(attention);
  let pinned = null;
  const light = (word) => {
    picture.light(word ?? pinned);
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
  place.replaceChildren(...chips);
  if (chips.length) light(null);
  return chips.length;
}
