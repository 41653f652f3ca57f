// The fields that unfold: further pictures and texts, weights, what is not wanted, conditions on
// what is known of the pictures, how many results.

import { pictures, small, weighted } from "./address.js";
import { $, button, make } from "./dom.js";
import { paths } from "./listing.js";
import { pick } from "./picker.js";

const OPERATORS = { text: ["==", "!="], number: ["==", "!=", "<", "<=", ">", ">="], flag: ["=="] };
const SAID = { "==": "is", "!=": "is not", "<": "below", "<=": "at most", ">": "above", ">=": "at least" };

let columns = [];
let kept = {}; // the lists of pictures of the step: and, more, less

export const offer = (known) => (columns = known);

// --- What the fields say ------------------------------------------------------------------------

// What a step has beside its image and text, as the fields say it.
export function say() {
  const lines = (id) => [...$(id).querySelectorAll("li")];
  const value = (line, name) => line.querySelector(`[name=${name}]`).value.trim();
  const also = lines("also").filter((line) => value(line, "text")).map((line) =>
    `${value(line, "weight") || 1}:${value(line, "text")}`);
  const not = lines("nots").map((line) => value(line, "text")).filter(Boolean);
  const weight = $("weight").value;
  return {
    ...kept, also, not, where: condition(), k: $("k").value,
    weight: also.length && weight && Number(weight) !== 1 ? weight : "",
  };
}

function condition() {
  if (!$("where-raw").hidden) return $("where-text").value.trim();
  return [...$("conditions").querySelectorAll("li")].map((line) => {
    const get = (name) => line.querySelector(`[name=${name}]`).value;
    const kind = columns.find(({ name }) => name === get("column"))?.kind;
    const value = get("value").trim();
    if (!value) return "";
    return `${get("column")} ${get("operator")} ${kind === "text" ? quoted(value) : value}`;
  }).filter(Boolean).join(" and ");
}

const quoted = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

// --- What the fields show -----------------------------------------------------------------------

// Show a step; `drop(name, image)`: one of its pictures is to be left out.
export function show(step, drop) {
  kept = { and: step.and, more: step.more, less: step.less };
  $("weight").value = step.weight ?? "";
  $("k").value = step.k ?? "";
  $("also").replaceChildren(...step.also.map((typed) => further(weighted(typed))));
  $("nots").replaceChildren(...step.not.map((text) => unwanted(text)));
  conditions(step.where ?? "");
  const groups = [["and", "and like"], ["more", "more like"], ["less", "less like"]];
  $("kept").replaceChildren(
    ...groups.flatMap(([name, said]) => step[name].map((image) => chip(name, said, image, drop))),
  );
  const count = pictures(step).length - 1 + step.also.length + step.not.length +
    Boolean(step.where) + Boolean(step.k);
  $("fields-count").textContent = count > 0 ? ` (${count})` : "";
  $("weight-line").hidden = !step.also.length;
}

function chip(name, said, image, drop) {
  const label = paths[image] ?? `picture ${image}`;
  return make("li", {},
    make("img", { src: small(image), alt: "" }),
    make("span", { textContent: `${said} ${label.split("/").pop()}` }),
    button("×", () => drop(name, image), { title: "Leave out", "aria-label": `Leave out: ${said} ${label}` }),
  );
}

const input = (name, value, label, rest = {}) =>
  make("input", { name, value, "aria-label": label, autocomplete: "off", ...rest });

const without = (line) => button("×", () => {
  const list = line.parentElement;
  line.remove();
  (list.querySelector("input, select") ?? list.parentElement.querySelector("button")).focus();
  $("weight-line").hidden = !$("also").children.length;
}, { title: "Leave out", "aria-label": "Leave this line out" });

function further({ text, weight }) {
  const line = make("li", {});
  line.append(
    input("weight", weight, "Its weight", { type: "number", min: "0.1", max: "1000", step: "any" }),
    input("text", text, "A further text", { type: "text", maxLength: 490, placeholder: "and also …" }), without(line),
  );
  return line;
}

function unwanted(text) {
  const line = make("li", {});
  line.append(input("text", text, "Not wanted", { type: "text", maxLength: 500, placeholder: "but not …" }), without(line));
  return line;
}

const COMPARISON = /^\s*(\w+)\s*(==|!=|<=|>=|<|>)\s*("(?:[^"\\]|\\.)*"|[-\w.]+)\s*$/;

// A condition as lines of column, operator and value; as it stands, where it is none of those.
function conditions(where) {
  const parts = where ? where.split(/ and (?=\w+\s*[=!<>])/).map((part) => COMPARISON.exec(part)) : [];
  const plain = parts.every((part) => part && columns.some(({ name }) => name === part[1]));
  $("where-raw").hidden = plain;
  $("where-text").value = plain ? "" : where;
  const value = (text) => (text.startsWith('"') ? text.slice(1, -1).replace(/\\(.)/g, "$1") : text);
  $("conditions").replaceChildren(...(plain ? parts : []).map(([, name, operator, text]) => compare(name, operator, value(text))));
  $("where").hidden = !columns.length && plain;
  $("add-condition").hidden = !plain;
}

function compare(name = columns[0].name, operator = "==", value = "") {
  const line = make("li", {});
  const column = make("select", { name: "column", "aria-label": "What is known" },
    ...columns.map((one) => make("option", { value: one.name, textContent: one.name, selected: one.name === name })));
  const draw = (chosen, said) => {
    const known = columns.find((one) => one.name === column.value);
    const operators = make("select", { name: "operator", "aria-label": "Compared how" },
      ...OPERATORS[known.kind].map((one) => make("option", { value: one, textContent: SAID[one], selected: one === chosen })));
    line.replaceChildren(column, operators, valued(known, said), without(line));
  };
  column.addEventListener("change", () => draw("==", ""));
  draw(operator, value);
  return line;
}

function valued({ name, kind, values, least, most }, value) {
  const label = `Value of ${name}`;
  const choices = kind === "flag" ? ["True", "False"] : values;
  if (choices && (!value || choices.includes(value))) {
    return make("select", { name: "value", "aria-label": label },
      ...choices.map((one) => make("option", { value: one, textContent: one, selected: one === value })));
  }
  if (kind === "number") {
    return input("value", value, label, { type: "number", step: "any", placeholder: least === null ? "" : `${least} – ${most}` });
  }
  return input("value", value, label, { type: "text", maxLength: 200 });
}

// --- Lines that are added -----------------------------------------------------------------------

// `add(image)`: a further picture was picked.
export function listen(add) {
  const grow = (list, line) => {
    $(list).append(line);
    $("weight-line").hidden = !$("also").children.length;
    line.querySelector("input[type=text], select").focus();
  };
  $("add-text").addEventListener("click", () => grow("also", further({ text: "", weight: 1 })));
  $("add-not").addEventListener("click", () => grow("nots", unwanted("")));
  $("add-condition").addEventListener("click", () => grow("conditions", compare()));
  $("add-picture").addEventListener("click", async () => {
    const row = await pick("A further picture that the results should be like");
    if (row !== null) add(String(row));
  });
}
