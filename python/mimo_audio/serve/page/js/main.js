// The page: tabs, what runs, and its five parts.
import * as codec from "./codec.js";
import * as convert from "./convert.js";
import * as listen from "./listen.js";
import { $, ask, figures, make, notice } from "./page.js";
import * as speak from "./speak.js";
import * as talk from "./talk.js";

const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab, focus = false) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  notice("");
}

tabs.forEach((tab, i) => {
  tab.onclick = () => choose(tab);
  tab.onkeydown = (event) => {
    const to = { ArrowRight: i + 1, ArrowLeft: i - 1 + tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); choose(tabs[to % tabs.length], true); }
  };
});
const wanted = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash);
if (wanted) choose(wanted);

const count = (value) => (value >= 1e9 ? `${(value / 1e9).toFixed(1)} B` : `${(value / 1e6).toFixed(1)} M`);

async function describe() {
  let model;
  try { model = await (await ask("v1/playground/model")).json(); } catch (error) {
    $("status").className = "status down";
    $("status-text").textContent = error.message;
    return setTimeout(describe, 3000);
  }
  const ready = model.state === "ready";
  $("status").className = `status ${ready ? "ready" : ""}`;
  $("status-text").textContent = ready ? model.name : `${model.state}: ${model.reason}`;
  if (!ready) { $("about-text").textContent = model.reason; return setTimeout(describe, 1000); }
  $("about-text").textContent = model.about;
  for (const list of ["can", "cannot"]) $(`about-${list}`).replaceChildren(...model[list].map((text) => make("li", {}, text)));
  $("about-lists").hidden = false;
  $("about-figures").replaceChildren(...figures([
    ["Parameters", count(model.parameters)], ["Audio tokenizer", count(model.tokenizer_parameters)], ["Device", model.device],
    ["Context", `${Math.round(model.context_seconds)} s of sound`], ["Answers at once", `${model.slots}`],
  ]).children);
  $("codec-n").max = model.all_codebooks;
  $("codec-n").value = $("codec-n-shown").textContent = model.codebooks;
  $("speak-text").maxLength = model.most_text;
  try { await voices(); } catch (error) { notice(error.message); }
}

talk.setUp();
const voices = speak.setUp();
listen.setUp();
convert.setUp();
codec.setUp();
describe();
$("key-form").onsubmit = (event) => { event.preventDefault(); notice(""); describe(); };
