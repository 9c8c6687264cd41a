// A client of /v1/realtime: events out, events in.
import { key } from "./page.js";

export class Realtime {
  // on: {"event type": handler}, "*" for all, "close" when the connection ends
  constructor(on) { this.on = on; }

  open() {
    const url = new URL("v1/realtime?model=mimo-audio", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const protocols = key() ? ["realtime", `openai-insecure-api-key.${key()}`] : ["realtime"];
    this.socket = new WebSocket(url, protocols);
    return new Promise((resolve, reject) => {
      this.socket.onerror = () => reject(new Error("No connection: the server is busy, not ready yet, or wants a key."));
      this.socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === "session.created") resolve();
        this.on[event.type]?.(event);
        this.on["*"]?.(event);
      };
      this.socket.onclose = () => this.on.close?.();
    });
  }

  send(type, fields = {}) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  close() {
    if (this.socket) this.socket.onclose = null;
    this.socket?.close();
    this.socket = null;
  }
}
