// The gallery, and the favourites in it: pictures to start from.

import { step } from "./address.js";
import { $ } from "./dom.js";
import * as favourites from "./favourites.js";
import { act, openLarge, startAction, tile } from "./acts.js";
import { grids, info, listing, restore, shown, title } from "./state.js";
import * as tools from "./tools.js";

const { grid } = grids;

// `know()`: a promise that the service said what it is.
export async function gallery(signal, know) {
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
  const list = {
    count: () => all.total, item, actions: () => [], keys: {}, more: (place) => all.around(place),
    attended: async () => null, divided: async () => null,
  };
  grid.show(all.total, item, {
    aspect: all.aspect,
    visible: (first, end) => {
      all.visible(first, end);
      if (grid.height) tools.position(grid.span, all.total);
    },
    actions: () => [{ name: "large", label: "Look at it", text: "⤢" }],
    act: (_, __, place) => openLarge(list, place),
    keys: { " ": "large" },
  });
  restore();
}

export async function favoured(signal, know) {
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
  if (items.length) tools.show("favourites", shown.view, info);
  else tools.hide();
  const list = { count: () => items.length, item: (i) => items[i], actions: () => [], keys: {}, attended: async () => null, divided: async () => null, more: async () => {} };
  shown.rows = () => items.map(({ label: path, src }, i) => ({ place: i + 1, path, src }));
  grid.show(items.length, (i) => items[i], { aspect: first.aspect, open: (place) => openLarge(list, place), ...startAction });
}

// Go to a number or a name; 0012 is a name.
export async function jump(text) {
  const all = shown.list;
  try {
    const number = /^[1-9][\d,]*$/.test(text) ? Number(text.replaceAll(",", "")) : null;
    const place = number === null ? await all.place(text) : Math.min(Math.max(1, number), all.total) - 1;
    await all.around(place);
    grid.focus(place);
  } catch (error) {
    $("position").textContent = error.message;
  }
}
