// The operator's page. Every 50 ms it says all that keys and pointer do; a page that falls silent has lost the robot.
// On purpose in no worker: a page that is hidden or hangs must fall silent.
"use strict";

const BEAT_MS = 50, SILENT_MS = 500, AGAIN_MS = 1000;
const STOP = "Escape";
const KEYS = { Space: "take", Enter: "back", KeyY: "success", KeyN: "failure", Backspace: "reset", KeyP: "pause" };
const AXES = [["KeyW", "KeyS"], ["KeyA", "KeyD"], ["KeyR", "KeyF"], ["KeyO", "KeyU"], ["KeyI", "KeyK"],
              ["KeyJ", "KeyL"]];
const SLOW = 0.25;
const at = (id) => document.getElementById(id);

const scene = new Scene(at("scene"));
const down = new Set();
let socket = null, state = null, heardMs = 0, gripButton = 0;
const pictures = [];

function say(message) {
  const open = socket !== null && socket.readyState === WebSocket.OPEN;
  if (open) socket.send(JSON.stringify(message));
  return open;
}

function order(what) {
  beat(); // a page takes over with a fresh heartbeat only
  if (!say({ do: what })) at("told").textContent = `${what}: not sent, there is no connection`;
}

function beat() {
  if (document.hidden || !state) return;
  const speed = down.has("ShiftLeft") || down.has("ShiftRight") ? SLOW : 1;
  const twist = AXES.map(([more, less]) => speed * (down.has(more) - down.has(less)));
  const gripper = Math.sign(down.has("KeyH") - down.has("KeyG") + gripButton);
  say({ seen: state.n, twist, gripper, target: scene.target });
}

// --- what the person does ---------------------------------------------------------------------------------------

function letGo() {
  down.clear();
  gripButton = 0;
  scene.letGo();
}

addEventListener("keydown", (event) => {
  if (event.code === STOP && !event.repeat) order("stop"); // whatever else is held, wherever one types
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.altKey || event.metaKey) return;
  const order_ = KEYS[event.code];
  if (order_ || AXES.flat().includes(event.code)) event.preventDefault();
  if (order_ && !event.repeat) order(order_);
  down.add(event.code);
});
addEventListener("keyup", (event) => down.delete(event.code));
addEventListener("blur", letGo);
document.addEventListener("visibilitychange", letGo);
scene.onGrasp = () => order("take");

for (const button of document.querySelectorAll("button[data-do]")) {
  button.addEventListener("click", () => {
    button.blur(); // or space would press it again
    order(button.dataset.do);
  });
}
for (const button of document.querySelectorAll("button[data-grip]")) {
  button.addEventListener("pointerdown", () => (gripButton = Number(button.dataset.grip)));
  for (const name of ["pointerup", "pointerleave", "pointercancel"]) {
    button.addEventListener(name, () => {
      gripButton = 0;
      button.blur();
    });
  }
}

// --- what is shown ----------------------------------------------------------------------------------------------

function banner(kind, title, detail) {
  at("banner").dataset.kind = kind;
  at("title").textContent = title;
  at("detail").textContent = detail;
}

function show(news) {
  state = news;
  heardMs = performance.now();
  const mine = news.holder === news.you && news.who.kind === "person" && news.mine;
  if (mine) banner("mine", "YOU ARE IN CONTROL", `${news.who.detail}; the robot stops if this page is hidden or closed`);
  else banner(news.who.kind, news.who.title, news.who.detail);
  at("told").textContent = news.told;
  at("foot").textContent = `${news.robot} · you are ${news.you} · open: ${news.pages.join(", ")}`;
  const rows = Object.entries(news.figures).map(([name, value]) => {
    const row = document.createElement("div");
    const [term, words] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, words.textContent] = [name, value];
    row.append(term, words);
    return row;
  });
  at("figures").replaceChildren(...rows);
  scene.show(news);
}

function showCurves(curves) {
  at("curves").replaceChildren(...Object.entries(curves).map(([name, points]) => {
    const [figure, canvas] = [document.createElement("figure"), document.createElement("canvas")];
    [canvas.width, canvas.height] = [300, 120];
    drawCurve(canvas.getContext("2d"), points);
    figure.append(canvas, name);
    return figure;
  }));
}

function drawCurve(pen, points) {
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const [first, last, most] = [Math.min(...xs), Math.max(...xs), Math.max(1e-9, ...ys)];
  pen.strokeStyle = "#1d4ed8";
  pen.lineWidth = 3;
  pen.beginPath();
  points.forEach(([x, y], k) => {
    const place = [5 + (290 * (x - first)) / (last - first || 1), 115 - (95 * Math.max(0, y)) / most];
    if (k) pen.lineTo(...place);
    else pen.moveTo(...place);
  });
  pen.stroke();
  pen.fillStyle = "#4b5563";
  pen.font = "18px system-ui";
  pen.fillText(most.toPrecision(2), 5, 18);
}

function showPicture(data) {
  const number = new Uint8Array(data, 0, 1)[0];
  if (!pictures[number]) {
    const [figure, picture] = [document.createElement("figure"), document.createElement("img")];
    figure.append(picture, state ? state.cameras[number] : "");
    at("cameras").append(figure);
    pictures[number] = picture;
  }
  const before = pictures[number].src;
  pictures[number].src = URL.createObjectURL(new Blob([new Uint8Array(data, 1)], { type: "image/jpeg" }));
  if (before) URL.revokeObjectURL(before);
}

// --- the connection ---------------------------------------------------------------------------------------------

function connect() {
  if (socket && socket.readyState <= WebSocket.OPEN) return; // a second log-in is no second page
  const mine = (socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`));
  mine.binaryType = "arraybuffer";
  let why = "";
  mine.onmessage = (event) => {
    if (typeof event.data !== "string") return showPicture(event.data);
    const news = JSON.parse(event.data);
    if (news.curves) showCurves(news.curves);
    else show(news);
  };
  mine.onclose = async (event) => {
    why = event.reason;
    state = null;
    letGo();
    banner("offline", "CONNECTION LOST", why || "who is in control is not known; trying again");
    if (await admitted()) setTimeout(connect, AGAIN_MS);
    else askForToken();
  };
}

async function admitted() {
  try {
    return (await (await fetch("login")).json()).in;
  } catch {
    return true; // nobody answers: that is no question of the token
  }
}

async function logIn(token) {
  const answer = await fetch("login", { method: "POST", body: JSON.stringify({ token }) });
  at("login").hidden = answer.ok;
  if (answer.ok) connect();
  else askForToken("that is not the token");
}

function askForToken(why) {
  banner("offline", "NOT LOGGED IN", why || "the token is in the file or variable that the page's node was given");
  at("login").hidden = false;
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  logIn(at("token").value);
});

async function start() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    history.replaceState(null, "", location.pathname); // it must not stay in the address bar
    return logIn(token);
  }
  return (await admitted()) ? connect() : askForToken();
}

setInterval(beat, BEAT_MS);
setInterval(() => {
  if (state && performance.now() - heardMs > SILENT_MS) {
    banner("offline", "CONNECTION LOST", "nothing was heard of the robot for half a second");
  }
}, 100);
start();
