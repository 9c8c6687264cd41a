"""OpenAI's realtime protocol (GA names): a pure session, voice activity, and the WebSocket between them and a model."""
