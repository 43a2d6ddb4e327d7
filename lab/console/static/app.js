// The console's page. Every new state arrives as a server-sent event; each part is rendered to a string and replaced only where it changed.
"use strict";

const token = document.querySelector("meta[name=token]").content;
const $ = (id) => document.getElementById(id);
const escape_ = (value) => String(value ?? "").replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const html = (strings, ...values) =>
  strings.reduce((text, part, i) => text + part + (i < values.length ? (values[i]?.raw ?? escape_(values[i])) : ""), "");
const raw = (text) => ({ raw: Array.isArray(text) ? text.join("") : text });
const clock = (t) => new Date(t * 1000).toISOString().slice(11, 19);
const lasted = (s) => (s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);
const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

function put(id, text) {
  const element = $(id);
  if (element.dataset.shown === text) return;
  element.dataset.shown = text;
  element.innerHTML = text;
}

// verdict

function verdict(state) {
  const open = (state.lab.pages ?? []).filter((page) => page.state === "open" && page.urgent);
  const urgent = open[0];
  const drained = Object.keys(state.routing).filter((name) => state.routing[name] === "off");
  let look = ["good", "All is well", `${count(state.targets.length, "target")} seen up from ${Object.keys(state.matrix).length} vantages; no page is open.`];
  if (!state.lab.now) look = ["waiting", "The lab does not answer", "It is starting, or it has ended."];
  else if (urgent) look = ["bad", urgent.summary, `${count(open.length, "page")} open since ${clock(urgent.opened)}` + (drained.length ? `; drained: ${drained.join(", ")}` : "")];
  else if (!state.lab.deployed) look = ["waiting", "The monitoring is being deployed", "The store is up; canaries and alarms follow."];
  else if (drained.length) look = ["uneasy", `${drained.join(" and ")} ${drained.length > 1 ? "are" : "is"} drained`, "Nobody was paged for it: a drained Region is somebody's intention."];
  else if (state.troubles.length) look = ["uneasy", "Nobody is paged, but not all is green", state.troubles.slice(0, 3).join(" · ") + (state.troubles.length > 3 ? ` · and ${state.troubles.length - 3} more` : "")];
  $("verdict").className = `verdict ${look[0]}`;
  put("verdict", html`<h1>${look[1]}</h1><p title="${look[2]}">${look[2]}</p>`);
  document.title = (open.length ? `(${open.length}) ` : "") + "Crosswatch lab";
}

// matrix

function strip(letters) {
  const runs = [];
  for (let i = 0, from = 0; i <= letters.length; i++)
    if (letters[i] !== letters[from]) {
      if (letters[from] !== " ") runs.push(`<rect class="${letters[from]}" x="${from}" y="0" width="${i - from}" height="10"/>`);
      from = i;
    }
  return `<svg class="strip" viewBox="0 0 ${letters.length} 10" preserveAspectRatio="none" aria-hidden="true">${runs.join("")}</svg>`;
}

function matrix(state) {
  const region = (target) => (target.startsWith("alb-") ? target.slice(4) : null);
  const head = state.targets.map((target) => {
    const name = region(target);
    const routing = name && state.routing[name];
    const pill = routing ? html`<span class="pill ${routing}" title="ARC routing control">${routing === "off" ? "drained" : "routing " + routing}</span>` : "";
    return html`<th scope="col">${raw(pill)}${name ?? "name"}<small>${name ? "load balancer" : "Route 53"}</small></th>`;
  });
  const rows = Object.entries(state.matrix).map(([vantage, row]) => {
    const canary = state.regions[vantage]?.canaries.find((each) => each.name.includes("probe")) ?? state.regions[vantage]?.canaries[0];
    const cells = state.targets.map((target) => {
      const cell = row[target];
      const latency = cell.latency_ms === null ? "" : `${cell.latency_ms < 10 ? cell.latency_ms.toFixed(1) : Math.round(cell.latency_ms)} ms`;
      return html`<td><div class="cell ${cell.state}"><b>${cell.state}</b><span>${latency}</span>${raw(strip(state.history[vantage][target]))}</div></td>`;
    });
    return html`<tr><th scope="row">${vantage}<small>${canary ? "canary " + (canary.last || canary.state).toLowerCase() : "no canary"}</small></th>${raw(cells)}</tr>`;
  });
  const legend = ["up", "degraded", "down", "silent"].map((s) => html`<span><i style="background:var(--${s}-strong)"></i>${s}</span>`).join("");
  put("matrix", html`<table><thead><tr><th scope="col">from</th>${raw(head)}</tr></thead><tbody>${raw(rows)}</tbody></table><div class="legend">${raw(legend)}<span>strips: the last 20 lab minutes</span></div>`);
  put("stored", state.stored_in ? `as ${escape_(state.stored_in)}'s CloudWatch holds it` : "no Region's CloudWatch holds it");
}

