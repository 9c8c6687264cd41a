// Convert: a recording changed as pairs of others show.
import { $, SoundInput, ask, during, figures, make, player, seconds } from "./page.js";

const pairs = [];

function renumber() {
  pairs.forEach((pair, i) => { pair.title.textContent = `Pair ${i + 1}`; });
}

function add() {
  const before = make("div"), after = make("div"), title = make("h3"), number = pairs.length + 1;
  const text = make("input", { type: "text", maxlength: 500, "aria-label": `What the changed recording of pair ${number} says` });
  const remove = make("button", { type: "button", "aria-label": `Remove pair ${number}`, onclick() {
    pairs.splice(pairs.indexOf(pair), 1); pair.line.remove(); renumber();
  } }, "Remove");
  const line = make("li", {}, title, make("div", { class: "two" }, before, after), make("p", { class: "quiet" }, "What the changed one says"), make("div", { class: "row" }, text, remove));
  const pair = { before: new SoundInput(before, `Before, pair ${number}`), after: new SoundInput(after, `After, pair ${number}`), text, title, line };
  pairs.push(pair);
  $("convert-pairs").append(line);
  renumber();
}

export function setUp() {
  const query = new SoundInput($("convert-query"), "Your recording");
  add();
  $("convert-more").onclick = add;
  $("convert-go").onclick = (event) => during(event.target, async () => {
    const form = new FormData();
    if (!pairs.length) throw new Error("Add a pair first: the model learns from it what to do.");
    for (const pair of pairs) {
      if (!pair.text.value.trim()) { pair.text.focus(); throw new Error(`${pair.title.textContent}: write what the changed recording says.`); }
      form.append("before", pair.before.value(), "before.wav");
      form.append("after", pair.after.value(), "after.wav");
      form.append("text", pair.text.value);
    }
    form.append("query", query.value(), "query.wav");
    const said = await (await ask("v1/playground/convert", { method: "POST", body: form })).json();
    $("convert-result").replaceChildren(make("blockquote", {}, said.text || "(no words)"), player(said.audio, "The changed recording", "converted.wav"),
      figures([["Took", seconds(said.seconds)], ["Length", seconds(said.audio_seconds)], ["Real-time factor", (said.seconds / said.audio_seconds).toFixed(2)]]));
    $("convert-result").hidden = false;
  });
}
