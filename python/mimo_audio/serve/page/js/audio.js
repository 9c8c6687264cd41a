// Sound in the browser: a microphone, a player, WAV files, pictures of waves.
export const RATE = 24000;

export class Microphone {
  // on(block Int16Array of 40 ms, level 0..1) while it is open
  async open(on) {
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 } });
    try {
      this.context = new AudioContext({ sampleRate: RATE });
      this.source = this.context.createMediaStreamSource(this.stream);
    } catch { // Firefox wants the rate of the microphone
      this.context = new AudioContext();
      this.source = this.context.createMediaStreamSource(this.stream);
    }
    await this.context.audioWorklet.addModule("js/capture-worklet.js");
    const node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    node.port.onmessage = ({ data }) => on(data, level(data));
    if (this.context.sampleRate === RATE) this.source.connect(node);
    else {
      const low = new BiquadFilterNode(this.context, { type: "lowpass", frequency: 10500, Q: 0.7 });
      this.source.connect(low).connect(node);
    }
    await this.context.resume();
  }

  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close();
    this.stream = this.context = null;
  }
}

export class Player {
  // onplay(id, heard samples, playing) a few times a second
  constructor(onplay = () => {}) { this.onplay = onplay; }

  async open() {
    if (this.context) return this.context.resume();
    this.context = new AudioContext({ sampleRate: RATE });
    await this.context.audioWorklet.addModule("js/player-worklet.js");
    this.node = new AudioWorkletNode(this.context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.analyser = new AnalyserNode(this.context, { fftSize: 1024 });
    this.node.connect(this.analyser).connect(this.context.destination);
    this.playing = false;
    this.node.port.onmessage = ({ data }) => {
      if (data.cleared) { this.playing = false; this.waiting?.(data); this.waiting = null; return; }
      this.playing = data.playing;
      this.onplay(data.id, data.heard, data.playing);
    };
    await this.context.resume();
  }

  play(id, wave) {
    this.playing = true;
    this.node.port.postMessage({ id, wave }, [wave.buffer]);
  }

  // Stops at once; -> {id, heard} of what was being played
  clear() {
    if (!this.node) return Promise.resolve({ id: null, heard: 0 });
    this.playing = false;
    return new Promise((resolve) => { this.waiting = resolve; this.node.port.postMessage({ clear: true }); });
  }

  close() { this.context?.close(); this.context = this.node = null; this.playing = false; }
}

export function level(block) {
  let sum = 0;
  for (const value of block) sum += value * value;
  return Math.min(1, Math.sqrt(sum / block.length) / 8000);
}

export function toBase64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

export function fromPcm(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.byteLength >> 1 }, (_, i) => view.getInt16(2 * i, true) / 32768);
}

export function wavFile(wave, rate = RATE) {
  const view = new DataView(new ArrayBuffer(44 + 2 * wave.length));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * wave.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * wave.length, true);
  wave.forEach((value, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, value)) * 32767, true));
  return new Blob([view], { type: "audio/wav" });
}

// Any file that the browser reads -> a mono wave at 24 kHz
export async function readFile(blob) {
  const data = await blob.arrayBuffer();
  const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(data);
  const wave = new Float32Array(decoded.length);
  for (let c = 0; c < decoded.numberOfChannels; c++) decoded.getChannelData(c).forEach((v, i) => { wave[i] += v / decoded.numberOfChannels; });
  return wave;
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// The peaks of a wave, one bar per few pixels
export function drawWave(canvas, wave, ink = "--accent") {
  const scale = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * scale || 600;
  canvas.height = canvas.clientHeight * scale || 80;
  const pen = canvas.getContext("2d");
  pen.fillStyle = colour(ink);
  const bars = Math.floor(canvas.width / (3 * scale)), middle = canvas.height / 2;
  for (let bar = 0; bar < bars; bar++) {
    let peak = 0;
    const end = Math.floor((bar + 1) * wave.length / bars);
    for (let i = Math.floor(bar * wave.length / bars); i < end; i++) peak = Math.max(peak, Math.abs(wave[i]));
    const height = Math.max(scale, Math.min(1, peak * 1.4) * canvas.height);
    pen.fillRect(bar * 3 * scale, middle - height / 2, 2 * scale, height);
  }
}
