// Codec: a recording through the audio tokenizer and back, heard and seen.
import { fromBase64 } from "./audio.js";
import { $, SoundInput, ask, during, figures, make, player, seconds } from "./page.js";

// Stops of matplotlib's inferno, dark to bright
const STOPS = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];
const COLOURS = Array.from({ length: 256 }, (_, i) => {
  const at = i / 255 * (STOPS.length - 1), low = Math.min(Math.floor(at), STOPS.length - 2), part = at - low;
  return STOPS[low].map((value, c) => value + (STOPS[low + 1][c] - value) * part);
});

function mel({ width, height, data }, label) {
  const canvas = make("canvas", { class: "mel", width, height, role: "img", "aria-label": label });
  const pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
  fromBase64(data).forEach((value, i) => image.data.set([...COLOURS[value], 255], 4 * i));
  pen.putImageData(image, 0, 0);
  return canvas;
}

export function setUp() {
  const sound = new SoundInput($("codec-sound"), "Recording");
  $("codec-n").oninput = () => { $("codec-n-shown").textContent = $("codec-n").value; };
  $("codec-go").onclick = (event) => during(event.target, async () => {
    const form = new FormData();
    form.append("file", sound.value(), "recording.wav");
    form.append("codebooks", $("codec-n").value);
    const said = await (await ask("v1/playground/codec", { method: "POST", body: form })).json();
    const took = said.encode_seconds + said.decode_seconds;
    $("codec-result").replaceChildren(
      figures([
        ["Bit rate", `${(said.bits_per_second / 1000).toFixed(2)} kbit/s`], ["Of 16-bit PCM", `1/${Math.round(384000 / said.bits_per_second)}`], ["Frames", `${said.frames}`],
        ["Encoding", seconds(said.encode_seconds)], ["Decoding", seconds(said.decode_seconds)], ["Real-time factor", (took / said.audio_seconds).toFixed(3)], ["Mean mel difference", said.mel_distance.toFixed(3)],
      ]),
      make("div", { class: "two" },
        make("div", {}, make("h3", {}, "Before"), mel(said.before, "Mel spectrogram of the recording")),
        make("div", {}, make("h3", {}, "After"), mel(said.after, "Mel spectrogram of what the codec kept"), player(said.audio, "What the codec kept", "codec.wav"))),
    );
    $("codec-result").hidden = false;
  });
}
