"""The voices that no training may hear, named here and nowhere else.

A mixture with any of them is held out, too. Of espeak-ng it is the variant (after the +) that is a voice, in whatever
accent it speaks.
"""

HELD_OUT = {
    "kokoro": ("af_sky", "am_fenrir", "bf_isabella", "bm_lewis"),
    "espeak": ("f5", "m7", "victor", "anika", "robert", "steph3"),
    "flite": ("awb",),
    "hibari": (),  # it has one voice only
    "mimo": (),
}
# New speakers between two that are held out.
HELD_OUT_MIXTURES = ("kokoro/af_sky:0.5+bf_isabella:0.5", "kokoro/am_fenrir:0.5+bm_lewis:0.5")


def is_held_out(voice: str) -> bool:
    """Whether ENGINE/VOICE, or any part of a mixture, is one that training may not hear."""
    engine, _, name = voice.partition("/")
    if engine == "mimo":  # a folder and a recording, whose names may hold anything
        return False
    parts = {part.partition(":")[0] for part in name.split("+")}
    return not parts.isdisjoint(HELD_OUT.get(engine, ()))
