// The line above the pictures: their order, a jump, where one is, and what can be taken along.

import { $, make } from "./dom.js";

// `change(view)`: how they are shown is to be other.  `jump(text)`: to a number or a name.
export function listen({ change, jump, table, sheet }) {
  $("sort").addEventListener("change", () => change({ sort: $("sort").value }));
  const flags = { descending: "descending", unfold: "unfold", beside: "besides" };
  for (const [name, id] of Object.entries(flags)) {
    $(id).addEventListener("change", () => change({ [name]: $(id).checked ? "1" : "" }));
  }
  $("jump").addEventListener("submit", (event) => {
    event.preventDefault();
    if ($("jump-to").value.trim()) jump($("jump-to").value.trim());
  });
  $("save-table").addEventListener("click", table);
  $("save-sheet").addEventListener("click", sheet);
}

// `kind`: "gallery", "results", "favourites".
export function show(kind, view, info) {
  $("tools").hidden = false;
  const own = kind === "results" ? "best first" : "as they were read";
  const orders = [["", own], ["path", "path"], ...info.columns.map(({ name }) => [name, name])];
  $("sort").replaceChildren(
    ...orders.map(([value, text]) => make("option", { value, textContent: text, selected: value === (view.sort ?? "") })),
  );
  $("descending").checked = Boolean(view.descending);
  $("descending").disabled = kind === "results" && !view.sort;
  $("order").hidden = kind === "favourites";
  $("jump").hidden = kind !== "gallery";
  $("exports").hidden = kind === "gallery";
  $("unfolding").hidden = kind !== "results";
  $("unfold").checked = Boolean(view.unfold);
  $("besiding").hidden = kind !== "results" || !info.beside;
  $("besides").checked = Boolean(view.beside);
  if (info.beside) $("beside-name").textContent = info.beside.run;
  $("position").textContent = "";
}

export function hide() {
  $("tools").hidden = true;
}

// Say which of them are in view.
export function position([first, end], total) {
  const numbers = [first + 1, end, total].map((number) => number.toLocaleString("en"));
  $("position").textContent = end > first ? `${numbers[0]} – ${numbers[1]} of ${numbers[2]}` : "";
}
