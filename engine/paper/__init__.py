"""From nothing to a paper's tables for one dataset: the steps, their plan, what to expect of each, and a page."""
