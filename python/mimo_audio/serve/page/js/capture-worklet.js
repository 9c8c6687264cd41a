// The microphone as blocks of 16-bit PCM at 24 kHz (linear interpolation; a low-pass filter stands before it).
class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.step = sampleRate / 24000;
    this.at = 0; // position of the next sample in this block
    this.last = 0; // the sample before this block
    this.block = new Int16Array(960); // 40 ms
    this.filled = 0;
  }

  process(inputs) {
    const wave = inputs[0][0];
    if (!wave) return true;
    while (this.at < wave.length) {
      const index = Math.floor(this.at), part = this.at - index;
      const before = index ? wave[index - 1] : this.last;
      const value = Number.isInteger(this.step) && this.step === 1 ? wave[index] : before + (wave[index] - before) * part;
      this.block[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
      if (this.filled === this.block.length) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
      this.at += this.step;
    }
    this.at -= wave.length;
    this.last = wave[wave.length - 1];
    return true;
  }
}
registerProcessor("capture", Capture);
