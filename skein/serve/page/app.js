// The page: wires conversations, models, experts and the trace together.
import * as api from "./api.js";
import {PaneView, ask} from "./chat.js";
import {ExpertColours, element, percent} from "./colours.js";
import {History} from "./history.js";
import {Settings} from "./settings.js";
import {TraceView} from "./trace.js";

const byId = id => document.getElementById(id);
const EXAMPLES = [
  "Is this review positive or negative? “The plot is thin, but I could not stop watching.”",
  "How many grams are 3.5 kilograms?",
  "What kind of question is this: “Who painted the ceiling of the Sistine Chapel?”",
];

const history = new History(), settings = new Settings(), traceView = new TraceView();
let models = [], chat = history.chats[0] ?? history.start(), focused = 0, running = null, shownAnswer = null;
const colours = new ExpertColours();
const switchedOff = new Set();  // names of experts

// --- theme ---
function setTheme(theme, keep) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  if (keep) localStorage.setItem("skein.theme", theme);
  redraw();
}
const preference = matchMedia("(prefers-color-scheme: dark)");
byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark", true));
preference.addEventListener("change", () => { if (!localStorage.getItem("skein.theme")) setTheme(preference.matches ? "dark" : "light"); });

// --- models ---
const modelOf = pane => models.find(model => model.id === byId(`model-${pane}`).value) ?? models[0];
const numPanes = () => byId("compare").checked ? 2 : 1;

function fillModels() {
  for (const pane of [0, 1]) {
    const select = byId(`model-${pane}`), wanted = localStorage.getItem(`skein.model-${pane}`) ?? select.value;
    select.replaceChildren();
    for (const [kind, label] of [["base", "Base"], ["router", "Routers: every token picks its experts"], ["expert", "One expert"], ["mixture", "Mixtures"]]) {
      const members = models.filter(model => model.kind === kind);
      if (!members.length) continue;
      const group = element("optgroup", {label});
      for (const model of members) group.append(element("option", {value: model.id, textContent: model.id, title: model.description}));
      select.append(group);
    }
    const first = models.find(model => model.id === "skein/phatgoose") ?? models.find(model => model.kind === "router") ?? models[0];
    const fallback = pane === 0 ? first : models[0];
    select.value = models.some(model => model.id === wanted) ? wanted : fallback.id;
  }
  modelChanged();
}

function modelChanged() {
  for (const pane of [0, 1]) localStorage.setItem(`skein.model-${pane}`, byId(`model-${pane}`).value);
  const model = modelOf(focused);
  byId("model-note").textContent = model ? `${model.description}${model.chat ? "" : "; without a chat template it goes on from your text"}` : "";
  byId("second").hidden = numPanes() < 2;
  panes[1].section.hidden = numPanes() < 2;
  panes.forEach((pane, i) => { pane.title.textContent = modelOf(i)?.id ?? ""; });
  showExperts();
}

// --- experts ---
function showExperts() {
  const trace = shownAnswer?.trace?.tokens ? shownAnswer.trace : null;
  const names = trace ? trace.experts : modelOf(focused)?.experts ?? [];
  const total = trace?.total();
  colours.learn(names);
  byId("share-note").textContent = total ? "(share of the answer; the tick is chance)" : "";
  const isRouter = modelOf(focused)?.kind === "router";
  byId("experts").replaceChildren();
  const order = total ? [...names.keys()].sort((a, b) => total[b] - total[a]) : [...names.keys()];
  for (const e of order) {
    const box = element("input", {type: "checkbox", checked: !switchedOff.has(names[e]), disabled: !isRouter});
    box.dataset.expert = names[e];
    box.setAttribute("aria-label", `${names[e]} may be chosen`);
    box.addEventListener("change", () => {
      box.checked ? switchedOff.delete(names[e]) : switchedOff.add(names[e]);
      showExperts();
      // The list is new: the keyboard stays where it was.
      [...byId("experts").querySelectorAll("input")].find(input => input.dataset.expert === names[e])?.focus();
    });
    const name = element("span", {className: "name", textContent: names[e], title: names[e]});
    const item = element("label", {}, box, colours.swatch(names[e]), name, element("span", {textContent: total ? percent(total[e]) : ""}));
    if (total) {
      const bar = element("div", {className: "bar"}), fill = element("i"), tick = element("b");
      fill.style.width = `${100 * total[e]}%`;
      fill.style.background = colours.colour(names[e]);
      tick.style.left = `${100 / names.length}%`;
      bar.append(fill, tick);
      item.append(bar);
    }
    byId("experts").append(element("li", {className: switchedOff.has(names[e]) ? "off" : ""}, item));
  }
  byId("resend-without").hidden = !isRouter || !chat.turns.length || !names.length;
  byId("resend-without").disabled = Boolean(running);
  byId("trace-note").hidden = Boolean(trace) || names.length === 0;
}

