"""The ground floor: types, checks, text, progress and interrupts, for the package alone."""
