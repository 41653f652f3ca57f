// The page: what is asked is in the address; everything shown follows from it.

import { last, read, readView, write } from "./address.js";
import * as beside from "./beside.js";
import { $, typing } from "./dom.js";
import * as files from "./export.js";
import * as favourites from "./favourites.js";
import * as fields from "./fields.js";
import { heading, results } from "./found.js";
import { favoured, gallery, jump } from "./gallery.js";
import * as labelling from "./label.js";
import * as view from "./large.js";
import * as marks from "./marks.js";
import { language } from "./notes.js";
import * as ask from "./question.js";
import { call } from "./service.js";
import * as state from "./state.js";
import { go, grids, info, listing, shown, start, title } from "./state.js";
import * as tools from "./tools.js";
import * as trail from "./trail.js";

let asking; // the promise of /api/info

async function know() {
  asking ??= call("/api/info");
  try {
    const told = await asking;
    if (!info) begin(state.told(told));
    language($("language"), told);
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
  if (!info.reads) $("text").placeholder = "this run knows likeness alone";
  if (info.answers_text) $("text").placeholder = "a red one, or any words";
}

// --- What is shown ------------------------------------------------------------------------------

async function show() {
  const [steps, how] = [read(location), readView(location)];
  const address = write(steps, how);
  if (shown.address === address && $("problem").hidden) return;
  shown.abort?.abort();
  state.show({ steps, view: how, address, abort: new AbortController() });
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
    else if (how.show === "favourites") await favoured(signal, know);
    else await (asked ? results(asked, signal, know) : gallery(signal, know));
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

async function label(signal) {
  document.title = "Label · cqr";
  const first = listing({});
  await Promise.all([know(), first.around(0)]);
  if (!signal.aborted) labelling.open(info, first.aspect);
}

function fail(error) {
  $("grid").removeAttribute("aria-busy");
  grids.grid.show(0, () => null);
  tools.hide();
  const asked = last(shown.steps);
  title(asked ? heading(asked) : "Gallery", "");
  $("problem").firstElementChild.textContent = error.message;
  $("problem").lastElementChild.hidden = !error.again;
  $("problem").hidden = false;
}

// --- What a person does -------------------------------------------------------------------------

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
state.onAddress(show);
ask.listen({ go, start, know, steps: () => shown.steps, info: () => info });
show();
