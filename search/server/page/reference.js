// A picture with its regions: those that a word looks at, and those that can be chosen.

const NAMESPACE = "http://www.w3.org/2000/svg";
const BOLD = 0.35; // of the largest weight: regions above it are outlined
const NAMED = 3; // regions whose share is said
const ALIKE = 1.5; // times the share that each would have: less than this is nothing to say
let masks = 0; // each has a name of its own

export class Reference {
  // `place`: the element to draw into.  `looks`: where it is said in words what a word looks at.
  constructor(place, looks) {
    [this.place, this.looks] = [place, looks];
    this.empty = [...place.childNodes];
    this.mask = `seen-${masks++}`;
    this.clear();
  }

  clear() {
    this.draw(this.empty, "empty");
  }

  wait() {
    this.draw([], "waiting");
  }

  // Draw the picture at an address; rejects if it cannot be had.
  async show(address, label) {
    this.address = address;
    const image = new Image();
    image.src = address;
    try {
      await image.decode();
    } catch {
      if (this.address === address) this.draw([], "");
      throw new Error("This picture cannot be shown.");
    }
    if (this.address !== address) return; // another was asked for meanwhile
    [this.width, this.height] = [image.naturalWidth, image.naturalHeight];
    this.svg = svg("svg", { viewBox: `0 0 ${this.width} ${this.height}`, role: "img" });
    this.svg.setAttribute("aria-label", label);
    this.svg.append(svg("image", { href: address, width: this.width, height: this.height }));
    this.draw([this.svg], "");
    if (this.attention) this.regions(this.attention);
    if (this.chosen) this.objects(...this.chosen);
  }

  draw(nodes, state) {
    this.place.className = state;
    this.place.replaceChildren(...nodes);
    if (!nodes.includes(this.svg)) this.svg = this.attention = this.address = this.chosen = null;
  }

  rectangles(boxes) {
    return boxes.map(([left, top, right, bottom]) => ({
      x: left * this.width, y: top * this.height,
      width: (right - left) * this.width, height: (bottom - top) * this.height,
    }));
  }

  // What was attended: { words, boxes, weights, way, said }, or null.
  regions(attention) {
    this.attention = attention;
    if (!this.svg) return;
    for (const part of this.svg.querySelectorAll("mask, .dim, .box")) part.remove();
    if (!attention) return;
    const whole = { width: this.width, height: this.height };
    const mask = svg("mask", { id: this.mask });
    mask.append(svg("rect", { ...whole, fill: "#fff" }));
    const boxes = this.rectangles(attention.boxes);
    this.holes = boxes.map((box) => svg("rect", { ...box, class: "hole", opacity: 0 }));
    this.outlines = boxes.map((box) => svg("rect", { ...box, class: "box", rx: 2 }));
    mask.append(...this.holes);
    const dim = svg("rect", { ...whole, class: "dim", mask: `url(#${this.mask})` });
    this.svg.append(mask, dim, ...this.outlines);
  }

  // Regions that can be chosen by a click: K x 4 boxes, what to do with the number of one, and
  // which one is chosen (null: none).  No boxes: none are shown.
  objects(boxes, pick, region = null) {
    this.chosen = [boxes, pick, region];
    if (!this.svg) return;
    for (const part of this.svg.querySelectorAll(".object")) part.remove();
    const drawn = this.rectangles(boxes).map((box, number) => {
      const state = number === region ? "object chosen" : "object";
      const rect = svg("rect", { ...box, class: state, rx: 2 });
      rect.append(svg("title", {}));
      rect.firstChild.textContent = `Object ${number + 1}`;
      rect.addEventListener("click", () => pick(number));
      return [box.width * box.height, rect];
    });
    drawn.sort(([a], [b]) => b - a); // what is small lies above what is large
    this.svg.append(...drawn.map(([, rect]) => rect));
  }

  // Point at an object by its number; null: at none.
  point(number) {
    const [boxes] = this.chosen ?? [[]];
    const marks = this.svg?.querySelectorAll(".object") ?? [];
    const named = number === null ? null : `Object ${number + 1}`;
    if (boxes.length) for (const mark of marks) mark.classList.toggle("pointed", mark.textContent === named);
  }

  // Light the regions of a word by its place in the text; null: of none.
  light(word) {
    const lit = word !== null && this.svg !== null && this.attention;
    const changes = lit && lit.way === "change";
    const shown = lit && (changes || !alike(lit.weights[word]));
    this.place.classList.toggle("lit", Boolean(shown));
    const weights = shown ? this.attention.weights[word] : this.attention?.boxes.map(() => 0) ?? [];
    const least = changes ? Math.min(...weights) : 0; // every region is changed somewhat
    const most = Math.max(...weights) - least || 1;
    weights.forEach((weight, region) => {
      const share = (weight - least) / most;
      if (!this.svg) return;
      this.holes[region].style.opacity = share;
      this.outlines[region].style.opacity = share >= BOLD ? share : 0;
    });
    this.looks.textContent = lit ? said(this.attention, word) : "";
  }
}

// `way` is what the weights are: where a word looks, or what a whole text changes.
function said({ words, boxes, weights: all, way, said: how }, at) {
  const word = words[at], weights = all[at], changes = way === "change";
  if (weights.length === 1) return `“${word}” ${changes ? "changes" : "looks at"} the one region there is`;
  if (!changes && alike(weights)) return `“${word}” looks everywhere alike`;
  const first = weights.map((weight, region) => ({ weight, region }))
    .filter(({ weight }) => weight >= 0.01)
    .sort((a, b) => b.weight - a.weight)
    .slice(0, changes ? 1 : NAMED);
  const share = (weight) => (changes ? "" : ` ${Math.round(100 * weight)} %`);
  const shares = first.map(({ weight, region }) => `${spot(boxes[region])}${share(weight)}`);
  const seen = `“${word}” ${changes ? "changes" : "looks"} most${changes ? "" : " at"}: ${shares.join(", ")}`;
  return how ? `${seen}.  ${how}` : seen;
}

// Whether a word prefers no region: then nothing is lit.
const alike = (weights) => weights.length > 1 && Math.max(...weights) < ALIKE / weights.length;

// Where a box lies, in words, as "top left".
function spot([left, top, right, bottom]) {
  const third = (at) => Math.min(2, Math.floor(3 * at));
  const row = ["top", "middle", "bottom"][third((top + bottom) / 2)];
  return `${row} ${["left", "center", "right"][third((left + right) / 2)]}`;
}

function svg(name, attributes) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
