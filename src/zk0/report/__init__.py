"""A run as one HTML file: read from its folder, works offline, holds all but the videos."""
