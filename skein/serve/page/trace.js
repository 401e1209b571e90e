// What a routed answer chose: gathered from the stream's pieces, shown as tinted tokens, tables, shares and heat maps.
import {VIRIDIS, element, percent} from "./colours.js";

const visible = text => text.replace(/\n/g, "↵\n").replace(/\t/g, "→\t");

// Format: docs/serving.md, "Traces".
export class Trace {
  constructor() {
    this.experts = [];
    this.sets = [];
    this.tokens = [];
  }
  add(piece) {
    if (piece.experts) this.experts = piece.experts;
    if (piece.slot_sets) this.sets.push(...piece.slot_sets);
    for (const token of piece.tokens ?? []) {
      token.shares = this.#shares(token);
      this.tokens.push(token);
    }
  }
  slots(token) {
    return this.sets[token.slot_set] ?? [];
  }
  // Pairs [expert, weight] at the i-th slot of the token, best first.
  choices(token, i) {
    const pairs = [];
    for (let j = i * token.k; j < (i + 1) * token.k; j++) {
      if (token.experts[j] >= 0 && token.weights[j] > 0) pairs.push([token.experts[j], token.weights[j]]);
    }
    return pairs;
  }
  #shares(token) {
    const shares = new Array(this.experts.length).fill(0), slots = this.slots(token).length;
    for (let i = 0; i < slots; i++) for (const [e, w] of this.choices(token, i)) shares[e] += w / slots;
    return shares;
  }
  answer() {
    return this.tokens.filter(token => token.part === "answer");
  }
  // Mean over tokens: of the answer where there is one, else of all.
  total() {
    const answer = this.answer(), tokens = answer.length ? answer : this.tokens;
    const total = new Array(this.experts.length).fill(0);
    for (const token of tokens) token.shares.forEach((share, e) => { total[e] += share / tokens.length; });
    return total;
  }
  groups() {
    const names = [];
    for (const set of this.sets) for (const slot of set) {
      const name = groupOf(slot);
      if (!names.includes(name)) names.push(name);
    }
    return names;
  }
  rows() {
    const rows = [];
    for (const token of this.tokens) this.slots(token).forEach((slot, i) => {
      for (const [e, weight] of this.choices(token, i)) {
        rows.push({position: token.position, part: token.part, text: token.text, module: slot.module, expert: this.experts[e], weight});
      }
    });
    return rows;
  }
}

const groupOf = slot => (slot.encoder ? "encoder " : "") + slot.kind;

export function dominant(shares) {
  let best = -1;
  shares.forEach((x, e) => { if (x > 0 && (best < 0 || x > shares[best])) best = e; });
  return best;
}

// The answer as tinted tokens; what the trace does not cover yet (or a stop cut off) stays plain.
export function paintAnswer(node, text, trace, colours, other, onSelect) {
  const tokens = trace.answer(), spans = [];
  const others = other?.answer() ?? [];
  let at = 0;
  for (const [i, token] of tokens.entries()) {
    if (at >= text.length) break;
    // Bytes of half a character come as one token's text later; a leading space may be cut from the answer.
    let piece = token.text;
    if (!text.startsWith(piece, at)) {
      piece = piece.trimStart();
      if (!text.startsWith(piece, at)) break;
    }
    piece = text.slice(at, at + piece.length);
    at += piece.length;
    const e = dominant(token.shares), span = element("span", {className: "token", textContent: piece});
    if (e >= 0) {
      span.style.backgroundColor = colours.tint(trace.experts[e], token.shares[e]);
      if (piece.trim()) span.dataset.letter = colours.letter(trace.experts[e]);
      span.title = `${trace.experts[e]} ${percent(token.shares[e])}`;
    }
    const twin = others[i];
    if (twin && twin.id === token.id && dominant(twin.shares) !== e) span.classList.add("differs");
    span.addEventListener("pointerenter", () => onSelect(token));
    span.addEventListener("click", () => onSelect(token));
    spans.push(span);
    token.span = span;
  }
  node.classList.add("traced");
  node.replaceChildren(...spans, text.slice(at));
}

