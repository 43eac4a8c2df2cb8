"""The four-step filter of one caption: words, phrases, what is denied, and the categories that are named."""