function routerChanges(model) {
  if (model.kind !== "router") return null;
  const without = model.experts.filter(name => switchedOff.has(name));
  return without.length ? {without} : null;
}

// --- turns ---
function emptyPane(isFirst) {
  const box = element("div", {className: "empty"}, element("h2", {textContent: isFirst ? "Ask, and see which experts answer" : "The second model answers here"}));
  if (!isFirst) return box;
  const examples = element("div", {className: "examples"});
  for (const text of EXAMPLES) {
    const button = element("button", {type: "button", textContent: text});
    button.addEventListener("click", () => send(text));
    examples.append(button);
  }
  box.append(examples);
  return box;
}

async function send(text) {
  if (running || !text.trim() || !models.length) return;
  const turn = {user: text, answers: []};
  chat.turns.push(turn);
  if (!chat.title) chat.title = text.trim().slice(0, 60);
  byId("input").value = "";
  await answer(turn);
}

async function answer(turn) {
  const stop = new AbortController();
  running = stop;
  const turns = chat.turns.slice(0, chat.turns.indexOf(turn) + 1);
  turn.answers = [...Array(numPanes()).keys()].map(pane => ({model: modelOf(pane).id, text: "", isRunning: true}));
  shownAnswer = turn.answers[Math.min(focused, turn.answers.length - 1)];
  setBusy(true);
  redraw();
  // Two panes are two requests at once: the server batches them.
  await Promise.all(turn.answers.map((answer, pane) => {
    let isDue = false;
    return ask({
      turns, pane, answer, settings, model: modelOf(pane), router: routerChanges(modelOf(pane)),
      wantsTrace: byId("wants-trace").checked, signal: stop.signal,
      onChange: () => {  // at most once a frame
        if (isDue) return;
        isDue = true;
        setTimeout(() => {
          isDue = false;
          if (answer.trace) colours.learn(answer.trace.experts);
          panes[pane].update(answer);
        }, 16);
      },
    });
  }));
  running = null;
  setBusy(false);
  look();
  orderColours();
  const problem = turn.answers.find(answer => answer.problem);
  if (problem?.status === 401) askKey();
  if (!history.save()) byId("chats-note").textContent = "This browser has no room for all chats; older ones are not kept.";
  redraw();
}

// The experts with the most weight in what was just written get the first colours, and keep them in every view.
function orderColours() {
  const trace = shownAnswer?.trace?.tokens ? shownAnswer.trace : null, total = trace?.total();
  if (total) colours.order([...trace.experts.keys()].sort((a, b) => total[b] - total[a]).map(e => trace.experts[e]));
}

function setBusy(isBusy) {
  byId("send").disabled = isBusy || !models.length;
  byId("stop").disabled = !isBusy;
  byId("resend").disabled = isBusy || !chat.turns.length;
  if (!isBusy) byId("input").focus({preventScroll: true});
}

const panes = [...document.querySelectorAll(".pane")].map((section, index) => new PaneView(section, index, {
  onToken: (answer, token) => {
    if (answer !== shownAnswer) showAnswer(answer);
    traceView.select(token);
  },
  onFocus: focus,
  onCopy: copy,
}));

function focus(index) {
  if (index === focused) return;
  focused = index;
  const last = chat.turns.at(-1)?.answers[focused];
  if (last) showAnswer(last);
  modelChanged();
  markFocus();
}
function markFocus() {
  panes.forEach((pane, i) => pane.section.classList.toggle("focused", i === focused && numPanes() > 1));
}
function showAnswer(answer) {
  shownAnswer = answer;
  showExperts();
  traceView.show(answer?.trace?.tokens ? answer.trace : null, colours);
}

function redraw() {
  if (!shownAnswer || !chat.turns.some(turn => turn.answers.includes(shownAnswer))) shownAnswer = chat.turns.at(-1)?.answers[focused] ?? chat.turns.at(-1)?.answers[0] ?? null;
  showExperts();
  panes.forEach((pane, i) => pane.show(chat, colours, () => emptyPane(i === 0)));
  traceView.show(shownAnswer?.trace?.tokens ? shownAnswer.trace : null, colours);
  markFocus();
  showChats();
  byId("resend").disabled = Boolean(running) || !chat.turns.length;
}

