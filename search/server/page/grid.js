// A grid of any number of pictures, of which only those near the window are in the page.

const GAP = 14;
const MORE = 600; // pixels above and below the window that are filled too
const LOAD_EVERY = 80; // ms: what is scrolled past at once is never loaded

export class Grid {
  // `list`: an empty <ul>.  `pick(item)`: an item was chosen.
  constructor(list, pick) {
    this.list = list;
    this.pick = pick;
    this.tiles = new Map(); // index -> <li>
    this.show(0, () => null);
    addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.lay()).observe(list.parentElement);
    list.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("click", (event) => this.click(event));
  }

  // `item(index)`: { href, src, label, rank, score } (the last two may be absent), or null: still
  // to come.  `aspect`: width over height of a picture's frame.  `visible(first, end)`: told
  // whenever others are to be seen.
  show(count, item, { aspect = 4 / 3, captions = false, visible = () => {} } = {}) {
    Object.assign(this, { count, item, aspect, captions, visible, active: 0 });
    this.clear();
    this.lay();
  }

  // Items are there that were still to come, or are others now.
  refresh() {
    for (const [index, tile] of this.tiles) this.fill(tile, index);
    this.load();
  }

  lay() {
    const width = this.list.clientWidth;
    if (!width) return;
    const least = width < 500 ? 108 : 168;
    this.columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    this.width = (width - GAP * (this.columns - 1)) / this.columns;
    this.frame = Math.round(this.width / this.aspect);
    this.height = this.frame + (this.captions ? 28 : 0);
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

  update() {
    const pitch = this.height + GAP;
    const above = -this.list.getBoundingClientRect().top;
    const line = (y) => Math.max(0, Math.floor(y / pitch)) * this.columns;
    const first = Math.min(line(above - MORE), this.count);
    const end = Math.min(line(above + innerHeight + MORE) + this.columns, this.count);
    for (const [index, tile] of this.tiles) {
      if ((index < first || index >= end) && !tile.contains(document.activeElement)) this.drop(index);
    }
    for (let index = first; index < end; index++) if (!this.tiles.has(index)) this.add(index);
    this.visible(first, end);
    this.loading ??= setTimeout(() => this.load(), LOAD_EVERY);
  }

  add(index) {
    const tile = document.createElement("li");
    tile.innerHTML = '<a><div class="frame"><img alt="" decoding="async"></div></a>';
    const image = tile.querySelector("img");
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
    if (!item) return;
    tile.setAttribute("aria-posinset", index + 1);
    tile.setAttribute("aria-setsize", this.count);
    tile.dataset.index = index;
    tile.dataset.src = item.src;
    link.href = item.href;
    link.title = item.label;
    link.tabIndex = index === this.active ? 0 : -1;
    const scored = item.score !== undefined;
    const said = scored ? `${item.rank}. ${item.label}, score ${item.score.toFixed(3)}` : item.label;
    link.setAttribute("aria-label", said);
    if (scored && !tile.querySelector(".caption")) {
      const [bar, caption] = [document.createElement("div"), document.createElement("div")];
      const [rank, score] = [document.createElement("b"), document.createElement("span")];
      bar.className = "score";
      bar.style.width = `${100 * Math.min(1, Math.max(0, item.score))}%`;
      caption.className = "caption";
      rank.textContent = item.rank;
      score.textContent = item.score.toFixed(3);
      caption.append(rank, score);
      frame.append(bar);
      link.append(caption);
    }
  }

  load() {
    clearTimeout(this.loading);
    this.loading = null;
    for (const tile of this.tiles.values()) {
      const image = tile.querySelector("img");
      if (tile.dataset.src && !image.getAttribute("src")) image.src = tile.dataset.src;
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

  // Focus the picture at an index, wherever it is.
  focus(index) {
    const before = this.tiles.get(this.active)?.querySelector("a");
    if (before) before.tabIndex = -1;
    this.active = Math.min(this.count - 1, Math.max(0, index));
    const line = Math.floor(this.active / this.columns);
    const top = this.list.getBoundingClientRect().top + line * (this.height + GAP);
    if (top < 8) scrollBy(0, top - 8);
    else if (top + this.height > innerHeight - 8) scrollBy(0, top + this.height - innerHeight + 8);
    this.update();
    const link = this.tiles.get(this.active).querySelector("a");
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
    if (to === undefined) return;
    event.preventDefault();
    this.focus(to);
  }

  click(event) {
    const tile = event.target.closest("li");
    const item = tile && this.item(Number(tile.dataset.index));
    if (!item || event.ctrlKey || event.metaKey || event.shiftKey) return; // a tab of its own
    event.preventDefault();
    this.pick(item);
  }
}
