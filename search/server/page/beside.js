// The results of another run beside those of this one, with the differences marked.

import { $ } from "./dom.js";

// For each row the note on its tile: what is here alone, or stands higher or lower than there.
export function differences(here, there) {
  const place = new Map(there.map(({ row }, i) => [row, i]));
  return new Map(here.map(({ row }, i) => {
    if (!place.has(row)) return [row, "only here"];
    const by = place.get(row) - i;
    return [row, by > 0 ? `▲ ${by}` : by < 0 ? `▼ ${-by}` : "="];
  }));
}

// Draw both: `own` and `other` are { name, tiles }; `draw(list, tiles, notes)` fills one of the grids.
export function show(own, other, draw) {
  $("pair").classList.add("two");
  for (const id of ["own-name", "beside-part"]) $(id).hidden = false;
  const [mine, theirs] = [differences(own.tiles, other.tiles), differences(other.tiles, own.tiles)];
  const title = ({ name }, notes) => {
    const alone = [...notes.values()].filter((note) => note === "only here").length;
    return `${name} · ${alone} only here`;
  };
  $("own-name").textContent = title(own, mine);
  $("other-name").textContent = title(other, theirs);
  draw("grid", own.tiles, mine);
  draw("other", other.tiles, theirs);
}

export function hide() {
  $("pair").classList.remove("two");
  for (const id of ["own-name", "beside-part"]) $(id).hidden = true;
}
