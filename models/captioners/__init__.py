"""BLIP-2 behind one interface, by LAVIS or by transformers."""
