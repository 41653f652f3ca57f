// A picture with its regions: those that a word looks at or that made it a result, and those that
// can be chosen.

import { alike, said } from "./looked.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const BOLD = 0.35; // of the largest weight: regions above it are outlined
let masks = 0; // each has a name of its own

export class Reference {
  // `place`: the element to draw into.  `looks`: where it is said in words what a word looks at.
  constructor(place, looks) {
    [this.place, this.looks] = [place, looks];
    this.empty = [...place.childNodes];
    this.mask = `seen-${masks++}`;
    place.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.feel(event));
    place.addEventListener("pointerleave", () => this.felt && this.feel(null));
    place.addEventListener("click", (event) => this.feel(event, true));
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
    this.outlined = undefined;
    if (this.lit) this.light(...this.lit);
    if (this.chosen) this.objects(...this.chosen);
  }

  draw(nodes, state) {
    this.place.className = state;
    this.place.replaceChildren(...nodes);
    if (nodes.includes(this.svg)) return;
    this.svg = this.lit = this.outlined = this.felt = this.address = this.chosen = null;
    this.looks.textContent = "";
  }

  rectangles(boxes) {
    return boxes.map(([left, top, right, bottom]) => ({
      x: left * this.width, y: top * this.height,
      width: (right - left) * this.width, height: (bottom - top) * this.height,
    }));
  }

  // Outline the boxes of what is lit, each as bright as it will be.
  outline(looked) {
    if (this.outlined === looked) return;
    this.outlined = looked;
    for (const part of this.svg.querySelectorAll("mask, .dim, .box")) part.remove();
    if (!looked) return;
    const whole = { width: this.width, height: this.height };
    const mask = svg("mask", { id: this.mask });
    mask.append(svg("rect", { ...whole, fill: "#fff" }));
    const boxes = this.rectangles(looked.boxes);
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

  // Light the regions of a word or a region by its place among `looked`: { boxes, weights, way, ... },
  // weights a row each; null: of none.
  light(looked, at) {
    this.lit = [looked, at];
    if (!this.svg) return;
    this.outline(looked);
    const lit = Boolean(looked) && at !== null;
    const changes = lit && looked.way === "change";
    const shown = lit && (looked.way !== "attention" || !alike(looked.weights[at]));
    this.place.classList.toggle("lit", shown);
    const weights = shown ? looked.weights[at] : looked?.boxes.map(() => 0) ?? [];
    const least = changes ? Math.min(...weights) : 0; // every region is changed somewhat
    const most = Math.max(...weights) - least || 1;
    weights.forEach((weight, region) => {
      const share = (weight - least) / most;
      this.holes[region].style.opacity = share;
      this.outlines[region].style.opacity = share >= BOLD ? share : 0;
    });
    this.looks.textContent = lit ? said(looked, at) : "";
  }

  // `felt(region, tapped)`: told when one of the regions of `looked` is pointed at in the picture, or
  // tapped; null where there is none.
  sense(looked, felt = null) {
    this.felt = looked && { looked, felt, at: null };
  }

  feel(event, tapped = false) {
    if (!this.felt || !this.svg || this.chosen?.[0].length) return;
    const { looked, felt, at } = this.felt;
    const region = event && this.under(event, looked.boxes);
    if (!tapped && region === at) return;
    this.felt.at = region;
    if (this.lit[1] === null) this.outline(looked);
    if (this.outlined === looked) this.outlines.forEach((one, i) => one.classList.toggle("pointed", i === region));
    felt(region, tapped);
  }

  // The smallest of some boxes that lies under the pointer; null: none.
  under({ clientX, clientY }, boxes) {
    const { x, y } = new DOMPoint(clientX, clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    const [across, down] = [x / this.width, y / this.height];
    const size = ([left, top, right, bottom]) => (right - left) * (bottom - top);
    const [first] = boxes.map((box, region) => ({ box, region }))
      .filter(({ box: [left, top, right, bottom] }) => left <= across && across <= right && top <= down && down <= bottom)
      .sort((a, b) => size(a.box) - size(b.box));
    return first?.region ?? null;
  }
}

function svg(name, attributes) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
