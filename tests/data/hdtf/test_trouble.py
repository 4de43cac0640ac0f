"""What the words of sites and servers mean; the errors are yt-dlp's own classes."""

import io
import time
from email.utils import formatdate

import pytest

pytest.importorskip("yt_dlp")

from yt_dlp.networking.common import Response
from yt_dlp.networking.exceptions import HTTPError
from yt_dlp.utils import DownloadError, ExtractorError

from difftalk_pl.data.hdtf.trouble import retry_after, trouble_of


def raised(words: str, cause: Exception | None = None, extractor: str = "youtube") -> DownloadError:
    """As YoutubeDL raises what an extractor raised."""
    inner = ExtractorError(words, expected=True, video_id="CPCoMyuBRM0", ie=extractor, cause=cause)
    return DownloadError(f"ERROR: {inner}", (ExtractorError, inner, None))


def refused(status: int, wait: str | None = None) -> HTTPError:
    headers = {"Retry-After": wait} if wait else {}
    return HTTPError(Response(io.BytesIO(b""), "https://example.org/a", headers, status))


@pytest.mark.parametrize(
    "words, gone",
    [
        ("Private video. Sign in if you've been granted access to this video. Use --cookies for it", True),
        ("Video unavailable. This video is private", True),
        ("This video has been removed by the uploader", True),
        ("Video unavailable. This video is no longer available because the YouTube account associated with this", True),
        ("Video unavailable", False),
        ("Video unavailable. This content isn't available", False),
        ("Video unavailable. This content isn't available, try again later. The session has been rate-limited", False),
        ("Sign in to confirm you're not a bot. Use --cookies", False),
        ("The uploader has not made this video available in your country. It has been removed there", False),
        ("Join this channel to get access to members-only content", False),
    ],
)
def test_gone_is_only_what_the_site_says_so_of(words, gone):
    trouble = trouble_of(raised(words), asking=True)
    assert (trouble.gone, trouble.reason, trouble.again) == (gone, words, False)
    assert trouble.remote == ("rate-limited" in words)


@pytest.mark.parametrize(
    "status, asking, extractor, gone, again",
    [
        (404, True, "generic", True, False),
        (410, True, "generic", True, False),
        (404, False, "generic", False, True),  # an address that has run out
        (404, True, "youtube", False, False),  # of one of its inner interfaces
        (403, True, "generic", False, False),
        (403, False, "generic", False, True),
        (429, True, "youtube", False, True),
        (503, True, "generic", False, True),
    ],
)
def test_what_the_states_of_http_mean(status, asking, extractor, gone, again):
    trouble = trouble_of(raised("Unable to download webpage", refused(status), extractor), asking)
    assert (trouble.gone, trouble.again, trouble.remote) == (gone, again, status in (429, 503))
    assert trouble.reason.startswith(f"HTTP Error {status}")


def test_a_server_may_say_when_in_seconds_or_as_a_date():
    assert trouble_of(raised("", refused(429, "17")), asking=True).wait == 17
    assert trouble_of(raised("", refused(403, "17")), asking=True).wait == 0
    assert retry_after(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=3)
    assert [retry_after(text) for text in (None, "", "soon", "-5", formatdate(0))] == [0] * 5
