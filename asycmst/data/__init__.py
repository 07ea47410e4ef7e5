"""Clips, phantoms and samples."""
