// What all parts of the page share: elements, requests, errors, recordings to choose or make, voices.
import { Microphone, RATE, drawWave, fromBase64, readFile, wavFile } from "./audio.js";

export const $ = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function notice(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text || "";
  if (text) $("notice").scrollIntoView({ block: "nearest" });
}

export const key = () => $("key").value.trim();

// A request of the API; errors become the server's own words
export async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  let said = `${response.status} ${response.statusText}`;
  try { said = (await response.json()).error.message; } catch { /* no JSON: the status has to do */ }
  if (response.status === 401) said += " Put the key into “What runs here”, below.";
  throw new Error(said);
}

// Runs work with a button that cannot be pressed meanwhile
export async function during(button, work) {
  const label = button.textContent;
  notice("");
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  button.textContent = "Working…";
  try { await work(); } catch (error) { if (error.name !== "AbortError") notice(error.message); }
  button.textContent = label;
  button.removeAttribute("aria-busy");
  button.disabled = false;
}

export function figures(rows) {
  return make("dl", { class: "figures small" }, ...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

export const seconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`;

export function player(base64, label, download) {
  const url = URL.createObjectURL(new Blob([fromBase64(base64)], { type: "audio/wav" }));
  return make("div", {}, make("audio", { controls: true, src: url, "aria-label": label }), make("a", { href: url, download }, `Save ${download}`));
}

// A recording: made here, chosen, or the example. `value()` -> a WAV Blob; throws if there is none
export class SoundInput {
  constructor(host, name, example = true) {
    this.name = name;
    this.wave = null;
    this.canvas = make("canvas", { hidden: true, "aria-hidden": "true" });
    this.said = make("span", { class: "quiet" }, "no recording yet");
    this.record = make("button", { type: "button", onclick: () => this.toggle(), "aria-label": `Record: ${name}` }, "Record");
    this.hear = make("button", { type: "button", disabled: true, onclick: () => this.listen(), "aria-label": `Play: ${name}` }, "Play");
    const file = make("input", { type: "file", accept: "audio/*,.wav,.flac,.mp3,.ogg,.opus,.m4a,.webm", "aria-label": `Choose a file: ${name}`, onchange: () => this.choose(file.files[0]) });
    const row = make("div", { class: "row" }, this.record, make("label", { class: "filelike inline" }, "Choose file", file), this.hear);
    if (example) row.append(make("button", { type: "button", "aria-label": `Take the example: ${name}`, onclick: () => this.example() }, "Example"));
    host.replaceChildren(make("div", { class: "sound", role: "group", "aria-label": name }, make("p", { class: "name" }, name, " ", this.said), this.canvas, row));
  }

  async toggle() {
    if (this.microphone) return this.finish();
    const microphone = new Microphone();
    const blocks = [];
    try { await microphone.open((block) => blocks.push(block)); } catch { return notice("The microphone cannot be used: allow it in the browser, and open this page by https or on localhost."); }
    this.microphone = microphone;
    this.finish = () => {
      microphone.close();
      this.microphone = null;
      this.record.textContent = "Record";
      this.record.classList.remove("recording");
      this.set(Float32Array.from(blocks.flatMap((block) => [...block]), (v) => v / 32768));
    };
    this.record.textContent = "Stop";
    this.record.classList.add("recording");
  }

  async choose(blob) {
    if (!blob) return;
    try { this.set(await readFile(blob)); notice(""); } catch { notice(`${blob.name || "The file"}: this browser cannot read it as sound.`); }
  }

  async example() {
    try { await this.choose(await (await ask("v1/playground/example")).blob()); } catch (error) { notice(error.message); }
  }

  set(wave) {
    if (!wave.length) return;
    this.wave = wave;
    this.canvas.hidden = false;
    this.said.textContent = seconds(wave.length / RATE);
    this.hear.disabled = false;
    drawWave(this.canvas, wave);
  }

  listen() {
    if (this.sounding) { this.sounding.pause(); this.sounding = null; this.hear.textContent = "Play"; return; }
    this.sounding = new Audio(URL.createObjectURL(this.value()));
    this.hear.textContent = "Stop";
    this.sounding.onended = () => { this.sounding = null; this.hear.textContent = "Play"; };
    this.sounding.play();
  }

  value() {
    if (!this.wave) throw new Error(`${this.name}: record something, or choose a file.`);
    return wavFile(this.wave);
  }
}

export async function loadVoices() {
  const { data } = await (await ask("v1/audio/voices")).json();
  for (const select of document.querySelectorAll("select.voices")) {
    const chosen = select.value;
    select.replaceChildren(...data.map((voice) => make("option", { value: voice.id }, voice.id === "default" ? "The model's own" : voice.name)));
    if (data.some((voice) => voice.id === chosen)) select.value = chosen;
  }
  return data;
}
