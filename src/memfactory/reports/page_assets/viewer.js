// The rollout viewer. Texts of models reach the page through textContent only: none is ever read as HTML.

const GROUPS_AT_ONCE = 60;
const state = { rollouts: [], groups: new Map(), shown: [], limit: GROUPS_AT_ONCE, current: null, side: false, lowest: 0, highest: 1 };

async function load() {
  const coded = atob(document.getElementById("data").textContent.trim());
  const bytes = Uint8Array.from(coded, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function start(data) {
  setUpCharts(data.charts);
  state.rollouts = data.rollouts;
  state.runs = data.runs;
  for (const { reward } of data.rollouts) if (reward !== undefined) {
    state.lowest = Math.min(state.lowest, reward);
    state.highest = Math.max(state.highest, reward);
  }
  data.rollouts.forEach((rollout, id) => {
    rollout.id = id;
    if (!state.groups.has(rollout.group)) state.groups.set(rollout.group, []);
    state.groups.get(rollout.group).push(rollout);
  });
  const form = document.getElementById("filters");
  if (!form) return;
  fillFilters(form);
  let timer;
  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(filter, 120); });
  form.addEventListener("submit", (event) => { event.preventDefault(); filter(); });
  form.addEventListener("reset", () => setTimeout(filter));
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j") step(1);
    if (event.key === "k") step(-1);
  });
  addEventListener("hashchange", openFromAddress);
  filter();
  if (!openFromAddress() && state.shown.length) showRollout(state.shown[0].matching[0]);
}