// timeline

function timeline(state) {
  const width = Math.max(400, $("timeline").clientWidth), left = 62, right = width - 4, from = state.now - state.window_s;
  const x = (t) => Math.max(left, Math.min(right, left + ((t - from) / state.window_s) * (right - left)));
  const lanes = [
    ["pages", "down", (state.lab.pages ?? []).map((page) => [page.opened, page.resolved, `#${page.number} ${page.summary}`, page.urgent ? "down" : page.severity === "warning" ? "degraded" : "drained"])],
    ["faults", "fault", (state.lab.strikes ?? []).map((each) => [each.since, each.until, each.name + (each.region ? ` in ${each.region}` : ""), "fault"])],
    ["drained", "drained", state.drained.map((each) => [each.since, each.until, each.region, "drained"])],
  ];
  let text = "";
  for (let tick = Math.ceil(from / 300) * 300; tick <= state.now; tick += 300)
    text += `<line x1="${x(tick)}" x2="${x(tick)}" y1="0" y2="112"/><text x="${x(tick)}" y="128" text-anchor="middle">${clock(tick).slice(0, 5)}</text>`;
  lanes.forEach(([name, , bars], lane) => {
    const y = 6 + lane * 36;
    text += `<text x="0" y="${y + 17}">${name}</text>`;
    for (const [since, until, label, colour] of bars) {
      if ((until ?? state.now) < from) continue;
      const a = x(since), b = Math.max(a + 3, x(until ?? state.now)), fits = b - a > 60;
      const shown = label.length > (b - a - 14) / 7 ? label.slice(0, Math.max(0, (b - a - 24) / 7)) + "…" : label;
      text += html`<g><title>${label}: ${clock(since)} – ${until ? clock(until) : "now"}</title><rect x="${a}" y="${y}" width="${b - a}" height="26" rx="5" style="fill:var(--${colour}-strong)" opacity="${until ? 0.55 : 1}"/>${raw(fits ? html`<text class="bar-text ${until ? "past" : ""}" x="${a + 8}" y="${y + 17}">${shown}</text>` : "")}</g>`;
    }
  });
  put("timeline", `<svg viewBox="0 0 ${width} 132">${text}</svg>`);
}

// pages

function seenFrom(cells) {
  const targets = [...new Set(cells.map((cell) => cell.target))], vantages = [...new Set(cells.map((cell) => cell.vantage))];
  const find = (vantage, target) => cells.find((cell) => cell.vantage === vantage && cell.target === target)?.state ?? "";
  return html`<table class="seen"><tr><th>seen from</th>${raw(targets.map((t) => html`<th>${t}</th>`))}</tr>${raw(
    vantages.map((v) => html`<tr><th>${v}</th>${raw(targets.map((t) => html`<td><span class="pill ${find(v, t)}">${find(v, t)}</span></td>`))}</tr>`),
  )}</table>`;
}

function page(each) {
  const sent = each.page;
  const head = html`<header><b>#${each.number}</b><span class="pill ${each.state === "open" ? (["critical", "error", ""].includes(each.severity) ? "ALARM" : "degraded") : "OK"}">${each.state === "open" ? each.severity || "page" : "resolved"}</span><span class="when">${clock(each.opened)}${each.resolved ? ` – ${clock(each.resolved)}` : ""}</span></header>`;
  if (each.state !== "open") return html`<article class="page resolved">${raw(head)}<h3>${each.summary}</h3></article>`;
  if (!sent) return html`<article class="page open ${each.severity}">${raw(head)}<h3>${each.summary}</h3><pre>${each.notifications[0].text}</pre></article>`;
  const todo = sent.what_to_do;
  const command = todo ? html`<div class="command"><code>${todo.command}</code><button type="button" data-copy="${todo.command}">copy</button></div>` : "";
  return html`<article class="page open ${each.severity}">${raw(head)}<h3>${each.summary}</h3><p>${sent.description ?? ""}</p>${raw(sent.seen_from?.length ? seenFrom(sent.seen_from) : "")}${raw(command)}</article>`;
}

