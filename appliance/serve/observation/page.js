"use strict";
// Texts of models and of the gateway become text nodes, never markup.
const at = (id) => document.getElementById(id);
const levels = { E4: "sealed by the kernel", E2: "sealed in memory", E1: "checked at the start" };
const networks = { netns: "none at all", none: "not isolated" };
const waits = ["starting", "loading", "unloaded"];
const messages = [];
let stopping = null;

function add(parent, tag, text, style) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (style) element.className = style;
  parent.append(element);
  return element;
}

function addHeading(row, text) {
  add(row, "th", text).scope = "row";
}

function say(place, text, style) {
  // A status that does not change is not read aloud again.
  if (place.textContent !== text) place.textContent = text;
  place.className = style || "";
}

async function call(path, options) {
  const headers = { authorization: `Bearer ${at("key").value.trim()}`, "content-type": "application/json" };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const error = (await response.json()).error;
  const later = response.headers.get("retry-after");
  const isStated = error.message.includes("Try again");
  throw new Error(later && !isStated ? `${error.message} Try again in ${later} s.` : error.message);
}

function showModel(model) {
  const row = add(at("models"), "tr", "");
  addHeading(row, model.name);
  const style = model.state === "serving" ? "good" : waits.includes(model.state) ? "" : "bad";
  add(row, "td", model.reason ? `${model.state}: ${model.reason}` : model.state, style);
  add(row, "td", levels[model.level] || "–");
  add(row, "td", networks[model.isolation] || "–", model.isolation === "none" ? "bad" : "");
}

async function showState() {
  let status;
  try {
    status = await (await fetch("/readyz")).json();
  } catch {
    say(at("state"), "the gateway does not answer", "bad");
    return;
  }
  const stopped = status.models.filter((model) => model.state === "stopped").length;
  const more = stopped ? `; stopped: ${stopped} of ${status.models.length}` : "";
  say(at("state"), `${status.release} is ${status.ready ? "" : "not "}ready${more}`, status.ready && !stopped ? "good" : "bad");
  at("models").replaceChildren();
  status.models.forEach(showModel);
  const names = status.models.filter((model) => !model.embedding && !model.task).map((model) => model.name);
  const shown = [...at("model").options].map((option) => option.value);
  if (names.join("\n") !== shown.join("\n")) {
    const chosen = at("model").value;
    at("model").replaceChildren();
    names.forEach((name) => add(at("model"), "option", name));
    if (names.includes(chosen)) at("model").value = chosen;
  }
}

function showDigests(response) {
  const details = add(at("talk"), "details", "");
  add(details, "summary", "What made this answer");
  const list = add(details, "dl", "");
  for (const name of ["release", "model", "template", "engine", "policy", "level", "isolation"]) {
    add(list, "dt", name);
    add(list, "dd", response.headers.get(`appliance-${name}`) || "–");
  }
}

async function readStream(response, show) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", isComplete = false;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") isComplete = true;
      if (!line.startsWith("data: ") || isComplete) continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      show(event.choices?.[0]?.delta?.content ?? "");
    }
  }
  if (!isComplete) throw new Error("The answer broke off.");
}

async function ask(question) {
  messages.push({ role: "user", content: question });
  const asked = add(at("talk"), "p", "", "asked");
  add(asked, "span", "You asked: ", "aside");
  add(asked, "span", question);
  const place = add(at("talk"), "p", "…");
  let answer = "";
  const show = (text) => { answer += text; place.textContent = answer || "…"; };
  stopping = new AbortController();
  try {
    const body = JSON.stringify({ model: at("model").value, messages, stream: true });
    const response = await call("/v1/chat/completions", { method: "POST", body, signal: stopping.signal });
    await readStream(response, show);
    showDigests(response);
  } catch (error) {
    const text = error.name === "AbortError" ? "Stopped." : error.message;
    if (!answer) place.remove();
    add(at("talk"), "p", text, error.name === "AbortError" ? "muted" : "bad");
  }
  // What was not answered is no part of the conversation.
  if (answer) messages.push({ role: "assistant", content: answer });
  else messages.pop();
}

function setBusy(isBusy) {
  // While it is busy, a screen reader waits; then it reads the answer as a whole.
  at("talk").setAttribute("aria-busy", String(isBusy));
  at("stop").disabled = !isBusy;
  if (isBusy) at("stop").focus();
  at("send").disabled = at("clear").disabled = isBusy;
}

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (!question || !at("stop").disabled) return;
  at("question").value = "";
  setBusy(true);
  await ask(question);
  setBusy(false);
  at("question").focus();
});

at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("form").requestSubmit();
});

at("stop").addEventListener("click", () => stopping?.abort());

at("clear").addEventListener("click", () => {
  messages.length = 0;
  at("talk").replaceChildren();
  at("question").focus();
});

const show = (number) => number.toLocaleString("en");

function describeLimits(usage) {
  const tokens = usage.tokens_per_day === null
    ? "No limit of tokens for a day."
    : `${show(usage.tokens_left)} of ${show(usage.tokens_per_day)} tokens are left today, until midnight UTC.`;
  return usage.concurrency === null ? tokens : `${tokens} At most ${show(usage.concurrency)} pieces of work at once.`;
}

at("show-usage").addEventListener("click", async () => {
  at("usage-table").hidden = true;
  if (!at("key").value.trim()) {
    say(at("usage-state"), "Type your key above first.", "bad");
    at("key").focus();
    return;
  }
  try {
    const usage = await (await call("/v1/usage")).json();
    at("usage").replaceChildren();
    for (const day of [usage, ...usage.days]) {
      const row = add(at("usage"), "tr", "");
      addHeading(row, day.day);
      for (const count of [day.requests, day.tokens_in, day.tokens_out]) add(row, "td", show(count), "number");
    }
    at("usage-table").hidden = false;
    say(at("usage-state"), describeLimits(usage));
  } catch (error) {
    say(at("usage-state"), error.message, "bad");
  }
});

showState();
setInterval(showState, 10000);
