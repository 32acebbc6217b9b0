"""Recipes: composing the YAML layers, checking them, building what they name."""
