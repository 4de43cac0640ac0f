"""Faces in videos: detection, 68 landmarks, tracking, crops."""
