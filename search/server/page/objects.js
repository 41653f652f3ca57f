// The objects of a picture: boxes to click, and the same as numbered buttons for the keyboard.

import { isRow } from "./address.js";
import { button } from "./dom.js";
import { call } from "./service.js";

const known = new Map(); // image -> what `about` said

// What is known of a picture: { path, width, height, boxes, known }.
export function about(image) {
  if (!known.has(image)) {
    const kind = isRow(image) ? "images" : "uploads";
    const asked = call(`/api/${kind}/${encodeURIComponent(image)}/about`);
    known.set(image, asked);
    asked.catch(() => known.delete(image));
  }
  return known.get(image);
}

// Show the boxes on `picture`, a Reference, and a button for each in `place`.
export function objects(place, picture, boxes, pick, chosen = null) {
  picture.objects(boxes, pick, chosen);
  place.replaceChildren(
    ...boxes.map((_, number) => {
      const made = button(String(number + 1), () => pick(number), {
        "aria-label": `Object ${number + 1}`, "aria-pressed": String(number === chosen),
      });
      for (const [event, at] of [["pointerenter", number], ["focus", number], ["pointerleave", null], ["blur", null]]) {
        made.addEventListener(event, () => picture.point(at));
      }
      return made;
    }),
  );
}