// The panel: details of the selected token, heat maps of one trace.
export class TraceView {
  constructor() {
    this.byId = id => document.getElementById(id);
    this.trace = null;
    this.byEntropy = false;
    for (const [id, on] of [["by-expert", false], ["by-entropy", true]]) {
      this.byId(id).addEventListener("click", () => {
        this.byEntropy = on;
        this.byId("by-expert").setAttribute("aria-pressed", String(!on));
        this.byId("by-entropy").setAttribute("aria-pressed", String(on));
        this.byId("entropy-key").hidden = !on;
        this.paintMaps();
      });
    }
    this.byId("with-prompt").addEventListener("change", () => this.layOut());
    const pen = this.byId("scale").getContext("2d");
    VIRIDIS.forEach((colour, i) => {
      pen.fillStyle = colour;
      pen.fillRect(i * 9.6, 0, 10, 10);
    });
    addEventListener("resize", () => this.paintMaps());
  }

  // null: nothing to show.
  show(trace, colours) {
    this.trace = trace && trace.tokens.length ? trace : null;
    this.colours = colours;
    this.byId("trace").hidden = !this.trace;
    if (!this.trace) return;
    const answer = this.trace.answer();
    this.selected = answer.length ? answer[0] : this.trace.tokens[0];
    const k = Math.max(...this.trace.tokens.map(token => token.k));
    this.mostBits = Math.log2(Math.max(2, k));
    this.byId("most-bits").textContent = this.mostBits.toFixed(1);
    this.layOut();
  }

  select(token) {
    if (!this.trace || !this.trace.tokens.includes(token)) return false;
    this.selected?.span?.classList.remove("chosen");
    this.selected = token;
    this.paint();
    return true;
  }
  // The next token of the running text, for arrow keys.
  step(by) {
    if (!this.trace) return;
    const tokens = this.shown(), at = Math.max(0, tokens.indexOf(this.selected));
    this.select(tokens[Math.min(tokens.length - 1, Math.max(0, at + by))]);
  }
  shown() {
    const answer = this.trace.answer();
    return this.byId("with-prompt").checked || answer.length === 0 ? this.trace.tokens : answer;
  }

