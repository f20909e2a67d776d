"""What of an HTTP request is checked before its body is read."""

import ipaddress
import urllib.parse

from aiohttp import web

__all__ = ["check_requests"]


def check_requests(allowed_hosts):
    """A middleware that refuses what no client of this server sends.

    - A body with a `Content-Encoding`: a few bytes of it can stand for gigabytes.
    - A `Host` that is not one of this server: a page of another site whose name
      has been pointed at this machine (DNS rebinding) could read the answers.
    - A POST that a page of another site has the browser send.

    Args:
        allowed_hosts: names beside "localhost" and addresses, which no DNS resolves.
    """
    allowed_hosts = {name.lower() for name in ("localhost", *allowed_hosts)}

    @web.middleware
    async def checked(request, handler):
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise web.HTTPUnsupportedMediaType(
                text=f"Received Content-Encoding {encoding[:40]!r}; send the body as "
                f"it is."
            )
        name = _host_name(request.host)
        if name not in allowed_hosts and not _is_address(name):
            raise web.HTTPForbidden(
                text=f"Received Host {name[:80]!r}; expected an address or one of "
                f"{sorted(allowed_hosts)}. --allowed_hosts of the server takes more."
            )
        if request.method not in ("GET", "HEAD") and _is_of_another_site(request):
            raise web.HTTPForbidden(text="Received a request of another site's page.")
        return await handler(request)

    return checked


def _host_name(host):
    """The name in "name:port", "" if there is none."""
    try:
        return urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name):
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _is_of_another_site(request):
    """Whether a browser says so; it sends an `Origin` where it sends nothing newer."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    try:
        return (
            origin is not None and urllib.parse.urlsplit(origin).netloc != request.host
        )
    except ValueError:  # "http://[", of no page
        return True
