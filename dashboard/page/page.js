// Shows the state that the dashboard sends once a second. Values of the stream reach the page as
// text alone, never as markup.

const SILENT_MS = 5_000;      // without a message for so long, the page has lost the dashboard
const MODEL_MS = 2_000;       // how often the scores of a chosen version are asked for
const FEW = 12;               // models that are shown at first
const HISTORY = { 60: "600", 1000: "600", 10000: "600", 3600: "3600", 86400: "86400" };
const SVG = "http://www.w3.org/2000/svg";

const clock = (time) => (time ? time.slice(11, 19) : "–");
const $ = (id) => document.getElementById(id);
let state = {};
let heard = performance.now();
let lastHeard = clock(new Date().toISOString());
let chosen = null;            // the scores of the chosen version
let all = false;

// ---- texts

const share = (value, digits = 3) => (value == null ? "–" : value.toFixed(digits));
const grouped = new Intl.NumberFormat("en");
const count = (value) => (value == null ? "–" : grouped.format(value));
const rate = (value) => (value >= 10 ? count(Math.round(value)) : share(value, 1));
const between = (pair) => (pair ? `${share(pair[0])} to ${share(pair[1])}` : "–");
const moment = (seconds) => new Date(seconds * 1000).toISOString();

function ago(time) {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

function say(id, value) {
  const node = $(id);
  if (node.textContent !== value) node.textContent = value;
}

// Fills a table or a list with rows of texts; a cell may be {text, href}.
function fill(body, rows, tag = "tr", cell = "td") {
  while (body.rows ? body.rows.length > rows.length : body.children.length > rows.length) {
    body.lastElementChild.remove();
  }
  rows.forEach((cells, number) => {
    const row = body.children[number] ?? body.appendChild(document.createElement(tag));
    cells.forEach((value, column) => {
      const node = row.children[column] ?? row.appendChild(document.createElement(cell));
      const text = String(value?.text ?? value ?? "–");
      let holder = node;
      if (value?.href) {
        holder = node.firstElementChild ?? node.appendChild(document.createElement("a"));
        if (holder.getAttribute("href") !== value.href) holder.setAttribute("href", value.href);
      }
      if (holder.textContent !== text) holder.textContent = text;
    });
  });
}

// ---- what is chosen: it stands in the address, so that a link leads to it

let choice = {};

function readChoice() {
  if (location.hash === "#main") return; // the link that skips to the content
  const given = new URLSearchParams(location.hash.slice(1));
  const seconds = (name) => {
    const time = Date.parse(given.get(name) ?? "");
    return Number.isNaN(time) ? null : time / 1000;
  };
  choice = { window: given.get("window") ?? "1000", model: given.get("model") ?? "" };
  if (!(choice.window in HISTORY)) choice.window = "1000";
  if (!/^\d{1,18}$/.test(choice.model)) choice.model = "";
  const at = seconds("t");
  choice.from = at === null ? seconds("from") : at - 60;
  choice.to = at === null ? seconds("to") : at + 60;
  if (choice.from === null || choice.to === null || choice.to <= choice.from) {
    choice.from = choice.to = null;
  }
  $("window").value = choice.window;
  chosen = null;
  askModel();
  show();
}

function writeChoice() {
  const link = new URLSearchParams({ window: choice.window });
  if (choice.model) link.set("model", choice.model);
  if (choice.from !== null) {
    link.set("from", moment(choice.from));
    link.set("to", moment(choice.to));
  }
  history.replaceState(null, "", `#${link}`);
  show();
}

async function askModel() {
  const version = choice.model;
  if (!version) return;
  try {
    const answer = await fetch(`api/models/${version}`);
    const found = answer.ok ? await answer.json() : null;
    if (choice.model === version) chosen = found;
  } catch {
    return; // the banner says that the dashboard is away
  }
  showScores();
}

// ---- the parts of the page

function showHealth() {
  const silent = performance.now() - heard > SILENT_MS;
  const found = silent || !state.health
    ? {
        state: "broken",
        words: "Disconnected",
        why: [`the dashboard has not answered since ${lastHeard}; the page tries again`],
      }
    : state.health;
  $("health").dataset.state = found.state;
  say("words", found.words);
  fill($("why"), found.why.map((line) => [line]), "li", "span");
}

function showTiles() {
  const { serving, changed, windows, lag } = state;
  say("serving", serving ? `model ${serving.version}` : "no model");
  say("since", serving?.since ? `since ${clock(serving.since)}, for ${ago(serving.since)}` : "");
  say("what", serving?.algorithm ? `${serving.algorithm}, ${serving.reason}` : "");
  say("changed", changed?.what ?? "nothing yet");
  say("changed-at", changed ? `${clock(changed.time)}, ${ago(changed.time)} ago` : "");
  const minute = windows["60"];
  say("rate", `${rate(minute.predictions_per_second)}/s`);
  say("lag", `lag ${count(lag)}`);
  say("rejected-rate", `rejected ${rate(minute.rejected_per_second)}/s in the last minute`);
}

function showScores() {
  if (!state.windows) return;
  const window = state.windows[choice.window];
  const found = choice.model ? chosen : window;
  const of = choice.model
    ? `model ${choice.model}${chosen ? "" : " (not known)"}`
    : $("window").selectedOptions[0].textContent;
  say("t-accuracy", `Accuracy, ${of}`);
  say("of", of);
  say("accuracy", share(found?.accuracy));
  say("interval", found?.n ? `95 %: ${between(found.accuracy_interval)}` : "nothing counted");
  const [majority, same] = [share(found?.majority), share(found?.no_change)];
  say("baseline", `baselines: majority ${majority}, no change ${same}`);
  const rows = [
    ["counted", count(found?.n)],
    ["precision", share(found?.precision)],
    ["recall", share(found?.recall)],
    ["F1", share(found?.f1)],
    ["MCC", share(found?.mcc)],
    ["ROC AUC", share(found?.roc_auc)],
    ["log loss", share(found?.log_loss)],
    ["Brier score", share(found?.brier)],
    ["ECE", share(found?.ece)],
    ["label 1, real", share(found?.positive)],
    ["label 1, predicted", share(found?.predicted_positive)],
  ];
  if (found?.coverage != null) rows.push(["label coverage", share(found.coverage)]);
  if (found?.label_delay_p50 != null) {
    const [p50, p95] = [found.label_delay_p50, found.label_delay_p95];
    rows.push(["label delay, half, 95 %", `${share(p50, 1)} s, ${share(p95, 1)} s`]);
  }
  const list = $("scores");
  while (list.children.length > 2 * rows.length) list.lastElementChild.remove();
  rows.flat().forEach((text, number) => {
    const tag = number % 2 ? "dd" : "dt";
    const node = list.children[number] ?? list.appendChild(document.createElement(tag));
    if (node.textContent !== text) node.textContent = text;
  });
  for (const name of ["tn", "fp", "fn", "tp"]) say(name, count(found?.confusion?.[name]));
  showCalibration(found?.calibration ?? []);
}

function showCalibration(bins) {
  const at = bins.map((bin) => [100 * bin.probability, 100 - 100 * bin.positive]);
  $("bins").setAttribute("points", at.map((point) => point.join()).join(" "));
  const most = Math.max(1, ...bins.map((bin) => bin.records));
  const dots = $("dots");
  while (dots.children.length > bins.length) dots.lastElementChild.remove();
  bins.forEach((bin, number) => {
    const dot = dots.children[number] ?? dots.appendChild(document.createElementNS(SVG, "circle"));
    dot.setAttribute("cx", at[number][0]);
    dot.setAttribute("cy", at[number][1]);
    dot.setAttribute("r", 1 + 3 * Math.sqrt(bin.records / most));
  });
  const said = bins.length
    ? `Calibration in ${bins.length} bins; the table below says the same`
    : "No calibration yet";
  $("calibration").setAttribute("aria-label", said);
  fill($("calibration-rows"), bins.map((b) => [share(b.probability), share(b.positive), count(b.records)]));
}

function ended(row) {
  if (row.status === "serving") return "serves";
  if (row.barred) return `barred: ${row.barred}`;
  return row.next ? `replaced by ${row.next} at ${clock(row.until)}` : clock(row.until);
}

function showTables() {
  const { models, rejections, refusals, partitions, windows, running } = state;
  fill(
    $("models"),
    models.slice(0, all ? models.length : FEW).map((row) => [
      { text: row.version, href: `#window=${choice.window}&model=${row.version}` },
      row.algorithm,
      row.reason,
      row.since ? { text: clock(row.since), href: `#window=${choice.window}&t=${row.since}` } : "–",
      count(row.predictions),
      share(row.accuracy),
      between(row.interval),
      ended(row),
    ]),
  );
  $("more").hidden = models.length <= FEW;
  say("more", all ? "Show fewer" : `Show all ${models.length}`);
  const select = $("model");
  if (document.activeElement !== select) {
    const versions = ["", ...models.map((row) => String(row.version))];
    if (choice.model && !versions.includes(choice.model)) versions.push(choice.model);
    while (select.options.length > versions.length) select.lastElementChild.remove();
    versions.forEach((version, number) => {
      const option = select.options[number] ?? select.appendChild(document.createElement("option"));
      option.value = version;
      if (option.textContent !== (version || "all")) option.textContent = version || "all";
    });
    select.value = choice.model;
  }
  fill(
    $("refusals"),
    refusals.length
      ? refusals.map((r) => [`${clock(r.time)} model ${r.version} ${r.status} by ${r.replica}: ${r.reason}`])
      : [["none"]],
    "li",
    "span",
  );
  const day = windows["86400"];
  const reasons = Object.entries(day.reasons).map(([reason, times]) => `${count(times)} × ${reason}`);
  say("reasons", reasons.length ? `In the last day: ${reasons.join("; ")}` : "None in the last day.");
  fill(
    $("rejections"),
    rejections.map((r) => [clock(r.time), r.source[0], r.source[1], r.reason, r.value]),
  );
  fill(
    $("partitions"),
    partitions.map((p) => [
      p.partition, count(p.n), share(p.accuracy), count(p.next), count(p.end), count(p.lag),
    ]),
  );
  const from = day.limited ? ` Read since ${day.since.slice(0, 19)}: there are more records.` : "";
  say("running", `Since the beginning: ${count(running.n)} counted, accuracy ${share(running.accuracy)}.${from}`);
}

// ---- the curve

let plot = null;
let swaps = [];

function shownHistory() {
  const found = state.histories;
  if (choice.from === null) return found[HISTORY[choice.window]];
  const fine = Object.values(found).find((each) => each.time.length && each.time[0] <= choice.from);
  return fine ?? found["86400"];
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawMarks(u) {
  const { ctx, bbox } = u;
  const lines = (times, top, name, dash) => {
    ctx.strokeStyle = colour(name);
    ctx.lineWidth = 2;
    ctx.setLineDash(dash);
    ctx.beginPath();
    for (const time of times) {
      const x = Math.round(u.valToPos(time, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.moveTo(x, bbox.top + top * bbox.height);
      ctx.lineTo(x, bbox.top + bbox.height);
    }
    ctx.stroke();
  };
  ctx.save();
  lines(swaps, 0.94, "--swap", []);
  lines(state.alarms.map((alarm) => alarm.time / 1000), 0, "--alarm", [6, 6]);
  ctx.restore();
}

function sayPoint(u) {
  const number = u.cursor.idx;
  if (number == null) return say("at", "");
  const [times, recent, running] = u.data;
  if (times[number] == null) return say("at", "");
  const at = moment(times[number]).slice(11, 19);
  say("at", `${at}: last 1,000 ${share(recent[number])}, running ${share(running[number])}`);
}

function makePlot() {
  plot?.destroy();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  plot = new uPlot(
    {
      width: $("curve").clientWidth,
      height: 260,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      legend: { show: false },
      cursor: { drag: { x: true, y: false, setScale: false } },
      scales: {
        x: { time: true },
        y: {
          range: (_, least, most) => {
            if (least == null) return [0, 1];
            const spare = Math.max(0.02, (0.1 - (most - least)) / 2);
            return [Math.max(0, least - spare), Math.min(1, most + spare)];
          },
        },
      },
      axes: [
        {
          ...axis,
          values: (_u, times, _axis, _space, step) =>
            times.map((time) => moment(time).slice(11, step < 60 ? 19 : 16)),
        },
        { ...axis, size: 52 },
      ],
      series: [
        {},
        { stroke: colour("--recent"), width: 2, points: { show: false } },
        { stroke: colour("--running"), width: 2, dash: [3, 4], points: { show: false } },
      ],
      hooks: {
        draw: [drawMarks],
        setCursor: [sayPoint],
        setSelect: [
          (u) => {
            if (u.select.width < 4) return;
            choice.from = u.posToVal(u.select.left, "x");
            choice.to = u.posToVal(u.select.left + u.select.width, "x");
            u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            writeChoice();
          },
        ],
      },
    },
    [[], [], []],
    $("curve"),
  );
}

function range() {
  if (choice.from !== null) return [choice.from, choice.to];
  const seconds = Number(HISTORY[choice.window]);
  const last = shownHistory().time.at(-1) ?? Date.now() / 1000;
  const now = Math.max(last, Date.now() / 1000);
  const first = shownHistory().time[0] ?? now - seconds;
  return [Math.max(now - seconds, Math.min(first, now - 60)), now];
}

function showCurve() {
  if (!plot) makePlot();
  const { time, recent, running, model } = shownHistory();
  swaps = time.filter((_, number) => number && model[number] > model[number - 1]);
  const [min, max] = range();
  plot.batch(() => {
    plot.setData([time, recent, running], false);
    plot.setScale("x", { min, max });
  });
  const last = time.length - 1;
  const shown = swaps.filter((each) => each >= min && each <= max).length;
  const said = last < 0
    ? "No accuracy yet"
    : `Accuracy from ${moment(min).slice(11, 19)} to ${moment(max).slice(11, 19)}: last 1,000`
      + ` ${share(recent[last])}, running ${share(running[last])}, ${shown} swaps,`
      + ` ${state.alarms.length} drift alarms`;
  $("curve").setAttribute("aria-label", said);
  $("curve").dataset.points = String(time.length);
  $("curve").dataset.swaps = String(shown);
  document.querySelector("[data-move=live]").setAttribute("aria-pressed", String(choice.from === null));
}

function move(how) {
  const [from, to] = range();
  const length = to - from;
  if (how === "live") {
    choice.from = choice.to = null;
  } else {
    const shift = { earlier: -length / 2, later: length / 2, in: 0, out: 0 }[how];
    const grow = { in: -length / 4, out: length / 2 }[how] ?? 0;
    choice.from = from + shift - grow;
    choice.to = to + shift + grow;
    if (choice.to - choice.from < 2) return;
  }
  writeChoice();
}

// ---- putting it together

function show() {
  showHealth();
  if (!state.windows) return;
  showTiles();
  showScores();
  showTables();
  showCurve();
}

function connect() {
  const source = new EventSource("events");
  source.onmessage = (message) => {
    heard = performance.now();
    lastHeard = clock(new Date().toISOString());
    state = { ...state, ...JSON.parse(message.data) };
    if (!document.hidden) show();
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 1_000);
  };
}

$("window").addEventListener("change", (event) => {
  choice.window = event.target.value;
  choice.from = choice.to = null;
  writeChoice();
});
$("model").addEventListener("change", (event) => {
  choice.model = event.target.value;
  chosen = null;
  askModel();
  writeChoice();
});
$("choice").addEventListener("submit", (event) => event.preventDefault());
$("copy").addEventListener("click", async () => {
  writeChoice();
  try {
    await navigator.clipboard.writeText(location.href);
    say("copy", "Copied");
  } catch {
    say("copy", "It is in the address bar");
  }
  setTimeout(() => say("copy", "Copy link"), 2_000);
});
$("more").addEventListener("click", () => {
  all = !all;
  $("more").setAttribute("aria-expanded", String(all));
  showTables();
});
for (const button of document.querySelectorAll("[data-move]")) {
  button.addEventListener("click", () => move(button.dataset.move));
}
addEventListener("hashchange", readChoice);
document.addEventListener("visibilitychange", show);
new ResizeObserver(() => plot?.setSize({ width: $("curve").clientWidth, height: 260 })).observe($("curve"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (plot) makePlot();
  show();
});
setInterval(showHealth, 1_000);
setInterval(askModel, MODEL_MS);
readChoice();
connect();
