// Sampling controls, with their defaults; what is changed is kept in this browser.
import {element} from "./colours.js";

const KEY = "skein.settings";
const CONTROLS = [
  ["temperature", "Temperature (0: likeliest)", 0.7, 0, 2, 0.1],
  ["top_p", "Top p", 1, 0, 1, 0.05],
  ["max_tokens", "Tokens at most", 256, 1, 4096, 1],
  ["presence_penalty", "Presence penalty", 0, -2, 2, 0.1],
  ["frequency_penalty", "Frequency penalty", 0, -2, 2, 0.1],
  ["seed", "Seed (empty: drawn)", null, 0, 2 ** 31, 1],
];

export class Settings {
  constructor() {
    this.values = {stops: "", system: "", ...Object.fromEntries(CONTROLS.map(([name, , value]) => [name, value]))};
    this.defaults = {...this.values};
    try {
      Object.assign(this.values, JSON.parse(localStorage.getItem(KEY) ?? "{}"));
    } catch { /* damaged: the defaults */ }
    const box = document.getElementById("controls");
    this.inputs = {};
    for (const [name, label, , min, max, step] of CONTROLS) {
      const input = element("input", {type: "number", min, max, step, id: `set-${name}`});
      input.addEventListener("change", () => {
        const value = input.valueAsNumber;
        this.values[name] = Number.isNaN(value) ? this.defaults[name] : Math.min(max, Math.max(min, value));
        this.show();
      });
      this.inputs[name] = input;
      box.append(element("label", {htmlFor: input.id}, element("span", {textContent: label}), input));
    }
    for (const name of ["stops", "system"]) {
      this.inputs[name] = document.getElementById(name);
      this.inputs[name].addEventListener("change", () => {
        this.values[name] = this.inputs[name].value;
        this.show();
      });
    }
    document.getElementById("defaults").addEventListener("click", () => {
      this.values = {...this.defaults};
      this.show();
    });
    this.show();
  }
  show() {
    for (const [name, input] of Object.entries(this.inputs)) input.value = this.values[name] ?? "";
    try {
      localStorage.setItem(KEY, JSON.stringify(this.values));
    } catch { /* no room: they hold until the page is left */ }
  }
  // As the request has them.
  request() {
    const {stops, system, ...fields} = this.values;
    if (fields.seed === null) delete fields.seed;
    const stop = stops.split("\n").filter(line => line !== "");
    return stop.length ? {...fields, stop: stop.slice(0, 16)} : fields;
  }
  system() {
    return this.values.system.trim();
  }
}
