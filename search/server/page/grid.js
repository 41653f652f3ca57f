// A grid of any number of pictures, of which only those near the window are in the page.

import { button, make } from "./dom.js";

const GAP = 14;
const MORE = 600; // pixels above and below the window that are filled too
const LOAD_EVERY = 80; // ms: what is scrolled past at once is never loaded
const CAPTION = 28;
const SLIP = 10; // pixels that a pointer may move between press and release

// Whether a click asks for a tab or a window of its own.
const other = (event) => event.ctrlKey || event.metaKey || event.shiftKey;

export class Grid {
  // `list`: an empty <ul>.  `pick(item)`: an item was chosen, to go on from.
  // `scroller`: what scrolls; the window where it is absent.
  constructor(list, pick, scroller = null) {
    [this.list, this.pick, this.scroller] = [list, pick, scroller];
    this.tiles = new Map(); // index -> <li>
    this.show(0, () => null);
    (scroller ?? window).addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.lay()).observe(list.parentElement);
    list.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("click", (event) => this.click(event));
    // What is pressed while other items come is what was there then; what is still to come is waited
    // for, unless something else is done meanwhile.
    for (const kind of ["pointerdown", "keydown"]) {
      addEventListener(kind, () => (this.wanted = this.down = null), true);
    }
    list.addEventListener("pointerdown", (event) => (this.down = this.at(event)));
    addEventListener("pointerup", (event) => this.released(event), true); // where its tile is gone, no click comes
  }

  // `item(index)`: { href, src, label, rank, score, note } (the last three may be absent), or null:
  // still to come.  `options`:
  //   aspect: width over height of a picture's frame;
  //   captions: there is room for rank and score;
  //   visible(first, end): told whenever others are to be seen;
  //   open(index): a click shows the item; without it, a click picks it as Enter does;
  //   actions(item): [{ name, label, text, pressed }], buttons on the item;
  //   act(name, item, index): one of them was pressed;
  //   keys: { key: name of an action }, pressed on an item.
  show(count, item, options = {}) {
    const focused = this.list.contains(document.activeElement);
    const { aspect = 4 / 3, captions = false, visible = () => {}, ...rest } = options;
    Object.assign(this, {
      count, item, aspect, captions, visible, active: 0,
      open: rest.open, actions: rest.actions ?? (() => []), act: rest.act, keys: rest.keys ?? {},
    });
    this.lists = (this.lists ?? 0) + 1;
    this.clear();
    this.lay();
    if (focused && count) this.focus(0); // it stays with the pictures, though they are others
    this.load();
    this.serve();
  }

  // Do what was asked of an item that was still to come.
  serve() {
    const index = this.wanted;
    if (index == null || !this.item(index)) return;
    this.wanted = null;
    this.choose(index);
  }

  choose(index) {
    if (!this.open) return this.pick(this.item(index), index);
    this.active = index;
    this.open(index);
  }

  // There are more of them.
  grow(count) {
    this.count = count;
    this.lay();
    this.refresh();
  }

  // Items are there that were still to come, or are others now.
  refresh() {
    for (const [index, tile] of this.tiles) this.fill(tile, index);
    this.load();
    this.serve();
  }

  lay() {
    const width = this.list.clientWidth;
    if (!width) return;
    const least = width < 500 ? 108 : 168;
    this.columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    this.width = (width - GAP * (this.columns - 1)) / this.columns;
    this.frame = Math.round(this.width / this.aspect);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
    this.height = this.frame + (this.captions ? Math.round(CAPTION * rem) : 0);
    const lines = Math.ceil(this.count / this.columns);
    this.list.style.height = `${Math.max(0, lines * (this.height + GAP) - GAP)}px`;
    for (const [index, tile] of this.tiles) this.place(tile, index);
    this.update();
  }

  soon() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      this.update();
    });
  }

  // The window's top and height, from the top of the list.
  seen() {
    const top = this.list.getBoundingClientRect().top;
    if (!this.scroller) return { above: -top, height: innerHeight };
    const frame = this.scroller.getBoundingClientRect();
    return { above: frame.top - top, height: frame.height };
  }

  // The first and the last item that can be seen, wholly or in part.
  get span() {
    const { above, height } = this.seen();
    const pitch = this.height + GAP;
    const line = (y) => Math.max(0, Math.floor(y / pitch)) * this.columns;
    return [Math.min(line(above), this.count), Math.min(line(above + height) + this.columns, this.count)];
  }

  update() {
    const pitch = this.height + GAP;
    const { above, height } = this.seen();
    const line = (y) => Math.max(0, Math.floor(y / pitch)) * this.columns;
    const first = Math.min(line(above - MORE), this.count);
    const end = Math.min(line(above + height + MORE) + this.columns, this.count);
    this.inView = (index) => line(above) <= index && index < line(above + height) + this.columns;
    for (const [index, tile] of this.tiles) {
      if ((index < first || index >= end) && !tile.contains(document.activeElement)) this.drop(index);
    }
    for (let index = first; index < end; index++) if (!this.tiles.has(index)) this.add(index);
    this.visible(first, end);
    this.loading ??= setTimeout(() => this.load(), LOAD_EVERY);
  }

  add(index) {
    const image = make("img", { alt: "", decoding: "async" });
    const tile = make(
      "li", {},
      make("a", {}, make("div", { className: "frame" }, image)),
      make("div", { className: "actions" }),
    );
    image.addEventListener("load", () => image.classList.add("here"));
    image.addEventListener("error", () => image.parentElement.classList.add("gone"));
    this.tiles.set(index, tile);
    this.place(tile, index);
    this.fill(tile, index);
    this.list.append(tile);
  }

  place(tile, index) {
    const x = (index % this.columns) * (this.width + GAP);
    const y = Math.floor(index / this.columns) * (this.height + GAP);
    Object.assign(tile.style, {
      transform: `translate(${x}px, ${y}px)`,
      width: `${this.width}px`,
      height: `${this.height}px`,
    });
    tile.querySelector(".frame").style.height = `${this.frame}px`;
  }

  fill(tile, index) {
    const item = this.item(index);
    const [link, frame] = [tile.querySelector("a"), tile.querySelector(".frame")];
    frame.classList.toggle("waiting", !item);
    tile.dataset.index = index;
    link.tabIndex = index === this.active ? 0 : -1;
    if (!item) return;
    tile.setAttribute("aria-posinset", index + 1);
    tile.setAttribute("aria-setsize", this.count);
    tile.dataset.src = item.src;
    link.href = item.href;
    link.title = item.label;
    const scored = item.score !== undefined;
    const said = scored ? `${item.rank}. ${item.label}, score ${item.score.toFixed(3)}` : item.label;
    link.setAttribute("aria-label", item.note ? `${said}, ${item.note}` : said);
    if (scored) this.caption(tile, frame, item);
    this.press(tile, item);
  }

  caption(tile, frame, item) {
    tile.querySelector(".caption")?.remove();
    frame.querySelector(".score")?.remove();
    const bar = make("div", { className: "score" });
    bar.style.width = `${Math.round(100 * Math.max(0, Math.min(1, item.score)))}%`;
    frame.append(bar);
    const rank = make("b", { textContent: item.rank });
    if (item.note) rank.append(make("i", { textContent: item.note }));
    const score = make("span", { textContent: item.score.toFixed(3) });
    tile.append(make("div", { className: "caption", "aria-hidden": "true" }, rank, score)); // the link says it
  }

  press(tile, item) {
    const place = tile.querySelector(".actions");
    const wanted = this.actions(item);
    const there = [...place.children];
    // Those that are there stay: one of them may be being pressed.
    if (wanted.map(({ name }) => name).join() !== there.map(({ dataset }) => dataset.name).join()) {
      place.replaceChildren(...wanted.map(({ name }) => this.button(tile, name)));
    }
    wanted.forEach(({ label, text, pressed }, i) => {
      const made = place.children[i];
      Object.assign(made, { title: label, ariaLabel: `${label}: ${item.label}` });
      if (made.textContent !== text) made.textContent = text;
      if (pressed !== undefined) made.setAttribute("aria-pressed", pressed);
    });
    tile.dataset.mark = item.mark ?? "";
  }

  button(tile, name) {
    const act = () => {
      const index = Number(tile.dataset.index);
      this.act(name, this.item(index), index);
    };
    const made = button("", act, { tabIndex: -1 });
    made.dataset.name = name;
    return made;
  }

  // Begin to load the pictures of the tiles that are there.
  load() {
    clearTimeout(this.loading);
    this.loading = null;
    for (const [index, tile] of this.tiles) {
      const image = tile.querySelector("img");
      if (!tile.dataset.src || image.getAttribute("src") === tile.dataset.src) continue;
      image.fetchPriority = this.inView(index) ? "high" : "low";
      image.src = tile.dataset.src;
    }
  }

  drop(index) {
    const tile = this.tiles.get(index);
    tile.querySelector("img").removeAttribute("src"); // ends its loading
    tile.remove();
    this.tiles.delete(index);
  }

  clear() {
    for (const index of [...this.tiles.keys()]) this.drop(index);
  }

  // Bring an item into view, wherever it is; `lead` pixels stay free above it.
  reveal(index, lead = 8) {
    const line = Math.floor(index / this.columns);
    const { above, height } = this.seen();
    const top = line * (this.height + GAP) - above;
    const scroller = this.scroller ?? window;
    if (top < lead) scroller.scrollBy(0, top - lead);
    else if (top + this.height > height - 8) scroller.scrollBy(0, top + this.height - height + 8);
    this.update();
  }

  // Focus the item at an index, wherever it is.
  focus(index) {
    const before = this.tiles.get(this.active)?.querySelector("a");
    if (before) before.tabIndex = -1;
    this.active = Math.min(this.count - 1, Math.max(0, index));
    this.reveal(this.active);
    const link = this.tiles.get(this.active)?.querySelector("a");
    if (!link) return;
    link.tabIndex = 0;
    link.focus({ preventScroll: true });
  }

  key(event) {
    const tile = event.target.closest("li");
    if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = this.columns * Math.max(1, Math.floor(innerHeight / (this.height + GAP)) - 1);
    const index = Number(tile.dataset.index);
    const to = {
      ArrowLeft: index - 1, ArrowRight: index + 1,
      ArrowUp: index - this.columns, ArrowDown: index + this.columns,
      PageUp: index - page, PageDown: index + page, Home: 0, End: this.count - 1,
    }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      return this.focus(to);
    }
    const item = this.item(index);
    if (!item || event.target.closest("button")) return;
    if (event.key === "Enter" && !event.shiftKey) this.pick(item, index);
    else if (event.key === " " && this.open) this.open(index);
    else if (this.keys[event.key]) this.act(this.keys[event.key], item, index);
    else return;
    event.preventDefault();
  }

  // The item at which an event is, and what it would do; null: at none.
  at(event) {
    if (event.button || other(event) || event.target.closest(".actions")) return null;
    const tile = event.target.closest("li");
    const index = tile && Number(tile.dataset.index);
    const item = tile && this.item(index);
    const { open, pick, lists } = this;
    return item && { lists, at: [event.clientX, event.clientY], choose: () => (open ? open(index) : pick(item, index)) };
  }

  released({ clientX, clientY }) {
    const { down } = this;
    if (!down || down.lists === this.lists) return;
    this.down = null;
    if (Math.hypot(clientX - down.at[0], clientY - down.at[1]) < SLIP) down.choose();
  }

  click(event) {
    const tile = event.target.closest("li");
    if (!tile || other(event) || event.target.closest(".actions")) return;
    event.preventDefault();
    const index = Number(tile.dataset.index);
    if (this.item(index)) this.choose(index);
    else this.wanted = index;
  }
}
