"""What went wrong with a download: gone for good, worth another try, or left to the next run."""

import re
import time
from email.utils import parsedate_to_datetime

from yt_dlp.networking.exceptions import HTTPError, TransportError

NOT_GONE = re.compile(r"try again later|rate.?limit|countr|not a bot|sign in to confirm|captcha", re.IGNORECASE)
GONE = re.compile(
    r"private video|video is private|has been removed|removed by the uploader|account .*terminated|no longer available|"
    r"(does not|doesn't) exist|isn't available any ?more",
    re.IGNORECASE,
)
BROKEN_OFF = re.compile(r"\[download\] Got error: (.*)")  # all that is left of an error that yt-dlp would try again


class Trouble(Exception):
    """A try that failed.

    Args:
        gone: for good, says the site.
        again: whether another try in this run may help.
        wait: seconds that the server asks for.
        remote: whether network or server are to blame.
    """

    def __init__(
        self, reason: str, gone: bool = False, again: bool = False, wait: float = 0.0, remote: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.gone, self.again, self.wait, self.remote = reason, gone, again, wait, remote


def trouble_of(error: BaseException, asking: bool) -> Trouble:
    """What an error of yt-dlp means.

    Args:
        asking: while it asks for the video; a 404 for its data means an address that has run out. Nor does YouTube say
            so of a video: it has a page for those that are gone.
    """
    chain = chain_of(error)
    says_so = asking and not any(str(getattr(one, "ie", "")).startswith("youtube") for one in chain)
    for cause in chain:
        if isinstance(cause, HTTPError):
            gone = says_so and cause.status in (404, 410)
            passing = cause.status in (408, 425, 429) or cause.status >= 500
            again = passing or (not asking and cause.status in (403, 404, 410))
            wait = retry_after(cause.response.headers.get("Retry-After")) if passing else 0.0
            return Trouble(str(cause), gone, again, wait, remote=passing)
    for cause in chain:
        if isinstance(cause, TransportError):
            return Trouble(f"no connection: {cause}", again=True, remote=True)
    reason = _words(chain)
    if passing_error := BROKEN_OFF.search(reason):
        return Trouble(f"the download broke off: {passing_error[1]}", again=True, remote=True)
    gone = asking and bool(GONE.search(reason)) and not NOT_GONE.search(reason)
    return Trouble(reason, gone, remote=bool(re.search(r"try again later|rate.?limit", reason, re.IGNORECASE)))


def retry_after(header: str | None) -> float:
    """Seconds that a server asks for: a number, or a date."""
    if not header:
        return 0.0
    try:
        return max(float(header), 0.0) if header.strip().isdecimal() else _until(header)
    except (TypeError, ValueError):
        return 0.0


def _until(date: str) -> float:
    return max(parsedate_to_datetime(date).timestamp() - time.time(), 0.0)


def chain_of(error: BaseException) -> list[BaseException]:
    """An error and what it came from; yt-dlp keeps that in fields of its own."""
    chain: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in chain:
            chain.append(one)
            inner = getattr(one, "exc_info", None) or (None, None)
            waiting += [inner[1], getattr(one, "cause", None), one.__cause__]
    return chain


def _words(chain: list[BaseException]) -> str:
    """The site's own words, in one line."""
    said = next((text for one in chain if (text := getattr(one, "orig_msg", None))), str(chain[0]))
    said = re.sub(r"^ERROR: |; please report this issue on .*|\(caused by .*", "", str(said).replace("\n", " "))
    return said.strip() or type(chain[-1]).__name__
