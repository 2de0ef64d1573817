"""What recipes are written in: text, bounded numbers, selectors, references to code. No torch."""
