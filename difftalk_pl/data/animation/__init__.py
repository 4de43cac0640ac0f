"""From any video to a clip that can be driven, and back into the video."""
