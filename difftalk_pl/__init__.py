"""difftalk_pl: audio-driven talking heads with DiffTalk (CVPR 2023), from raw video to a talking video."""

__version__ = "0.1.0"
