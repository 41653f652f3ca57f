// What the parts of the page share: the address as it is shown, what the service said of itself,
// the grids, and the ways to another question.

import { last, step, write } from "./address.js";
import { $ } from "./dom.js";
import { Grid } from "./grid.js";
import { Listing } from "./listing.js";

export const NARROW = "(max-width: 700px)"; // the question stands above the pictures; as in style.css

// steps, view, address, abort: of what is shown.  list: the Listing of a gallery that is shown.
// rows(): what can be taken along.
export let shown = { steps: [], view: {} };
export const show = (what) => (shown = what);
export const asked = () => last(shown.steps);

export let info; // /api/info
export const told = (what) => (info = what);

export const grids = {
  grid: new Grid($("grid"), (item) => go(item.steps)),
  other: new Grid($("other"), (item) => go(item.steps)),
};

let arrive = () => {};
export const onAddress = (act) => (arrive = act);

// Go to a question; `brought`: bring its results into view where they are below the question.
export function go(steps, brought = false, how = keptView()) {
  if (write(steps, how) === shown.address) return arrive();
  history.replaceState({ scroll: scrollY }, "");
  history.pushState({ scroll: brought && matchMedia(NARROW).matches ? null : 0 }, "", write(steps, how));
  return arrive();
}

// Of how it is shown, what outlasts a question.
export const keptView = () => ({ unfold: shown.view.unfold, beside: shown.view.beside });
export const start = (image) => go([step(image)]);

// Where the page was scrolled to when this address was left; null: to its results.
export function restore() {
  const { scroll } = history.state ?? {};
  if (scroll === null) $("title").scrollIntoView();
  else if (scroll !== undefined) scrollTo(0, scroll);
}

const listings = new Map(); // order -> Listing

export function listing(how) {
  const key = `${how.sort ?? ""} ${how.descending ?? ""}`;
  if (!listings.has(key)) {
    const made = new Listing(how, () => shown.list === made && grids.grid.refresh());
    listings.set(key, made);
  }
  return listings.get(key);
}

export function title(text, status) {
  $("heading").textContent = text;
  $("status").textContent = status;
}
