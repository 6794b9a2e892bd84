"""Private helpers of the whole package: types, checks, text, progress and interrupts."""
