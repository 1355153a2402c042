"""The configuration of nginx: requests reach the component that answers them, and odd paths break nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dtr.config import Limits, Nginx
from dtr.http import ui
from dtr.http.trust.routes import HEALTH
from dtr.nginx import NginxFailed
from dtr.nginx.configuration import PLACES, Configuration, addresses_of, is_speakable
from dtr.pki import Certificate


def component_of(path: str) -> str:
    """Where nginx sends a path: whole places go first, then the longest beginning (ngx_http_core_module)."""
    whole = {place.removeprefix("= "): component for place, component in PLACES if place.startswith("= ")}
    beginnings = {place: component for place, component in PLACES if not place.startswith("= ")}
    return whole.get(path) or beginnings[max((one for one in beginnings if path.startswith(one)), key=len)]


@pytest.mark.parametrize(
    ("path", "component"),
    [
        ("/", "api"),
        ("/v2/", "registry"),
        ("/v2/a/b/blobs/uploads/", "registry"),
        ("/v2/host:5000/a/b/_trust/tuf/root.json", "registry"),
        (HEALTH, "registry"),
        ("/auth/token", "garant"),
        ("/auth/jwks.json", "garant"),
        ("/auth/login", "api"),
        ("/basic_info", "api"),
        ("/api/v0/meta/settings", "api"),
        ("/enzi/v0/accounts", "api"),
        ("/v1/search", "api"),
        ("/repositories/acme/app/tags", "api"),
        ("/static/app.js", "api"),
    ],
)
def test_each_path_goes_to_its_component(path: str, component: str) -> None:
    assert component_of(path) == component


def test_every_route_of_dtr_is_in_the_list_above() -> None:
    """What the composition root gives to the front of each component; whoever adds something adds it here."""
    source = (Path(__file__).parents[3] / "src" / "dtr" / "app.py").read_text()
    front = source.partition("def front(")[2].partition("return Front(")[0]
    named = set(re.findall(r'routes\["([^"]*)"\]', front))
    (rest, pages) = re.findall(r"routes\.update\(dict\.fromkeys\((?:\(([^)]*)\)|(\w+)), \w+\)\)", front)
    assert pages[1] == "PLACES", "the pages, which are where nothing else is"
    named |= {one.strip().strip('"') for one in rest[0].split(",")}
    assert named == {"v2", "auth", "api", "enzi", "v1", "/auth/login", "/basic_info"}
    assert all(component_of(f"/{place}") == "api" for place in ui.PLACES)


def configuration(**changes: object) -> Configuration:
    given = {
        "settings": Nginx(),
        "clients": Limits(),
        "upstreams": addresses_of(Nginx(upstreams=("10.0.0.1:5080",)), None),
        "certificate": Certificate(Path("/etc/server.pem"), Path("/etc/server-key.pem"), None),
        "storages": {},
        "directory": Path("/var/lib/dtr/nginx"),
        "user": None,
        "external_port": 443,
        "version": (1, 22, 1),
    }
    return Configuration(**given | changes)


def test_names_of_files_are_quoted() -> None:
    odd = Path('/etc/a "b" \\c;{}/server.pem')
    text = configuration(certificate=Certificate(odd, Path("/k"), None)).text()
    assert r'ssl_certificate "/etc/a \"b\" \\c;{}/server.pem";' in text


@pytest.mark.parametrize("name", ["a$b", "a\nb", "a\0b"])
def test_what_nginx_cannot_be_told_is_refused_or_left_out(name: str) -> None:
    path = Path("/srv") / name
    assert not is_speakable(path)
    with pytest.raises(NginxFailed, match="cannot be told the path"):
        configuration(certificate=Certificate(path, Path("/k"), None)).text()
    # A storage there is served by dtr alone.
    text = configuration(storages={"odd": path, "plain": Path("/srv/plain")}).text()
    assert 'set $reachable "plain";' in text
    assert "/.files/odd/" not in text


def test_http_2_is_asked_for_as_the_version_wants_it() -> None:
    assert "listen 0.0.0.0:443 ssl http2;" in configuration(version=(1, 25, 0)).text()
    newer = configuration(version=(1, 25, 1)).text()
    assert "listen 0.0.0.0:443 ssl;" in newer
    assert "http2 on;" in newer


def test_components_may_be_elsewhere() -> None:
    own = "127.0.0.1:5080"
    assert addresses_of(Nginx(), own) == dict.fromkeys(("registry", "garant", "api"), (own,))
    several = Nginx(upstreams=("a:1", "b:1"), api=("c:2",))
    assert addresses_of(several, own) == {"registry": ("a:1", "b:1"), "garant": ("a:1", "b:1"), "api": ("c:2",)}
    assert addresses_of(Nginx(registry=("a:1",), garant=("b:1",), api=("c:2",)), None)["api"] == ("c:2",)
    with pytest.raises(NginxFailed, match=r"nginx\.upstreams"):
        addresses_of(Nginx(registry=("a:1",)), None)


def test_an_address_of_ipv6_is_good_for_ipv4_too() -> None:
    text = configuration(settings=Nginx(https_address="[::]:443", http_address=None)).text()
    assert "listen [::]:443 ipv6only=off ssl http2;" in text
    assert text.count("listen ") == 1
