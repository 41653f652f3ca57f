// The steps so far, each a way back.

import { small, write } from "./address.js";
import { $, make } from "./dom.js";

const list = $("trail").firstElementChild;

// `label(image)`: what its picture is called.
export function show(steps, label) {
  const items = steps.map((step, i) => {
    const end = i === steps.length - 1;
    const picture = step.image
      ? make("img", { src: small(step.image), alt: `${i + 1}. ${label(step.image)}` })
      : make("b", { textContent: `${i + 1}` });
    const item = make("li", {},
      make("a", { href: write(steps.slice(0, i + 1)) }, picture),
      make("span", { textContent: step.text + (end ? "" : " →") }),
    );
    if (end) item.setAttribute("aria-current", "step");
    return item;
  });
  $("trail").hidden = items.length < 2;
  list.replaceChildren(...items);
  list.scrollLeft = 1e6;
  edges();
}

// Show on which sides there is more of it.
function edges() {
  $("trail").classList.toggle("before", list.scrollLeft > 2);
  $("trail").classList.toggle("after", list.scrollLeft + list.clientWidth < list.scrollWidth - 2);
}

list.addEventListener("scroll", edges, { passive: true });
new ResizeObserver(edges).observe(list);
