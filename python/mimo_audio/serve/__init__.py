"""Serving a model: OpenAI's audio endpoints over HTTP, realtime speech, a web page (docs/serving.md)."""
