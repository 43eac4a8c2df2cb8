"""The mini world: rendered scenes, a simulated captioner and a small CLIP, so that the whole method runs anywhere.

- `drawing`, `objects`, `backdrops`, `scenes`: labelled pictures from a seed, no external assets;
- `simulated_captioner`: six captions and six re-captions a picture, as noisy as real ones;
- `portraits`: single things, large, as the web has them, to train the mini CLIP on;
- `worker`, `render`: the data tree with images, split files and captions;
- `weights/`: the mini CLIP and the log of its training;
- `train_clip`, `clip_training/`: what trained it.
"""