function pages(state) {
  const all = [...(state.lab.pages ?? [])].reverse(), urgent = all.filter((each) => each.urgent), calm = all.filter((each) => !each.urgent);
  const open = urgent.filter((each) => each.state === "open"), resolved = urgent.filter((each) => each.state !== "open");
  const notes = [...calm.filter((each) => each.state === "open"), ...calm.filter((each) => each.state !== "open").slice(0, 4)];
  put("page-count", urgent.length ? `${open.length} open, ${resolved.length} resolved` : "");
  put("pages", (urgent.length ? [...open, ...resolved.slice(0, 6)].map(page).join("") : `<p class="empty">Nobody has been paged.</p>`)
    + (notes.length ? `<h3 class="notes">Notes <small>nobody is woken for them</small></h3>${notes.map(page).join("")}` : ""));
}

// alarms

function alarms(state) {
  const short = (name) => (name.startsWith(state.workload + "-") ? name.slice(state.workload.length + 1) : name);
  put("alarms", Object.entries(state.regions).map(([name, region]) => {
    if (!region.reachable) return html`<div class="region"><h3>${name}</h3><p class="unreachable">CloudWatch does not answer: ${region.error}</p></div>`;
    const composite = region.alarms.filter((each) => each.composite), metric = region.alarms.filter((each) => !each.composite);
    const order = { ALARM: 0, INSUFFICIENT_DATA: 1, OK: 2 }, rank = (a, b) => order[a.state] - order[b.state] || a.name.localeCompare(b.name);
    const chip = (each) => html`<span class="chip ${each.state}" title="${each.state} since ${clock(each.since)}: ${each.reason}">${short(each.name)}</span>`;
    const loud = metric.filter((each) => each.state === "ALARM").sort(rank);
    const dots = metric.sort((a, b) => a.name.localeCompare(b.name)).map((each) => html`<i class="${each.state}" title="${short(each.name)}: ${each.state} since ${clock(each.since)}"></i>`);
    const n = (s) => region.alarms.filter((each) => each.state === s).length;
    return html`<div class="region"><h3>${name} <small>${n("ALARM")} in alarm, ${n("OK")} ok, ${n("INSUFFICIENT_DATA")} without data</small></h3><div class="chips">${raw(composite.sort(rank).map(chip))}${raw(loud.map(chip))}</div><div class="dots">${raw(dots)}</div></div>`;
  }).join("") || `<p class="empty">No alarms yet.</p>`);
}

// faults

function faults(state) {
  const all = state.lab.faults ?? [], wanted = $("fault-filter").value.toLowerCase();
  const region = $("fault-region");
  const names = Object.keys(state.regions);
  if (region.options.length !== names.length) region.innerHTML = names.map((name) => html`<option>${name}</option>`).join("");
  const active = all.flatMap((each) => each.active.map((strike) => ({ ...strike, name: each.name })));
  put("active-faults", active.map((each) => html`<div class="striking"><b>${each.name}</b>${each.region ?? ""} <span>${lasted(state.now - each.since)}</span><button type="button" data-heal="${each.name}" data-region="${each.region ?? ""}">heal</button></div>`).join(""));
  const listed = all.filter((each) => !wanted || `${each.name} ${each.sentence}`.toLowerCase().includes(wanted));
  put("faults", listed.map((each) => html`<div class="fault" title="${each.shows}"><b>${each.name}</b><span>${each.sentence}</span><button type="button" data-inject="${each.name}" data-where="${each.where}">inject</button></div>`).join("") || `<p class="empty">No fault is called so.</p>`);
}

