"""Faces in videos: found, tracked, framed, cut out."""