  layOut() {
    if (!this.trace) return;
    this.maps = [];
    this.byId("maps").replaceChildren();
    for (const group of this.trace.groups()) {
      const tokens = this.shown().filter(token => this.trace.slots(token).some(slot => groupOf(slot) === group));
      if (!tokens.length) continue;
      const layers = [...new Set(this.trace.slots(tokens[0]).filter(slot => groupOf(slot) === group).map(slot => slot.layer))].sort((a, b) => a - b);
      const canvas = element("canvas", {tabIndex: 0});
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${group}: ${layers.length} layers by ${tokens.length} tokens`);
      const map = {group, tokens, layers, canvas, x: 0, y: 0};
      this.#listen(map);
      this.maps.push(map);
      this.byId("maps").append(element("figure", {className: "map"}, element("figcaption", {textContent: `${group} (layer ${layers[0]} at the bottom)`}),
        element("div", {className: "scroll"}, canvas)));
    }
    this.paint();
  }

  #listen(map) {
    const move = (x, y) => {
      map.x = Math.min(map.tokens.length - 1, Math.max(0, x));
      map.y = Math.min(map.layers.length - 1, Math.max(0, y));
      const token = map.tokens[map.x], pairs = this.#cell(map, token, map.layers[map.y]);
      this.byId("cell").textContent = `Layer ${map.layers[map.y]}, ${map.group}, “${visible(token.text).trim()}”: ` +
        pairs.map(([e, w]) => `${this.trace.experts[e]} (${this.colours.letter(this.trace.experts[e])}) ${w.toFixed(3)}`).join(", ");
      this.select(token);
    };
    map.canvas.addEventListener("pointermove", event => {
      const box = map.canvas.getBoundingClientRect();
      move(Math.floor((event.clientX - box.left) / box.width * map.tokens.length),
        map.layers.length - 1 - Math.floor((event.clientY - box.top) / box.height * map.layers.length));
    });
    map.canvas.addEventListener("keydown", event => {
      const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
      if (!by) return;
      event.preventDefault();
      move(map.x + by[0], map.y + by[1]);
    });
  }

  #cell(map, token, layer) {
    const i = this.trace.slots(token).findIndex(slot => slot.layer === layer && groupOf(slot) === map.group);
    return i < 0 ? [] : this.trace.choices(token, i);
  }

  paint() {
    this.selected?.span?.classList.add("chosen");
    this.#paintTable();
    this.paintMaps();
  }

  #paintTable() {
    const token = this.selected, {trace, colours} = this;
    this.byId("token-title").textContent = `Choices of “${visible(token.text).trim() || token.text}” (position ${token.position}, ${token.part})`;
    const slots = trace.slots(token), groups = [...new Set(slots.map(groupOf))];
    const layers = [...new Set(slots.map(slot => slot.layer))].sort((a, b) => a - b);
    const body = element("tbody");
    for (const layer of layers) {
      const row = element("tr", {}, element("th", {textContent: layer, scope: "row"}));
      for (const group of groups) {
        const pairs = this.#cell({group}, token, layer);
        const cell = element("td", {textContent: pairs.slice(0, 2).map(([e, w]) => `${colours.letter(trace.experts[e])} ${w.toFixed(2)}`).join("  ")});
        cell.title = pairs.map(([e, w]) => `${trace.experts[e]} ${w.toFixed(4)}`).join("\n");
        if (pairs.length) cell.style.backgroundColor = colours.tint(trace.experts[pairs[0][0]], pairs[0][1]);
        row.append(cell);
      }
      body.append(row);
    }
    const head = element("tr", {}, element("th", {textContent: "layer"}), ...groups.map(group => element("th", {textContent: group, scope: "col"})));
    this.byId("token-table").replaceChildren(element("table", {}, element("thead", {}, head), body));
  }

  paintMaps() {
    if (!this.trace) return;
    for (const {group, tokens, layers, canvas} of this.maps) {
      const room = canvas.parentElement.clientWidth - 2;
      const width = Math.max(5, Math.min(20, Math.floor(room / tokens.length))), height = layers.length > 12 ? 5 : 12;
      canvas.width = width * tokens.length;
      canvas.height = height * layers.length;
      const pen = canvas.getContext("2d");
      tokens.forEach((token, x) => layers.forEach((layer, y) => {
        const pairs = this.#cell({group}, token, layer);
        if (!pairs.length) return;
        const entropy = pairs.reduce((h, [, w]) => h - w * Math.log2(w), 0);
        pen.fillStyle = this.byEntropy ? VIRIDIS[Math.min(VIRIDIS.length - 1, Math.floor(entropy / this.mostBits * VIRIDIS.length))]
          : this.colours.tint(this.trace.experts[pairs[0][0]], pairs[0][1] * 1.25);
        pen.fillRect(x * width, canvas.height - (y + 1) * height, width, height);
      }));
      const column = tokens.indexOf(this.selected);
      if (column < 0) continue;
      pen.strokeStyle = getComputedStyle(document.body).color;
      pen.lineWidth = 1.5;
      pen.strokeRect(column * width + .75, .75, width - 1.5, canvas.height - 1.5);
    }
  }

  text(kind) {
    const rows = this.trace.rows();
    if (kind === "json") return JSON.stringify(rows);
    const quoted = value => typeof value === "number" ? value : `"${String(value).replace(/"/g, '""')}"`;
    return ["position,part,text,module,expert,weight", ...rows.map(row => Object.values(row).map(quoted).join(","))].join("\n");
  }
}
