"""Who HDTF's videos show, by the names in its tables.

In WDA and WRA a video is called after the person, with a number where there are several: AdamKinzinger0 to 2 show one
person. RD's Radio1, Radio2 … tell nobody's name, so each is taken for a person of its own.
"""

DIGITS = "0123456789"
ALSO = {"WhipJimClyburn": "JamesClyburn"}
TWICE = {"WhipJimClyburn": "JamesClyburn1"}  # one address and the same seconds, under two names


def person_of(source: str, video: str) -> str:
    """The identity of a video's clips, e.g. AdamKinzinger of WRA's AdamKinzinger2.

    Args:
        source: RD, WDA or WRA.
    """
    if source == "RD":
        return video
    name = video.rstrip(DIGITS) or video
    return ALSO.get(name, name)


def recording_of(video: str) -> str:
    """The first name of a video that the tables have under two."""
    return TWICE.get(video, video)
