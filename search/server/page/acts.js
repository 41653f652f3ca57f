// What can be done with a picture: on its tile, in the large view, by a key.

import { last, small, step, write } from "./address.js";
import * as view from "./large.js";
import * as marks from "./marks.js";
import { go, grids, keptView, shown } from "./state.js";

export const tile = (row, path, steps) => ({
  row, href: write(steps, keptView()), src: small(String(row)), label: path, steps, mark: marks.of(row),
});

export const startAction = {
  actions: () => [{ name: "start", label: "Start from this", text: "→" }],
  act: (name, item) => act(name, item),
};

const MARKS = [
  { name: "right", label: "Right", text: "✓" },
  { name: "wrong", label: "Not right", text: "✗" },
];

// On the tile of a result.
export function actions({ row }) {
  const own = marks.on() ? MARKS.map((one) => ({ ...one, pressed: marks.of(row) === one.name })) : [];
  return [...own, ...startAction.actions()];
}

// In the large view of a result.
export function actionsLarge({ row }) {
  const own = marks.on()
    ? MARKS.map(({ name, label, text }) => ({ name, text: `${text} ${label}`, pressed: marks.of(row) === name }))
    : [];
  return [{ name: "more", text: "More like this" }, { name: "less", text: "Less like this" },
          { name: "and", text: "Add to the question" }, ...own];
}

export const keysLarge = () => (marks.on() ? { y: "right", n: "wrong" } : {});

export async function act(name, item) {
  const [steps, row] = [shown.steps, String(item.row)];
  const asked = last(steps);
  if (name === "start") return go(item.steps);
  if (name === "object") return go([...item.steps.slice(0, -1), step(row, "", { region: String(item.region) })]);
  if (name === "more" || name === "less" || name === "and") {
    const without = Object.fromEntries(["more", "less", "and"].map((list) => [list, asked[list].filter((one) => one !== row)]));
    return go([...steps.slice(0, -1), { ...asked, ...without, [name]: [...without[name], row] }]);
  }
  if (!marks.on()) return undefined;
  if (name === "undo") return marks.act.undo().catch(() => {});
  return marks.mark(item.row, name).catch(() => {}); // it is said where marks are
}

// `list`: what the large view steps through, see there.
export function openLarge(list, place, name = "grid") {
  view.open({ ...list, act, closed: (at) => grids[name].focus(at) }, place);
}