// --- conversations ---
function showChats() {
  byId("chats").replaceChildren();
  for (const entry of history.chats) {
    if (!entry.turns.length && entry !== chat) continue;
    const open = element("button", {type: "button", className: "open", textContent: entry.title || "New chat"});
    open.setAttribute("aria-current", String(entry === chat));
    open.addEventListener("click", () => openChat(entry));
    const remove = element("button", {type: "button", className: "delete", textContent: "✕", title: "Delete this chat"});
    remove.setAttribute("aria-label", `Delete ${entry.title || "this chat"}`);
    remove.addEventListener("click", () => {
      if (running) return;
      history.remove(entry.id);
      if (entry === chat) openChat(history.chats[0] ?? history.start());
      else showChats();
    });
    byId("chats").append(element("li", {}, open, remove));
  }
}
function openChat(entry) {
  if (running) return;
  chat = entry;
  shownAnswer = null;
  closeDrawers();
  setBusy(false);
  redraw();
}
byId("new-chat").addEventListener("click", () => openChat(history.chats.find(entry => !entry.turns.length) ?? history.start()));

// --- controls ---
byId("send").addEventListener("click", () => send(byId("input").value));
byId("stop").addEventListener("click", () => running?.abort());
function resend() {
  const turn = chat.turns.at(-1);
  if (!running && turn) answer(turn);
}
byId("resend").addEventListener("click", resend);
byId("resend-without").addEventListener("click", () => { closeDrawers(); resend(); });
byId("input").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send(byId("input").value);
});
addEventListener("keydown", event => {
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape") {
    closeDrawers();
    running?.abort();
  } else if (event.key === "/" && !isTyping) {
    event.preventDefault();
    byId("input").focus();
  } else if (event.target.closest?.(".turns, #token-table")) {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step) return;
    event.preventDefault();
    traceView.step(step);
  }
});
for (const pane of [0, 1]) byId(`model-${pane}`).addEventListener("change", () => { focus(pane); modelChanged(); });
byId("compare").addEventListener("change", () => {
  if (numPanes() < 2) focus(0);
  modelChanged();
  redraw();
});
for (const [button, part] of [["open-history", "history"], ["open-panel", "panel"]]) {
  byId(button).addEventListener("click", () => {
    const isOpen = byId(part).classList.contains("open");
    closeDrawers();
    byId(part).classList.toggle("open", !isOpen);
    byId(button).setAttribute("aria-expanded", String(!isOpen));
    traceView.paintMaps();
  });
}
function closeDrawers() {
  for (const part of ["history", "panel"]) {
    byId(part).classList.remove("open");
    byId(`open-${part}`).setAttribute("aria-expanded", "false");
  }
}
document.querySelector("main").addEventListener("pointerdown", closeDrawers);

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say(`Copied ${text.length.toLocaleString()} characters.`);
  } catch {
    say("This browser did not allow copying.");
  }
}
byId("copy-csv").addEventListener("click", () => copy(traceView.text("csv")));
byId("copy-json").addEventListener("click", () => copy(traceView.text("json")));

// --- the server ---
let said = 0;
function say(text) {
  byId("status").textContent = text;
  said = Date.now();
}
function banner(text) {
  byId("banner").textContent = text;
  byId("banner").hidden = !text;
}
function askKey() {
  byId("key").value = "";
  if (!byId("key-dialog").open) byId("key-dialog").showModal();
}
function useKey() {
  api.setApiKey(byId("key").value.trim());
  byId("key-dialog").close();
  loadModels();
}
byId("key-ok").addEventListener("click", useKey);
byId("key").addEventListener("keydown", event => { if (event.key === "Enter") useKey(); });

async function loadModels() {
  try {
    models = await api.models();
    banner("");
    fillModels();
    say("");
    setBusy(Boolean(running));
    redraw();
  } catch (problem) {
    if (problem.status === 401) askKey();
    else banner(`${problem.message} What you wrote is kept; trying again.`);
  }
}

async function look() {
  try {
    const {running: busy, waiting} = await api.ready();
    if (!byId("banner").hidden || !models.length) await loadModels();
    if (Date.now() - said > 4000) byId("status").textContent = `${busy} answering · ${waiting} waiting`;
  } catch (problem) {
    banner(problem.status === 503 ? "The server is stopping." : "The server does not answer. What you wrote is kept; trying again.");
  }
}
async function lookAfter() {
  await look();
  setTimeout(lookAfter, 3000);
}

setTheme(localStorage.getItem("skein.theme") ?? (preference.matches ? "dark" : "light"));
say("Loading the models…");
await loadModels();
lookAfter();
