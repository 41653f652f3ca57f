// Results as files: a table, and a contact sheet.

import { make } from "./dom.js";

const COLUMNS = 6;
const [WIDE, HIGH, NAME, EDGE] = [240, 200, 40, 24]; // pixels of a cell, of its caption, around all
const SHEET = 120; // pictures at most

// `rows`: [{ place, path, score }]; `asked`: what was asked, in words.
export function table(rows, asked) {
  const lines = [["rank", "path", "score", "question"], ...rows.map((one) => [
    one.place, one.path, one.score?.toFixed(6) ?? "", asked,
  ])];
  const text = lines.map((line) => line.map(field).join(",")).join("\n");
  save(new Blob([`${text}\n`], { type: "text/csv" }), "results.csv");
}

const field = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);

// `rows` as above, with `src`, the address of a small picture.
export async function sheet(rows, asked) {
  const shown = rows.slice(0, SHEET);
  const lines = Math.ceil(shown.length / COLUMNS);
  const canvas = make("canvas", {
    width: 2 * EDGE + COLUMNS * WIDE, height: 3 * EDGE + 20 + lines * (HIGH + NAME),
  });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = "#1f1d1a";
  pen.font = "600 18px sans-serif";
  pen.fillText(asked, EDGE, EDGE + 16, canvas.width - 2 * EDGE);
  pen.font = "13px sans-serif";
  const pictures = await Promise.all(shown.map(({ src }) => loaded(src)));
  shown.forEach(({ place, path, score }, i) => {
    const x = EDGE + (i % COLUMNS) * WIDE;
    const y = 2 * EDGE + 20 + Math.floor(i / COLUMNS) * (HIGH + NAME);
    const picture = pictures[i];
    if (picture) {
      const scale = Math.min((WIDE - 12) / picture.naturalWidth, (HIGH - 8) / picture.naturalHeight);
      pen.drawImage(picture, x, y, picture.naturalWidth * scale, picture.naturalHeight * scale);
    }
    const said = score === undefined ? `${place}.` : `${place}.  ${score.toFixed(3)}`;
    pen.fillText(said, x, y + HIGH + 8, WIDE - 12);
    pen.fillText(path.split("/").pop(), x, y + HIGH + 24, WIDE - 12);
  });
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  save(blob, "contact-sheet.png");
}

async function loaded(src) {
  const image = new Image();
  image.src = src;
  return image.decode().then(() => image, () => null);
}

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