async function act(path, body, button) {
  button.disabled = true;
  $("fault-message").textContent = "";
  try {
    const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json", "X-Console-Token": token }, body: JSON.stringify(body) });
    if (!answer.ok) $("fault-message").textContent = (await answer.json()).error;
  } catch (error) {
    $("fault-message").textContent = `The console does not answer: ${error.message}`;
  }
  button.disabled = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy) {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  } else if (button.dataset.inject)
    act("/faults/inject", { name: button.dataset.inject, region: button.dataset.where === "region" ? $("fault-region").value : "" }, button);
  else if (button.dataset.heal) act("/faults/heal", { name: button.dataset.heal, region: button.dataset.region }, button);
  else if (button.dataset.dashboard) {
    chosen = button.dataset.dashboard;
    draw(true);
  }
});

// processes

function processes(state) {
  const all = state.lab.processes ?? [], ready = all.filter((each) => each.state === "ready").length;
  put("process-count", all.length ? `${ready} of ${all.length} ready` : "");
  const groups = Map.groupBy ? Map.groupBy(all, (each) => each.region ?? "everywhere") : all.reduce((m, each) => m.set(each.region ?? "everywhere", [...(m.get(each.region ?? "everywhere") ?? []), each]), new Map());
  put("processes", [...groups].map(([region, list]) => html`<div class="region"><h3>${region}</h3><div class="chips">${raw(list.map((each) => html`<span class="process ${each.state}" title="${each.state}, ${each.pid ? `pid ${each.pid}, ` : ""}started ${each.starts} times${each.held_by.length ? `, held by ${each.held_by.join(", ")}` : ""}"><i></i>${each.name.split("/").pop()}</span>`))}</div></div>`).join(""));
}

// dashboard

let chosen = null, drawing = false, last = null;

function tabs(state) {
  const names = Object.keys(state.regions).filter((name) => state.regions[name].reachable);
  if (!names.includes(chosen)) chosen = names[0] ?? null;
  put("dashboard-tabs", names.map((name) => html`<button type="button" data-dashboard="${name}" ${raw(name === chosen ? "disabled" : "")}>from ${name}</button>`).join(""));
}

async function draw(now = false) {
  if (drawing || !chosen || (document.hidden && !now)) return;
  drawing = true;
  try {
    const answer = await fetch(`/dashboard?region=${encodeURIComponent(chosen)}&theme=${document.documentElement.dataset.theme}`);
    if (!answer.ok) throw new Error((await answer.json()).error);
    const url = URL.createObjectURL(await answer.blob()), image = new Image();
    image.alt = "The dashboard, drawn from its own body";
    image.src = url;
    await image.decode();
    $("dashboard").replaceChildren(image);
    URL.revokeObjectURL(url);
    $("drawn").textContent = last ? `drawn from its own body at ${clock(last.now)}` : "";
  } catch (error) {
    if (!$("dashboard").querySelector("img")) $("dashboard").innerHTML = html`<p class="empty">${error.message}</p>`;
  }
  drawing = false;
}
setInterval(draw, 10000);

// theme and stream

function theme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("theme", name); } catch { /* a private window has no memory */ }
}
let remembered = new URLSearchParams(location.search).get("theme");
try { remembered ??= localStorage.getItem("theme"); } catch { /* as above */ }
theme(remembered ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
$("theme").addEventListener("click", () => { theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); draw(true); });

function show(state) {
  last = state;
  put("workload", escape_(state.workload));
  $("now").textContent = clock(state.now);
  $("speed").textContent = state.lab.speed && state.lab.speed !== 1 ? `lab time × ${state.lab.speed}` : "lab time";
  for (const part of [verdict, matrix, timeline, pages, alarms, faults, processes, tabs]) part(state);
}
$("fault-filter").addEventListener("input", () => last && faults(last));
addEventListener("resize", () => last && timeline(last));

const stream = new EventSource("/events");
stream.onmessage = (event) => {
  $("connection").className = "pill OK";
  $("connection").textContent = "live";
  const first = !last;
  show(JSON.parse(event.data));
  if (first) draw(true);
  if (first && location.hash.startsWith("#dashboards")) $("dashboards").scrollIntoView();
};
stream.onerror = () => {
  $("connection").className = "pill ALARM";
  $("connection").textContent = "no connection";
};