function openFromAddress() {
  const match = location.hash.match(/^#rollout-(\d+)$/);
  const wanted = match && state.rollouts[Number(match[1])];
  if (wanted && wanted !== state.current) showRollout(wanted);
  return Boolean(wanted);
}

// --- filters ---------------------------------------------------------------------------------------------------

function fillFilters(form) {
  const values = (get) => [...new Set(state.rollouts.flatMap(get))].filter((value) => value !== undefined && value !== "");
  const fill = (name, found, label = String) => {
    const select = form.elements[name];
    select.append(new Option("any", ""), ...found.map((value) => new Option(label(value), value)));
    select.closest("label").hidden = found.length < 2;
    select.closest("label").style.display = found.length < 2 ? "none" : "";
  };
  fill("run", values((rollout) => [rollout.run]));
  fill("source", values((rollout) => [rollout.source]));
  fill("step", values((rollout) => [rollout.step]).sort((a, b) => a - b));
  fill("set", values((rollout) => [rollout.set]));
  fill("module", values((rollout) => rollout.calls.map((call) => call.module)));
  document.getElementById("tasks").append(...values((rollout) => [rollout.task]).map((task) => new Option(task)));
}

function filter() {
  const wanted = Object.fromEntries(new FormData(document.getElementById("filters")));
  const text = wanted.text.trim().toLowerCase();
  const low = wanted.low === "" ? -Infinity : Number(wanted.low), high = wanted.high === "" ? Infinity : Number(wanted.high);
  const limited = wanted.low !== "" || wanted.high !== "";
  const fits = (rollout) =>
    (!wanted.run || rollout.run === wanted.run) &&
    (!wanted.source || rollout.source === wanted.source) &&
    (!wanted.step || String(rollout.step) === wanted.step) &&
    (!wanted.set || rollout.set === wanted.set) &&
    (!wanted.module || rollout.calls.some((call) => call.module === wanted.module)) &&
    (!wanted.task || rollout.task.includes(wanted.task)) &&
    (!limited || (rollout.reward !== undefined && rollout.reward >= low && rollout.reward <= high)) &&
    (!text || holds(rollout, text));
  state.shown = [];
  let count = 0;
  for (const members of state.groups.values()) {
    const matching = members.filter(fits);
    if (!matching.length) continue;
    count += matching.length;
    state.shown.push({ members, matching });
  }
  const rewards = (group) => group.matching.map((rollout) => rollout.reward ?? 0);
  const spread = (group) => {
    const all = group.members.map((rollout) => rollout.reward ?? 0);
    return Math.max(...all) - Math.min(...all);
  };
  if (wanted.order === "spread") state.shown.sort((a, b) => spread(b) - spread(a));
  if (wanted.order === "low") state.shown.sort((a, b) => Math.min(...rewards(a)) - Math.min(...rewards(b)));
  if (wanted.order === "high") state.shown.sort((a, b) => Math.max(...rewards(b)) - Math.max(...rewards(a)));
  state.limit = GROUPS_AT_ONCE;
  document.getElementById("count").textContent =
    `${number(count)} of ${number(state.rollouts.length)} rollouts, in ${number(state.shown.length)} groups` +
    " · keys j and k move";
  showList();
}

function holds(rollout, text) {
  const has = (value) => typeof value === "string" && value.toLowerCase().includes(text);
  return has(rollout.question) || has(rollout.reply) || has(rollout.error) || has(rollout.task) || rollout.golds.some(has) ||
    rollout.calls.some((call) => has(call.prompt) || has(call.reply) || has(call.memory));
}

// --- list ------------------------------------------------------------------------------------------------------

function where(rollout) {
  const parts = state.runs.length > 1 ? [rollout.run] : [];
  parts.push(rollout.source);
  if (rollout.source === "training") parts.push(`step ${rollout.step}`);
  if (rollout.set) parts.push(rollout.set);
  return parts.join(" · ");
}

function chip(rollout, label, out = false) {
  const button = make("button", out ? "chip out" : "chip", label);
  button.type = "button";
  button.style.setProperty("--reward", colourOf(rollout.reward));
  button.setAttribute("aria-current", String(rollout === state.current));
  button.addEventListener("click", () => showRollout(rollout));
  return button;
}

function colourOf(reward) {
  if (reward === undefined) return "var(--line)";
  const share = (reward - state.lowest) / (state.highest - state.lowest);
  return `color-mix(in oklab, var(--good) ${Math.round(100 * share)}%, var(--bad))`;
}

function showList() {
  const list = document.getElementById("list");
  const groups = state.shown.slice(0, state.limit).map(({ members, matching }) => {
    const first = members[0];
    const chips = members.map((rollout) =>
      chip(rollout, rollout.error ? "failed" : rollout.reward === undefined ? `#${rollout.index}` : number(rollout.reward), !matching.includes(rollout)));
    const group = make(
      "div", "group", make("div", "where", `${where(first)} · ${first.task}`),
      make("div", "question", first.question || "(no question)"), make("div", "chips", ...chips),
    );
    if (state.current && members.includes(state.current)) group.classList.add("open");
    return group;
  });
  if (!groups.length) groups.push(make("div", "empty", "No rollout fits these filters."));
  const left = state.shown.length - state.limit;
  if (left > 0) {
    const more = make("button", "more", `Show ${Math.min(left, GROUPS_AT_ONCE)} more of ${number(left)}`);
    more.type = "button";
    more.addEventListener("click", () => { state.limit += GROUPS_AT_ONCE; showList(); });
    groups.push(more);
  }
  list.replaceChildren(...groups);
}

function step(by) {
  const all = state.shown.flatMap((group) => group.matching);
  const next = all[all.indexOf(state.current) + by];
  if (!next) return;
  const group = state.shown.findIndex((candidate) => candidate.matching.includes(next));
  if (group >= state.limit) state.limit = group + 1;
  showRollout(next);
  document.querySelector(".group.open")?.scrollIntoView({ block: "nearest" });
}

// --- detail ----------------------------------------------------------------------------------------------------

function showRollout(rollout) {
  state.current = rollout;
  history.replaceState(null, "", `#rollout-${rollout.id}`);
  showList();
  const members = state.groups.get(rollout.group);
  const body = state.side && members.length > 1 ? [sideBySide(members)] : callCards(rollout);
  document.getElementById("detail").replaceChildren(header(rollout, members), ...body);
}

function header(rollout, members) {
  const facts = make("dl", "facts");
  const add = (name, value, tone) => { if (value) facts.append(make("dt", "", name), make("dd", tone || "", value)); };
  add("Gold", rollout.golds.join("\n"));
  add("Answer", rollout.reply ?? "");
  add("Failed", rollout.error, "bad");
  const list = (values) => Object.entries(values || {}).map(([name, value]) => `${name} ${number(value)}`).join("  ·  ");
  const tone = rollout.reward >= state.highest ? "good" : rollout.reward <= state.lowest ? "bad" : "";
  if (rollout.reward !== undefined) add(rollout.source === "training" ? "Reward" : "Score", number(rollout.reward), tone);
  add("Components", list(rollout.rewards));
  add("Scores", list(rollout.scores));
  add("Advantage", list(advantages(rollout)));
  add("Operations", list(rollout.operations));
  add("Problems", (rollout.problems || []).join("\n"));
  const card = make(
    "div", "card", make("div", "quiet", `${where(rollout)} · ${rollout.task} · rollout ${rollout.index}`),
    make("h3", "", rollout.question || "(no question)"), facts,
  );
  if (members.length > 1) {
    const chips = members.map((member) => chip(member, `#${member.index} ${member.reward === undefined ? "" : number(member.reward)}`));
    card.append(make("div", "strip", make("span", "", "Rollouts of this group"), make("div", "chips", ...chips)));
  }
  const elsewhere = state.rollouts.filter((other) =>
    other.task === rollout.task && other.set === rollout.set && other.group !== rollout.group &&
    other === state.groups.get(other.group)[0]);
  if (elsewhere.length) {
    const chips = elsewhere.slice(0, 12).map((other) => {
      const rewards = state.groups.get(other.group).map((member) => member.reward).filter((reward) => reward !== undefined);
      const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
      return chip(other, rewards.length ? `${where(other)}: ${number(mean)}` : where(other));
    });
    card.append(make("div", "strip", make("span", "", "The same task elsewhere"), make("div", "chips", ...chips)));
  }
  if (members.length > 1) {
    const tab = (label, side) => {
      const button = make("button", "", label);
      button.type = "button";
      button.setAttribute("aria-pressed", String(state.side === side));
      button.addEventListener("click", () => { state.side = side; showRollout(rollout); });
      return button;
    };
    card.append(make("div", "tabs", tab("Call by call", false), tab("Group side by side", true)));
  }
  return card;
}

function advantages(rollout) {
  const found = {};
  for (const call of rollout.calls) if (call.advantage !== undefined) found[call.module] = call.advantage;
  return found;
}

function withMemory(rollout) {
  let memory = rollout.memory ?? "";
  return rollout.calls.map((call) => {
    const before = memory;
    memory = call.memory ?? memory;
    return { ...call, before, after: memory };
  });
}

function callCards(rollout) {
  return withMemory(rollout).map((call, index) => {
    const counts = [call.prompt_tokens, call.completion_tokens];
    const tokens = counts.every((count) => count == null) ? null : `${counts.map((count) => (count == null ? "–" : number(count))).join(" + ")} tokens`;
    const head = make("div", "call-head", make("b", "", `${index + 1} ${call.module}`), tokens && make("span", "", tokens));
    if (call.finish === "length") head.append(make("span", "bad", "cut at its limit"));
    if (call.advantage !== undefined)
      head.append(make("span", call.advantage > 0 ? "good" : call.advantage < 0 ? "bad" : "", `advantage ${call.advantage > 0 ? "+" : ""}${number(call.advantage)}`));
    const card = make("div", "card call", head);
    if (call.memory !== undefined) card.append(...memoryDifference(call.before, call.after));
    if (call.reply !== undefined && call.reply !== call.memory) card.append(make("div", "label", "Reply"), make("div", "text reply", call.reply));
    if (call.prompt !== undefined) {
      const prompt = make("details", "", make("summary", "", "Prompt"));
      prompt.addEventListener("toggle", () => { if (prompt.open && prompt.childElementCount === 1) prompt.append(make("div", "text prompt", call.prompt)); });
      card.append(prompt);
    }
    return card;
  });
}

function memoryDifference(before, after) {
  if (before === after) return [make("div", "label", "Memory, not changed"), make("div", "text same", after || "(empty)")];
  const segments = difference(before, after);
  const side = (kind, empty) => {
    const parts = segments.filter((segment) => segment[0] === "same" || segment[0] === kind)
      .map(([what, text]) => (what === "same" ? text : make(what, "", text)));
    return make("div", "text", ...(parts.length ? parts : [empty]));
  };
  return [make(
    "div", "memory", make("div", "", make("div", "label", "Memory before"), side("del", "(empty)")),
    make("div", "", make("div", "label", "Memory after"), side("ins", "(empty)")),
  )];
}

function sideBySide(members) {
  const columns = members.map(withMemory);
  const head = make("tr", "", make("th"), ...members.map((member) => {
    const cell = make("th", "", chip(member, `#${member.index}${member.reward === undefined ? "" : ` reward ${number(member.reward)}`}`));
    const credit = Object.entries(advantages(member));
    const same = credit.every(([, value]) => value === credit[0][1]);
    const said = same ? credit.slice(0, 1).map(([, value]) => number(value)) : credit.map(([module, value]) => `${module} ${number(value)}`);
    if (credit.length) cell.append(make("div", "quiet", `advantage ${said.join(" · ")}`));
    return cell;
  }));
  const row = (title, cells) => {
    const heading = make("th", "", title);
    heading.scope = "row";
    return make("tr", "", heading, ...cells.map((cell) => make("td", "", cell)));
  };
  const rows = [];
  for (let index = 0; index < Math.max(...columns.map((calls) => calls.length)); index++) {
    const module = columns.map((calls) => calls[index]?.module).find(Boolean);
    rows.push(row(`${index + 1} ${module}`, columns.map((calls) => sideCell(calls[index]))));
  }
  rows.push(row("answer", members.map((member) => make("div", "text", member.error ? `failed: ${member.error}` : member.reply ?? ""))));
  return make("div", "card", make("div", "side", make("table", "", make("thead", "", head), make("tbody", "", ...rows))));
}

function sideCell(call) {
  if (!call) return "";
  if (call.memory === undefined) return make("div", "text", call.reply ?? "");
  const parts = difference(call.before, call.after).map(([kind, text]) => (kind === "same" ? text : make(kind, "", text)));
  return make("div", "text", ...(parts.length ? parts : ["(empty)"]));
}

setUpTheme();
load().then(start, (error) => {
  const count = document.getElementById("count");
  if (count) count.textContent = "The rollouts in this file cannot be read; was the file cut off?";
  console.error(error);
});
