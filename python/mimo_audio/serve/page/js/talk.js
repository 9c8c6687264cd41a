// Talk: a spoken conversation, hands-free or push to talk, that can be interrupted at any time.
import { Microphone, Player, RATE, colour, fromBase64, fromPcm, toBase64 } from "./audio.js";
import { $, make, notice } from "./page.js";
import { Realtime } from "./realtime.js";

const levels = new Array(120).fill(0); // of the last seconds, [0..1]; positive: the user, negative: the model
const bubbles = new Map(); // item id -> {line, text, note, role}
const cut = new Set(); // items whose sound is no longer wanted
let link = null, microphone = null, player = null;
let open = false, held = false, active = null, asked = 0, begun = 0, made = 0, firstSound = 0, answers = 0;

const mode = () => document.querySelector("input[name=mode]:checked").value;

function state(text) { $("talk-state").textContent = text; }

function settings() {
  const detection = mode() === "free" ? { type: "server_vad", silence_duration_ms: 500 } : null;
  const session = {
    type: "realtime",
    instructions: $("talk-instructions").value,
    audio: { input: { turn_detection: detection, transcription: { language: "en" } }, output: { voice: $("talk-voice").value || "default" } },
  };
  link?.send("session.update", { session });
}

async function start(listen = true) {
  notice("");
  $("talk-start").disabled = true;
  state("Connecting");
  try {
    player = player || new Player(onplay);
    await player.open();
    link = new Realtime(handlers);
    await link.open();
    open = true;
    settings();
    if (listen) await hear();
  } catch (error) {
    end();
    notice(error.message);
  }
  show();
}

async function hear() {
  microphone = new Microphone();
  try {
    await microphone.open((block, level) => {
      if (mode() === "free" || held) {
        levels.push(level); levels.shift();
        link?.send("input_audio_buffer.append", { audio: toBase64(new Uint8Array(block.buffer)) });
      }
    });
  } catch {
    microphone = null;
    throw new Error("The microphone cannot be used: allow it in the browser, and open this page by https or on localhost. You can still write.");
  }
}

function end() {
  link?.close(); microphone?.close(); player?.close();
  link = microphone = player = active = null;
  open = held = false;
  show();
}

function show() {
  const push = mode() === "push";
  $("talk-start").disabled = false;
  $("talk-start").textContent = open ? "End" : "Start talking";
  $("talk-start").classList.toggle("primary", !open);
  $("talk-hold").hidden = !(open && push && microphone);
  $("talk-stop").disabled = !(open && (active || player?.playing));
  $("talk-empty").hidden = bubbles.size > 0;
  if (!open) state("Ready when you are");
  else if (held) state("Hearing you");
  else if (player?.playing) state("Speaking");
  else if (active) state("Thinking");
  else state(!microphone ? "Write something" : push ? "Hold the button, and talk" : "Listening");
}

// The answer ends here: what was not heard is forgotten, by the server too
async function interrupt(cancel = true) {
  if (cancel && active) link.send("response.cancel");
  const { id, heard } = await player.clear();
  const item = active?.item || id;
  if (!item) return show();
  cut.add(item);
  const bubble = bubbles.get(item);
  const most = bubble?.samples || 0;
  const samples = item === id ? Math.min(heard, most) : 0;
  if (item === id || most > 0) {
    link.send("conversation.item.truncate", { item_id: item, content_index: 0, audio_end_ms: Math.floor(samples * 1000 / RATE) });
  }
  active = null;
  show();
}

function bubble(id, role) {
  let found = bubbles.get(id);
  if (!found) {
    const text = make("span"), note = make("small"), who = make("span", { class: "visually-hidden" }, role === "user" ? "You: " : "Model: ");
    const line = make("li", { class: role }, who, text, note);
    $("talk-log").append(line);
    found = { line, text, note, role, samples: 0 };
    bubbles.set(id, found);
    show();
  }
  $("talk-log").scrollTop = $("talk-log").scrollHeight;
  return found;
}

