// Listen: the words of a recording, and answers to questions about it.
import { RATE } from "./audio.js";
import { $, SoundInput, ask, during, figures, make, seconds } from "./page.js";

function show(text, thought, took, length) {
  const parts = [make("blockquote", {}, text || "(no words)")];
  if (thought) parts.unshift(make("details", {}, make("summary", {}, "What it thought first"), make("p", {}, thought)));
  parts.push(figures([["Took", seconds(took)], ["Recording", seconds(length)], ["Real-time factor", (took / length).toFixed(2)]]));
  $("listen-result").replaceChildren(...parts);
  $("listen-result").hidden = false;
}

export function setUp() {
  const sound = new SoundInput($("listen-sound"), "Recording");
  const send = async (path, fields) => {
    const form = new FormData(), began = performance.now();
    form.append("file", sound.value(), "recording.wav");
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    const said = await (await ask(path, { method: "POST", body: form })).json();
    show(said.text, said.thought, (performance.now() - began) / 1000, sound.wave.length / RATE);
  };
  $("listen-transcribe").onclick = (event) => during(event.target, () => send("v1/audio/transcriptions", { language: $("listen-language").value }));
  $("listen-form").onsubmit = (event) => {
    event.preventDefault();
    during(event.submitter, () => send("v1/playground/understand", { question: $("listen-question").value, thinking: $("listen-think").checked }));
  };
}
