// Plays what comes, in order, and knows to the sample how much of each answer was heard.
class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = []; // {id, wave, at}
    this.heard = 0; // samples of the current id
    this.id = null;
    this.tick = 0;
    this.port.onmessage = ({ data }) => {
      if (data.wave) this.queue.push({ id: data.id, wave: data.wave, at: 0 });
      if (data.clear) {
        this.queue = [];
        this.port.postMessage({ cleared: true, id: this.id, heard: this.heard });
        this.id = null;
        this.heard = 0;
      }
    };
  }

  process(_, outputs) {
    const out = outputs[0][0];
    let filled = 0;
    while (filled < out.length && this.queue.length) {
      const head = this.queue[0];
      if (head.id !== this.id) { this.id = head.id; this.heard = 0; }
      const count = Math.min(out.length - filled, head.wave.length - head.at);
      out.set(head.wave.subarray(head.at, head.at + count), filled);
      head.at += count;
      filled += count;
      this.heard += count;
      if (head.at === head.wave.length) this.queue.shift();
    }
    if (this.tick++ % 8 === 0) this.port.postMessage({ id: this.id, heard: this.heard, playing: this.queue.length > 0 || filled > 0 });
    return true;
  }
}
registerProcessor("player", Player);