const handlers = {
  "input_audio_buffer.speech_started"(event) {
    if (player.playing || active) interrupt(false); // the server has cancelled the answer already
    bubble(event.item_id, "user").text.textContent = "…";
    state("Hearing you");
  },
  "input_audio_buffer.speech_stopped"() { asked = performance.now(); state("Thinking"); },
  "conversation.item.added"({ item }) {
    if (item.role !== "user") return;
    const part = item.content[0];
    bubble(item.id, "user").text.textContent = part.type === "input_text" ? part.text : "…";
  },
  "conversation.item.input_audio_transcription.delta"(event) {
    const { text } = bubble(event.item_id, "user");
    text.textContent = (text.textContent === "…" ? "" : text.textContent) + event.delta;
  },
  "conversation.item.input_audio_transcription.completed"(event) {
    const { text, note } = bubble(event.item_id, "user");
    text.textContent = event.transcript || "(nothing that it could write down)";
    note.textContent = "as the model heard it";
  },
  "conversation.item.input_audio_transcription.failed"(event) { bubble(event.item_id, "user").text.textContent = "(not transcribed)"; },
  "response.created"({ response }) {
    active = { id: response.id, item: null };
    begun = performance.now(); made = 0; firstSound = 0;
    show();
  },
  "response.output_item.added"(event) { if (active) active.item = event.item.id; bubble(event.item.id, "assistant"); },
  "response.output_audio_transcript.delta"(event) { bubble(event.item_id, "assistant").text.textContent += event.delta; },
  "response.output_audio.delta"(event) {
    if (cut.has(event.item_id)) return;
    const wave = fromPcm(fromBase64(event.delta));
    if (!firstSound) {
      firstSound = performance.now();
      $("talk-first").textContent = `${Math.round(firstSound - (asked || begun))} ms`;
    }
    made += wave.length;
    bubble(event.item_id, "assistant").samples += wave.length;
    player.play(event.item_id, wave);
    show();
  },
  "response.done"({ response }) {
    if (made) $("talk-rtf").textContent = ((performance.now() - begun) / 1000 / (made / RATE)).toFixed(2);
    if (active?.id === response.id) active = null;
    asked = 0;
    const item = response.output[0];
    const { text, note } = bubble(item.id, "assistant");
    if (response.status === "failed") note.textContent = `failed: ${response.status_details?.error?.message || ""}`;
    else if (!text.textContent) text.textContent = "(no words)";
    if (made) $("talk-count").textContent = ++answers;
    show();
  },
  "conversation.item.truncated"(event) {
    const found = bubbles.get(event.item_id);
    if (found) found.note.textContent = `interrupted after ${(event.audio_end_ms / 1000).toFixed(1)} s: it remembers no more`;
    link.send("conversation.item.retrieve", { item_id: event.item_id });
  },
  "conversation.item.retrieved"({ item }) { // what it remembers, and what was never heard
    const found = bubbles.get(item.id);
    if (!found) return;
    const whole = found.text.textContent.trimStart(), kept = item.content[0].transcript?.trimStart() || "";
    if (whole.startsWith(kept)) found.text.replaceChildren(kept, make("s", { class: "unheard" }, whole.slice(kept.length)));
    $("talk-log").scrollTop = $("talk-log").scrollHeight;
  },
  error({ error }) {
    if (!["response_cancel_not_active", "item_not_found", "input_audio_buffer_commit_empty"].includes(error.code)) notice(error.message);
  },
  close() { end(); notice("The connection ended."); },
};

function onplay(id, heard, playing) {
  if (!playing && $("talk-state").textContent === "Speaking") show();
}

async function press() {
  if (!open || held || !microphone || mode() !== "push") return;
  held = true;
  $("talk-hold").classList.add("down");
  if (player.playing || active) await interrupt();
  link.send("input_audio_buffer.clear");
  show();
}

function release() {
  if (!held) return;
  setTimeout(() => { // the last block is on its way
    held = false;
    $("talk-hold").classList.remove("down");
    asked = performance.now();
    link?.send("input_audio_buffer.commit");
    link?.send("response.create");
    show();
  }, 120);
}

function draw() {
  requestAnimationFrame(draw);
  const canvas = $("talk-wave");
  if (!canvas.clientWidth) return;
  if (player?.playing && player.analyser) {
    const wave = new Float32Array(player.analyser.fftSize);
    player.analyser.getFloatTimeDomainData(wave);
    levels.push(-Math.min(1, 4 * Math.sqrt(wave.reduce((sum, v) => sum + v * v, 0) / wave.length))); levels.shift();
  } else if (!microphone || (mode() === "push" && !held)) { levels.push(0); levels.shift(); }
  const scale = devicePixelRatio || 1, width = canvas.clientWidth * scale, height = canvas.clientHeight * scale;
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const pen = canvas.getContext("2d"), step = width / levels.length;
  pen.clearRect(0, 0, width, height);
  levels.forEach((value, i) => {
    pen.fillStyle = colour(value < 0 ? "--quiet" : "--accent");
    const tall = Math.max(3 * scale, Math.abs(value) * height * 0.95);
    pen.beginPath();
    pen.roundRect(i * step + step * 0.2, (height - tall) / 2, step * 0.6, tall, step * 0.3);
    pen.fill();
  });
}

export function setUp() {
  $("talk-start").onclick = () => (open ? end() : start());
  $("talk-stop").onclick = () => interrupt();
  for (const radio of document.querySelectorAll("input[name=mode]")) radio.onchange = () => { settings(); show(); };
  $("talk-voice").onchange = settings;
  $("talk-instructions").onchange = settings;
  $("talk-hold").onpointerdown = (event) => { event.target.setPointerCapture(event.pointerId); press(); };
  $("talk-hold").onpointerup = $("talk-hold").onpointercancel = release;
  $("talk-hold").oncontextmenu = (event) => event.preventDefault();
  const typing = (event) => ["INPUT", "TEXTAREA", "SELECT"].includes(event.target.tagName) && event.target.type !== "radio";
  addEventListener("keydown", (event) => {
    if ($("talk").hidden || !open) return;
    if (event.code === "Escape") interrupt();
    if (event.code === "Space" && mode() === "push" && !typing(event) && microphone) { event.preventDefault(); if (!event.repeat) press(); }
  });
  addEventListener("keyup", (event) => { if (event.code === "Space" && held) { event.preventDefault(); release(); } });
  addEventListener("blur", release);
  $("talk-type").onsubmit = async (event) => {
    event.preventDefault();
    const text = $("talk-text").value.trim();
    if (!text) return;
    if (!open) await start(false);
    if (!open) return;
    if (player.playing || active) await interrupt();
    $("talk-text").value = "";
    asked = performance.now();
    link.send("conversation.item.create", { item: { type: "message", role: "user", content: [{ type: "input_text", text }] } });
    link.send("response.create");
  };
  draw();
  show();
}
