"""Durable call recording for voice bots: the audio side and the composition root."""
