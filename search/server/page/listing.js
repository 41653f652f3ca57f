// The gallery in an order, of which only those parts are asked for that are looked at.

import { call } from "./service.js";

const CHUNK = 100;

export const paths = []; // row -> path, as far as they are known

export class Listing {
  // `came()`: told when a part is there.
  constructor(view, came) {
    const query = new URLSearchParams();
    if (view.sort) query.set("sort", view.sort);
    if (view.descending) query.set("descending", "true");
    this.query = query.toString();
    this.came = came;
    this.asked = new Map(); // start -> promise
    this.pictures = []; // place -> { row, path, width, height }
    this.aspect = 4 / 3;
  }

  // Ask for the pictures around a place, once.
  around(place) {
    const start = place - (place % CHUNK);
    if (!this.asked.has(start)) {
      const part = call(`/api/gallery?start=${start}&count=${CHUNK}&${this.query}`);
      this.asked.set(start, part);
      part.then(({ total, pictures }) => {
        this.total = total;
        pictures.forEach((picture, i) => {
          this.pictures[start + i] = picture;
          paths[picture.row] = picture.path;
        });
        if (start === 0 && pictures.length) this.aspect = middle(pictures);
        this.came();
      }, () => this.asked.delete(start));
    }
    return this.asked.get(start);
  }

  visible(first, end) {
    for (let place = first; place < end; place += CHUNK) this.around(place).catch(() => {});
    if (end > first) this.around(end - 1).catch(() => {});
  }

  // Where the first picture with that in its name is; rejects where there is none.
  async place(name) {
    const { place } = await call(`/api/gallery/place?name=${encodeURIComponent(name)}&${this.query}`);
    return place;
  }
}

// The median of width over height, within what a grid can take.
function middle(pictures) {
  const sorted = pictures.map(({ width, height }) => width / height).sort((a, b) => a - b);
  return Math.min(1.6, Math.max(0.66, sorted[sorted.length >> 1]));
}
