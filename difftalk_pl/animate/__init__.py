"""From any video and any speech to a talking video."""
