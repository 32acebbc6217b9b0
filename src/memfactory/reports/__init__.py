"""Reading finished runs again: a page with curves and rollouts, pictures, and the same in a terminal."""
