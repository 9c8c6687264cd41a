// Speak a text, heard while it is made; and the voices it can be spoken in.
import { Player, RATE, drawWave, fromPcm, wavFile } from "./audio.js";
import { $, SoundInput, ask, during, figures, loadVoices, make, notice, seconds } from "./page.js";

let stop = null;

async function speak() {
  const player = new Player(), abort = new AbortController(), began = performance.now();
  await player.open();
  stop = () => { abort.abort(); player.close(); };
  $("speak-stop").disabled = false;
  const body = { input: $("speak-text").value, voice: $("speak-voice").value || "default", response_format: "pcm", stream_format: "audio" };
  if ($("speak-style").value.trim()) body.instructions = $("speak-style").value.trim();
  const pieces = [];
  let first = 0, rest = new Uint8Array();
  try {
    const response = await ask("v1/audio/speech", { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal: abort.signal });
    for (const reader = response.body.getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) break;
      first = first || performance.now();
      const bytes = new Uint8Array([...rest, ...value]);
      rest = bytes.slice(bytes.length & ~1);
      const wave = fromPcm(bytes.subarray(0, bytes.length & ~1));
      pieces.push(wave.slice());
      player.play("speech", wave);
    }
  } finally {
    $("speak-stop").disabled = true;
  }
  const took = (performance.now() - began) / 1000;
  const wave = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  pieces.reduce((at, piece) => { wave.set(piece, at); return at + piece.length; }, 0);
  if (!wave.length) throw new Error("The model said nothing. Another text may help.");
  const url = URL.createObjectURL(wavFile(wave)), canvas = make("canvas", { class: "wave", "aria-hidden": "true" });
  $("speak-result").replaceChildren(canvas, make("audio", { controls: true, src: url, "aria-label": "The speech" }), make("a", { href: url, download: "speech.wav" }, "Save speech.wav"),
    figures([["First sound", `${Math.round(first - began)} ms`], ["Length", seconds(wave.length / RATE)], ["Real-time factor", (took / (wave.length / RATE)).toFixed(2)]]));
  $("speak-result").hidden = false;
  drawWave(canvas, wave);
}

async function listVoices() {
  const voices = (await loadVoices()).filter((voice) => voice.id !== "default");
  $("voice-list").replaceChildren(...voices.map((voice) => make("li", {}, `${voice.name} (${seconds(voice.seconds)})`,
    make("button", { type: "button", "aria-label": `Delete the voice ${voice.name}`, async onclick() {
      try { await ask(`v1/audio/voices/${voice.id}`, { method: "DELETE" }); await listVoices(); } catch (error) { notice(error.message); }
    } }, "Delete"))));
}

export function setUp() {
  const sample = new SoundInput($("voice-sound"), "Recording of the voice");
  $("speak-form").onsubmit = (event) => { event.preventDefault(); during($("speak-go"), speak); };
  $("speak-stop").onclick = () => stop?.();
  $("voice-form").onsubmit = (event) => {
    event.preventDefault();
    during(event.submitter, async () => {
      const form = new FormData();
      form.append("name", $("voice-name").value.trim());
      form.append("audio_sample", sample.value(), "voice.wav");
      const voice = await (await ask("v1/audio/voices", { method: "POST", body: form })).json();
      await listVoices();
      for (const select of document.querySelectorAll("select.voices")) select.value = voice.id;
      $("voice-name").value = "";
    });
  };
  return listVoices;
}
