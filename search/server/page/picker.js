// A dialog in which a picture of the gallery is picked.

import { small } from "./address.js";
import { $ } from "./dom.js";
import { Grid } from "./grid.js";
import { Listing } from "./listing.js";

let answer = () => {};
let listing = null;
const dialog = $("picker");
const grid = new Grid($("picker-grid"), ({ row }) => close(row), $("picker-scroll"));

// The row of the picture that is picked; null where the dialog was closed.
export function pick(title) {
  $("picker-title").textContent = title;
  $("picker-text").value = $("picker-said").textContent = "";
  listing ??= new Listing({}, () => grid.refresh());
  dialog.showModal();
  listing.around(0).then(() => {
    grid.show(listing.total, (place) => {
      const picture = listing.pictures[place];
      return picture && { ...picture, src: small(String(picture.row)), label: picture.path, href: "#" };
    }, { aspect: listing.aspect, visible: (first, end) => listing.visible(first, end) });
  }, (error) => ($("picker-said").textContent = error.message));
  return new Promise((done) => (answer = done));
}

function close(row) {
  answer(row);
  answer = () => {};
  dialog.close();
}

dialog.addEventListener("close", () => close(null));
$("picker-close").addEventListener("click", () => close(null));
$("picker-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("picker-said").textContent = "";
  try {
    grid.focus(await listing.place($("picker-text").value.trim()));
  } catch (error) {
    $("picker-said").textContent = error.message;
  }
});
